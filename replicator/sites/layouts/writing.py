"""What a site does once, before it writes for the first time."""

from __future__ import annotations

import asyncio

from replicator.errors import SiteError
from replicator.events import Events, Warned
from replicator.ports import ObjectStore


class FirstWrite:
    """Clears away what a killed run left, before the first write: who only reads changes nothing.

    That it cannot be cleared away is a warning, as what is left hurts nobody but takes room.
    """

    def __init__(self, store: ObjectStore, events: Events) -> None:
        self._store = store
        self._events = events
        self._lock = asyncio.Lock()
        self._swept = False

    async def ready(self) -> None:
        """Returns when the site may be written to."""
        async with self._lock:
            if not self._swept:
                await self._sweep()
                self._swept = True

    async def _sweep(self) -> None:
        try:
            await self._store.sweep()
        except SiteError as error:
            self._events.emit(Warned(self._store.site, f"leftovers of an earlier run stay: {error}"))
