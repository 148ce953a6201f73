"""What keeps runs of one process apart: locks on repositories, and claims of tags."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Final, NamedTuple

from replicator.model.digest import Digest
from replicator.ports import Clock

RepositoryKey = tuple[str, str]
"""Destination, target repository."""
Target = tuple[str, str, str]
"""Destination, target repository, tag (or a digest that is wanted without one)."""
Origin = tuple[str, str, str | None]
"""Source, source repository, tag."""
REMEMBER_SECONDS: Final = 3600.0


class RepositoryLocks:
    """Which repositories of destinations are being worked on, and what was put there lately.

    Whatever rule a run is of, it works on a repository alone. A run that asked the source before another one put a
    newer tag must not put the older one over it: `settle` keeps, for a while, how recent the knowledge was by which a
    tag was brought in step, and of what: two sources that want one target are another matter.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._locks: dict[RepositoryKey, tuple[asyncio.Lock, int]] = {}
        self._waiting: defaultdict[RepositoryKey, dict[object, Callable[[], None]]] = defaultdict(dict)
        # Kept flat and shared where it can be: it grows with every tag that is copied.
        self._settled: dict[RepositoryKey, dict[str, tuple[RepositoryKey, str | None, float]]] = {}
        self._origins: dict[RepositoryKey, RepositoryKey] = {}
        self._pruned = clock.monotonic()

    def is_locked(self, key: RepositoryKey) -> bool:
        """Whether somebody works on the repository."""
        return key in self._locks

    async def take(self, key: RepositoryKey) -> None:
        """Returns when the caller has the repository; in turn."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            await lock.acquire()
        except BaseException:
            self._leave(key)
            raise

    def give_back(self, key: RepositoryKey) -> None:
        """Lets the next one have it."""
        self._locks[key][0].release()
        self._leave(key)

    def when_free(self, key: RepositoryKey, who: object, tell: Callable[[], None]) -> None:
        """Calls `tell` once, when nobody works on the repository any more; of two by one `who` the later counts."""
        self._waiting[key][who] = tell

    def _leave(self, key: RepositoryKey) -> None:
        lock, users = self._locks[key]
        if users > 1:
            self._locks[key] = (lock, users - 1)
            return
        del self._locks[key]
        for tell in self._waiting.pop(key, {}).values():
            tell()

    def settle(self, target: Target, origin: Origin, asked_at: float) -> None:
        """Notes that a target is in step by what its origin was at `asked_at` (monotonic seconds)."""
        now = self._clock.monotonic()
        if now - self._pruned > REMEMBER_SECONDS:
            self._pruned = now
            self._prune(now)
        base = self._origins.setdefault(origin[:2], origin[:2])
        self._settled.setdefault(target[:2], {})[target[2]] = (base, origin[2], asked_at)

    def _prune(self, now: float) -> None:
        kept = {
            key: {tag: known for tag, known in tags.items() if now - known[2] < REMEMBER_SECONDS}
            for key, tags in self._settled.items()
        }
        self._settled = {key: tags for key, tags in kept.items() if tags}
        self._origins = {}

    def is_settled_since(self, target: Target, origin: Origin, asked_at: float) -> bool:
        """Whether a later look than `asked_at` at the same origin has brought the target in step already."""
        known = self._settled.get(target[:2], {}).get(target[2])
        return known is not None and (*known[0], known[1]) == origin and known[2] > asked_at


class _Claim(NamedTuple):
    claimant: str
    origin: Origin
    digest: Digest


class TagClaims:
    """Targets of a run, each with the first that claimed it."""

    def __init__(self) -> None:
        self._claims: dict[RepositoryKey, dict[str, _Claim]] = {}

    def claim(
        self, key: RepositoryKey, tag: str, claimant: str, origin: Origin, digest: Digest
    ) -> str | None:
        """Claims a tag for a digest.

        Returns:
            None where it may be written, else the claimant that came first with another digest of another origin.
            One tag that was another digest when another rule asked has moved meanwhile: the next run agrees.
        """
        claim = _Claim(claimant, origin, digest)
        first = self._claims.setdefault(key, {}).setdefault(tag, claim)
        return None if first.digest == digest or first.origin == origin else first.claimant
