"""Commands around runs while the program stops: each has some time left, and is killed after it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from replicator.events import Events, Warned
from replicator.runs.hooks import HOOK_SECONDS

_T = TypeVar("_T")


class CommandLimits:
    """Commands in progress, without a limit of their own until `drain`."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._limits: dict[asyncio.Timeout, float] = {}
        self.is_draining = False

    def drain(self) -> None:
        """Begins the time that commands have left. A second call changes nothing."""
        if self.is_draining:
            return
        self.is_draining = True
        now = asyncio.get_running_loop().time()
        for limit, seconds in self._limits.items():
            limit.reschedule(now + seconds)

    async def before(self, rule: str, command: Coroutine[Any, Any, _T]) -> _T | None:
        """The result of a command before a run; None if it was killed because a drain began."""
        return await self._run(command, 0.0, f"rule {rule}: run the command before")

    async def after(self, rule: str, command: Coroutine[Any, Any, _T]) -> _T | None:
        """The result of a command after a run; None if it was killed `HOOK_SECONDS` after a drain began."""
        return await self._run(command, HOOK_SECONDS, f"rule {rule}: run the command after")

    async def _run(self, command: Coroutine[Any, Any, _T], seconds: float, what: str) -> _T | None:
        limit = asyncio.timeout(seconds if self.is_draining else None)
        try:
            async with limit:
                self._limits[limit] = seconds
                return await command
        except TimeoutError:
            self._events.emit(Warned(None, f"{what}: killed because replicator is shutting down"))
            return None
        finally:
            self._limits.pop(limit, None)
