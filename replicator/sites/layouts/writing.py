"""What a site does once, before it writes for the first time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from replicator.errors import SiteError
from replicator.events import Events, Warned
from replicator.ports import ObjectStore


class FirstWrite:
    """Removes what a killed run left, before the first write: a site that is only read is not changed.

    Leftovers that cannot be removed are a warning: they take room and do no other harm.

    Args:
        store: the site's store.
        events: gets `Warned`.
        is_ours: whether the layout writes a key in parts; see `ObjectStore.sweep`.
    """

    def __init__(self, store: ObjectStore, events: Events, is_ours: Callable[[str], bool]) -> None:
        self._is_ours = is_ours
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
            await self._store.sweep(self._is_ours)
        except SiteError as error:
            self._events.emit(
                Warned(self._store.site, f"leftovers of an earlier run were not removed: {error}")
            )
