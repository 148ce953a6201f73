"""Blocking calls in threads, which nobody can stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")


async def run_in_thread(call: Callable[[], T], threads: Executor | None = None) -> T:
    """What the call returns or raises; by default in the loop's own threads.

    Waits for its end even when cancelled: the call may hold files that the caller closes next.
    """
    future = asyncio.get_running_loop().run_in_executor(threads, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        future.exception()  # looked at, so that nobody warns of it
        raise
