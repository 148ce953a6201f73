"""Who works on which repository: runs of one process that meet there go one after the other."""

from __future__ import annotations

import asyncio
from typing import Final

from replicator.ports import Clock

Place = tuple[str, str, str]
"""Rule, destination, target repository."""
REMEMBER_SECONDS: Final = 3600.0


class InHand:
    """Repositories in hand, and what was put there lately.

    A run that looked at the source before another one put a newer tag must not put the older one over it:
    `settled` keeps, for a while, how recent the knowledge was by which a tag was brought in step.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._locks: dict[Place, tuple[asyncio.Lock, int]] = {}
        self._settled: dict[tuple[str, str, str], float] = {}
        self._pruned = clock.monotonic()

    async def take(self, place: Place) -> None:
        """Returns when the place is in the caller's hand; in turn."""
        lock, users = self._locks.get(place, (asyncio.Lock(), 0))
        self._locks[place] = (lock, users + 1)
        try:
            await lock.acquire()
        except BaseException:
            self._leave(place)
            raise

    def give_back(self, place: Place) -> None:
        """Lets the next one have it."""
        self._locks[place][0].release()
        self._leave(place)

    def _leave(self, place: Place) -> None:
        lock, users = self._locks[place]
        if users == 1:
            del self._locks[place]
        else:
            self._locks[place] = (lock, users - 1)

    def settle(self, destination: str, repository: str, tag: str, asked_at: float) -> None:
        """Notes that a tag is in step by what the source said at `asked_at` (monotonic seconds)."""
        now = self._clock.monotonic()
        if now - self._pruned > REMEMBER_SECONDS:
            self._pruned = now
            self._settled = {key: at for key, at in self._settled.items() if now - at < REMEMBER_SECONDS}
        self._settled[destination, repository, tag] = asked_at

    def is_settled_since(self, destination: str, repository: str, tag: str, asked_at: float) -> bool:
        """Whether a later look than `asked_at` has brought the tag in step already."""
        return self._settled.get((destination, repository, tag), asked_at) > asked_at
