"""How much is to be copied to the repositories of one destination, and which of them are left to others for that."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from replicator.engine.plan.action import Action
from replicator.model.image import Image
from replicator.ports import SplitsOff, ToCopy


class Weighing:
    """See the module. One run's.

    Args:
        destination: the site's name.
        splits: decides; None: nothing is left to others.
    """

    def __init__(self, destination: str, splits: SplitsOff | None) -> None:
        self._destination = destination
        self._splits = splits
        self._tags: Counter[str] = Counter()
        self._sources: defaultdict[str, set[str]] = defaultdict(set)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._weighed: set[str] = set()

    def enter(self, action: Action) -> None:
        """An action is queued."""
        self._tags[action.target] += 1
        self._sources[action.target].add(action.repository)

    def leave(self, action: Action) -> None:
        """It has ended."""
        self._tags[action.target] -= 1
        if not self._tags[action.target]:
            del self._tags[action.target], self._sources[action.target]

    def is_left(self, target: str) -> bool:
        """Whether nothing is to be written to the repository."""
        return self._splits is not None and self._splits.is_left(self._destination, target)

    def turn(self, action: Action) -> AbstractAsyncContextManager[None]:
        """The first image of a repository is read before the others: these may be left to somebody who reads them again."""
        if self._splits is None or action.target in self._weighed:
            return nullcontext()
        return self._first_turn(action)

    @asynccontextmanager
    async def _first_turn(self, action: Action) -> AsyncIterator[None]:
        async with self._turns[action.target]:
            if action.target not in self._weighed:
                yield
                return
        yield

    async def is_split_off(self, action: Action, image: Image | None = None) -> bool:
        """Whether the action is left to others, as far as its `image` is known. Raises StateError, OwnershipLostError."""
        if self._splits is None:
            return False
        target = action.target
        if image is not None:
            self._weighed.add(target)
        size = 0 if image is None else max(1, image.blob_bytes)
        found = ToCopy(frozenset(self._sources[target]), self._tags[target], size)
        return await self._splits.weigh(self._destination, target, found)
