"""Actions in, images out: reads ahead, and starts the image that shares most whenever there is room."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from replicator.engine.image import Image
from replicator.engine.plan import Action
from replicator.engine.window import Prepared, Window

COPIES_AT_ONCE: Final = 64
WINDOW_IMAGES: Final = 128
WINDOW_BYTES: Final = 16 * 1024 * 1024
"""Manifests read ahead, in bytes; one image is always let through."""


class Dispatch:
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
        self._window = Window()
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
