"""How many repositories a scan looks at side by side."""

from __future__ import annotations

import asyncio
from typing import Final

REPOSITORIES_AT_ONCE: Final = 32
"""On a far link the listing of each takes a round trip, in which the tags of others are asked for."""
LARGE_REPOSITORIES_AT_ONCE: Final = 8
TAGS_IN_HAND: Final = 4096
"""While the repositories in progress have as many tags, no more than `LARGE_REPOSITORIES_AT_ONCE` are begun."""
_UNLISTED: Final = TAGS_IN_HAND // LARGE_REPOSITORIES_AT_ONCE
"""As many tags a repository is taken to have until it is listed."""


class Room:
    """Lets repositories in: many small ones or a few large ones, so that the memory of a scan is bounded."""

    def __init__(self) -> None:
        self._tags: dict[str, int] = {}
        self._changed = asyncio.Event()

    async def come(self, repository: str) -> None:
        """Returns when the repository may be looked at; it is in progress then, until `go`."""
        while not self._is_free():
            self._changed.clear()
            await self._changed.wait()
        self._tags[repository] = _UNLISTED

    def listed(self, repository: str, tags: int) -> None:
        """Tells how many tags a repository in progress has."""
        self._tags[repository] = tags
        self._changed.set()

    def go(self, repository: str) -> None:
        """A repository is no longer in progress."""
        del self._tags[repository]
        self._changed.set()

    def _is_free(self) -> bool:
        count = len(self._tags)
        if count < LARGE_REPOSITORIES_AT_ONCE:
            return True
        return count < REPOSITORIES_AT_ONCE and sum(self._tags.values()) < TAGS_IN_HAND
