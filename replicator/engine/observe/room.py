"""How many tags of a source are in hand at once."""

from __future__ import annotations

import asyncio
from typing import Final

REPOSITORIES: Final = 8
"""Repositories whose tags are in hand whatever their number."""
TAGS: Final = 4096
"""Tags of all repositories in hand, where these are more than `REPOSITORIES`."""


class Room:
    """Lets listed repositories in: many small ones or a few large ones, so that the memory of a scan is bounded."""

    def __init__(self) -> None:
        self._repositories = 0
        self._tags = 0
        self._changed = asyncio.Event()

    async def come(self, tags: int) -> None:
        """Returns when the tags of another repository may be worked on; `go` ends that."""
        while self._repositories >= REPOSITORIES and self._tags + tags > TAGS:
            self._changed.clear()
            await self._changed.wait()
        self._repositories += 1
        self._tags += tags

    def go(self, tags: int) -> None:
        """The tags of a repository have been worked on."""
        self._repositories -= 1
        self._tags -= tags
        self._changed.set()
