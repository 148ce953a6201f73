"""Blocking calls in threads, which nobody can stop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeVar

T = TypeVar("T")

_PAUSE_SECONDS: Final = 0.0001


def give_way() -> None:
    """Called about every millisecond by long work in a thread: lets the event loop have the interpreter at once.

    Otherwise Python lets the loop wait for 5 ms each time that it comes back from the system.
    """
    time.sleep(_PAUSE_SECONDS)  # noqa: TID251 - a thread's, not the loop's


async def run_in_thread(
    call: Callable[[], T], threads: Executor | None = None, stop: Callable[[], None] | None = None
) -> T:
    """What the call returns or raises; by default in the loop's own threads.

    Waits for its end even when cancelled: the call may hold files that the caller closes next. `stop` is called then,
    if it is given, and has the call end soon.
    """
    future = asyncio.get_running_loop().run_in_executor(threads, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if stop is not None and not future.done():
            stop()
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        future.exception()  # looked at, so that nobody warns of it
        raise
