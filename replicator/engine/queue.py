"""Actions in, images out: reads ahead, and starts the image that shares most whenever there is room."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from replicator.engine.content.image import Image
from replicator.engine.plan.compare import Action
from replicator.model.digest import Digest

COPIES_AT_ONCE: Final = 64
WINDOW_IMAGES: Final = 128
WINDOW_BYTES: Final = 16 * 1024 * 1024
"""Manifests read ahead, in bytes; one image is always let through."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An action with its image."""

    action: Action
    image: Image


class ReadAhead:
    """Images ready to be copied. Pure; its size is its user's affair.

    Each image's score, the bytes that it shares with the others, is kept up to date as they come and go: taking one
    out is asked for far more often than there is anything shared.
    """

    def __init__(self) -> None:
        self._images: dict[int, Prepared] = {}
        self._scores: dict[int, int] = {}
        self._holders: defaultdict[Digest, set[int]] = defaultdict(set)
        self._numbers = itertools.count()
        self.manifest_bytes = 0

    def __len__(self) -> int:
        return len(self._images)

    def add(self, prepared: Prepared) -> None:
        """Takes an image in."""
        number, score = next(self._numbers), 0
        for digest, blob in prepared.image.blobs.items():
            holders = self._holders[digest]
            for holder in holders:
                self._scores[holder] += blob.size or 0
            score += len(holders) * (blob.size or 0)
            holders.add(number)
        self._scores[number] = score
        self._images[number] = prepared
        self.manifest_bytes += prepared.image.manifest_bytes

    def take(self) -> Prepared:
        """Gives out the image that shares most; among equals the one that came first. Raises IndexError if empty."""
        if not self._images:
            raise IndexError("the window is empty")
        most = max(self._scores.values())
        number = next(number for number, score in self._scores.items() if score == most)
        prepared = self._images.pop(number)
        del self._scores[number]
        for digest, blob in prepared.image.blobs.items():
            holders = self._holders[digest]
            holders.remove(number)
            for holder in holders:
                self._scores[holder] -= blob.size or 0
            if not holders:
                del self._holders[digest]
        self.manifest_bytes -= prepared.image.manifest_bytes
        return prepared


class CopyQueue:
    """The queue of one rule at one destination.

    Args:
        prepare: reads an action's image; None where it has dealt with the action itself.
        copy: copies a prepared image; deals with its failures itself.
        draining: once set, nothing new is begun.
    """

    def __init__(
        self,
        prepare: Callable[[Action], Awaitable[Image | None]],
        copy: Callable[[Prepared], Awaitable[None]],
        draining: asyncio.Event,
    ) -> None:
        self._prepare = prepare
        self._copy = copy
        self._draining = draining
        self._actions: deque[Action] = deque()
        self._window = ReadAhead()
        self._preparing = 0
        self._copying = 0
        self._closed = False
        self._changed = asyncio.Event()

    def add(self, action: Action) -> None:
        """Takes an action."""
        self._actions.append(action)
        self._changed.set()

    def close(self) -> None:
        """No more will come."""
        self._closed = True
        self._changed.set()

    @property
    def has_left(self) -> bool:
        """Whether there is anything that came and was not begun, or more may come."""
        return bool(self._actions or len(self._window) or not self._closed)

    async def run(self) -> None:
        """Works until all that came is done, or what is under way when draining begins."""
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(self._watch_draining())
            while True:
                self._changed.clear()
                if not self._draining.is_set():
                    self._start(tasks)
                if self._is_done():
                    break
                await self._changed.wait()
            watcher.cancel()

    def _is_done(self) -> bool:
        if self._preparing or self._copying:
            return False
        return self._draining.is_set() or (self._closed and not self._actions and not len(self._window))

    def _start(self, tasks: asyncio.TaskGroup) -> None:
        while self._actions and self._may_read_ahead():
            self._preparing += 1
            tasks.create_task(self._read(self._actions.popleft()))
        while len(self._window) and self._copying < COPIES_AT_ONCE:
            self._copying += 1
            tasks.create_task(self._work(self._window.take()))

    def _may_read_ahead(self) -> bool:
        ahead = self._preparing + len(self._window)
        return ahead == 0 or (ahead < WINDOW_IMAGES and self._window.manifest_bytes < WINDOW_BYTES)

    async def _read(self, action: Action) -> None:
        try:
            image = await self._prepare(action)
            if image is not None:
                self._window.add(Prepared(action, image))
        finally:
            self._preparing -= 1
            self._changed.set()

    async def _work(self, prepared: Prepared) -> None:
        try:
            await self._copy(prepared)
        finally:
            self._copying -= 1
            self._changed.set()

    async def _watch_draining(self) -> None:
        await self._draining.wait()
        self._changed.set()
