"""Blocking calls of archives: in a thread, their errors the site's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

from replicator.errors import Corrupt
from replicator.sites.objects.local.errormap import disk_error

T = TypeVar("T")


async def in_thread(site: str, operation: str, call: Callable[[], T]) -> T:
    """What the call returns. Waits for its end even when cancelled, as it uses files of ours.

    Raises:
        Corrupt: for its ValueError: the archive is not what it should be.
        SiteError: for its OSError.
    """
    future = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        future.exception()  # looked at, so that nobody warns of it
        raise
    except ValueError as error:
        raise Corrupt(site, operation, str(error)) from error
    except OSError as error:
        raise disk_error(site, operation, error) from None
