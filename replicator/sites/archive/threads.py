"""Blocking calls of archives: in a thread, their errors the site's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from replicator.errors import Corrupt
from replicator.flow.thread import run_in_thread
from replicator.sites.objects.local.errormap import disk_error

T = TypeVar("T")


async def in_thread(site: str, operation: str, call: Callable[[], T]) -> T:
    """What the call returns. Waits for its end even when cancelled, as it uses files of ours.

    Raises:
        Corrupt: for its ValueError: the archive is not what it should be.
        SiteError: for its OSError.
    """
    try:
        return await run_in_thread(call)
    except ValueError as error:
        raise Corrupt(site, operation, str(error)) from error
    except OSError as error:
        raise disk_error(site, operation, error) from None
