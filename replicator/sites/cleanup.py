"""What must still be done after whoever asked for the work was cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from replicator.errors import SiteError


class CleanupRequests:
    """Requests that take back what was begun: an upload, say. They outlive the cancelled task that makes them.

    `seconds`: how long each may take; it is dropped then.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, request: Coroutine[Any, Any, object]) -> None:
        """Waits for the request; cancelling the wait does not end it. That it fails is not reported: nothing depends on it."""
        task = asyncio.create_task(self._bounded(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def aclose(self) -> None:
        """Waits until all have ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _bounded(self, request: Coroutine[Any, Any, object]) -> None:
        with contextlib.suppress(TimeoutError, SiteError):
            async with asyncio.timeout(self._seconds):
                await request
