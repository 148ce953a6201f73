"""The end of tasks that run until they are cancelled."""

from __future__ import annotations

import asyncio
from typing import Any, Final

AGAIN_SECONDS: Final = 1.0


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks, and returns when all have ended. Their errors are the caller's to look at.

    A task that goes on is cancelled again: libraries drop a cancellation that comes at the wrong moment, such as
    aiohappyeyeballs while a connection is made, or `asyncio.wait_for` until Python 3.12.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
