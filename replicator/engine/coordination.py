"""Who works on which repository: runs of one process that meet there go one after the other."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from replicator.model.digest import Digest
from replicator.ports import Clock

Place = tuple[str, str, str]
"""Rule, destination, target repository."""
Target = tuple[str, str, str]
"""Destination, target repository, tag (or a digest that is wanted without one)."""
Origin = tuple[str, str, str | None]
"""Source, source repository, tag."""
REMEMBER_SECONDS: Final = 3600.0


class RepositoryLocks:
    """Repositories in hand, and what was put there lately.

    A run that looked at the source before another one put a newer tag must not put the older one over it:
    `settle` keeps, for a while, how recent the knowledge was by which a tag was brought in step, and what it was
    knowledge of: two sources that want one target are another matter.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._locks: dict[Place, tuple[asyncio.Lock, int]] = {}
        self._settled: dict[tuple[str, str, str], tuple[Origin, float]] = {}
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

    def settle(self, target: Target, origin: Origin, asked_at: float) -> None:
        """Notes that a target is in step by what its origin was at `asked_at` (monotonic seconds)."""
        now = self._clock.monotonic()
        if now - self._pruned > REMEMBER_SECONDS:
            self._pruned = now
            self._settled = {
                key: (known, at) for key, (known, at) in self._settled.items() if now - at < REMEMBER_SECONDS
            }
        self._settled[target] = (origin, asked_at)

    def is_settled_since(self, target: Target, origin: Origin, asked_at: float) -> bool:
        """Whether a later look than `asked_at` at the same origin has brought the target in step already."""
        known, at = self._settled.get(target, (origin, asked_at))
        return known == origin and at > asked_at


class _Claim(NamedTuple):
    claimant: str
    origin: Origin
    digest: Digest


class TagClaims:
    """Targets of a run, each with the first that claimed it."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str], dict[str, _Claim]] = {}

    def claim(
        self, place: tuple[str, str], tag: str, claimant: str, origin: Origin, digest: Digest
    ) -> str | None:
        """Claims a tag of (destination, repository) for a digest.

        Returns:
            None where it may be written, else the claimant that came first with another digest of another origin.
            One tag that was another digest when another rule asked has moved meanwhile: the next run agrees.
        """
        claim = _Claim(claimant, origin, digest)
        first = self._claims.setdefault(place, {}).setdefault(tag, claim)
        return None if first.digest == digest or first.origin == origin else first.claimant
