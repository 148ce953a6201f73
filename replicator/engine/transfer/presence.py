"""What one destination is known, in this run, to have: a hint that ages, never the truth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from replicator.model.digest import Digest
from replicator.ports import Clock

MAX_AGE_SECONDS: Final = 15 * 60.0
"""A destination's garbage collection may take what a long run believes to be there."""


class Presence:
    """Which repositories of a destination have which digests."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[Digest, dict[str, float]] = {}

    def add(self, repository: str, digest: Digest) -> None:
        """Notes that the repository has it now."""
        self._seen.setdefault(digest, {})[repository] = self._clock.monotonic()

    def has(self, repository: str, digest: Digest) -> bool:
        """Whether the repository was seen to have it, not too long ago."""
        return self._is_fresh(self._seen.get(digest, {}).get(repository))

    def elsewhere(self, repository: str, digest: Digest) -> Iterator[str]:
        """Other repositories seen to have it, not too long ago."""
        for other, seen in self._seen.get(digest, {}).items():
            if other != repository and self._is_fresh(seen):
                yield other

    def forget(self, repository: str, digests: Iterable[Digest]) -> None:
        """Takes back what proved wrong."""
        for digest in digests:
            self._seen.get(digest, {}).pop(repository, None)

    def _is_fresh(self, seen: float | None) -> bool:
        return seen is not None and self._clock.monotonic() - seen < MAX_AGE_SECONDS
