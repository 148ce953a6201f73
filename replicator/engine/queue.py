"""Copies to one destination, of all runs: reads ahead, and starts the image that shares most whenever there is room.

The queue outlives the scan that filled it. Nobody waits for what he has no part in: rules and repositories take turns,
a repository that has nothing in progress need not wait for others, and large images leave room for small ones.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Awaitable, Callable, Container, Coroutine
from typing import Final, NamedTuple

import msgspec

from replicator.engine.plan.action import Action
from replicator.model.digest import Digest
from replicator.model.image import Image

COPIES_AT_ONCE: Final = 128
"""Images in progress; as many again may be the only ones of their repositories."""
WINDOW_IMAGES: Final = 128
"""Images read ahead; as many again may be the only ones of their repositories."""
WINDOW_BYTES: Final = 16 * 1024 * 1024
"""Manifests read ahead, in bytes; one image is always let through."""
LARGE_IMAGE_BYTES: Final = 256 * 1024 * 1024
LARGE_PART: Final = 0.375
"""The part of `COPIES_AT_ONCE` that large images may take."""


class Prepared(msgspec.Struct, frozen=True):
    """An action with its image, and the run that wants it."""

    action: Action
    image: Image
    copies: Copies | None = None
    is_large: bool = False
    """Whether it will take long."""

    @classmethod
    def of(cls, action: Action, image: Image, copies: Copies | None = None) -> Prepared:
        """The action with its image."""
        return cls(action, image, copies, image.blob_bytes > LARGE_IMAGE_BYTES)

    @property
    def lane(self) -> Lane:
        """The lane that it is in."""
        return Lane(self.copies, self.action.target, self.is_large)


class Lane(NamedTuple):
    """Images of one run for one repository, the large or the small ones: where one may go, all may."""

    copies: Copies | None
    target: str
    is_large: bool


class ReadAhead:
    """Images ready to be copied. Pure; its size is its user's affair.

    Each image's score, the bytes that it shares with the others, is kept up to date as they come and go: taking one
    out is asked for far more often than there is anything shared.
    """

    def __init__(self) -> None:
        self._images: dict[int, Prepared] = {}
        self._lanes: defaultdict[Lane, dict[int, None]] = defaultdict(dict)
        """The numbers of the images of each lane, in the order in which they came."""
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
        self._lanes[prepared.lane][number] = None
        self.manifest_bytes += prepared.image.manifest_bytes

    def take(self, may: Callable[[Lane], bool] = lambda _: True) -> Prepared | None:
        """Gives out, of the images that may go, the one that shares most; among equals the first that came."""
        score = self._scores.__getitem__
        firsts = (max(numbers, key=score) for lane, numbers in self._lanes.items() if may(lane))
        best = max(firsts, key=lambda number: (score(number), -number), default=None)
        return None if best is None else self._remove(best)

    def discard(self, copies: Copies) -> list[Prepared]:
        """Takes out everything that a run wanted."""
        numbers = [number for number, prepared in self._images.items() if prepared.copies is copies]
        return [self._remove(number) for number in numbers]

    def _remove(self, number: int) -> Prepared:
        prepared = self._images.pop(number)
        del self._scores[number]
        lane = prepared.lane
        del self._lanes[lane][number]
        if not self._lanes[lane]:
            del self._lanes[lane]
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
    """What goes to one destination, whatever run wants it."""

    def __init__(self) -> None:
        self._runs: OrderedDict[Copies, None] = OrderedDict()
        self._window = ReadAhead()
        self._ahead: Counter[str] = Counter()
        """Images being read or ready, by target repository."""
        self._copying: Counter[str] = Counter()
        self._large = 0

    def join(self, copies: Copies) -> None:
        """A run begins."""
        self._runs[copies] = None

    def leave(self, copies: Copies) -> None:
        """A run is over, whatever it left."""
        self._runs.pop(copies, None)
        for prepared in self._window.discard(copies):
            self._less(self._ahead, prepared.action.target)
        self.start()

    def start(self) -> None:
        """Starts whatever there is room for."""
        while self._read_next():
            pass
        while (prepared := self._next_copy()) is not None:
            target = prepared.action.target
            self._less(self._ahead, target)
            self._copying[target] += 1
            self._large += prepared.is_large
            if prepared.copies is not None:
                prepared.copies.spawn_copy(prepared)

    def _read_next(self) -> bool:
        """Reads the next image: of the next run, of its next repository. False: nothing may be read."""
        ahead = self._ahead.total()
        if ahead and (ahead >= 2 * WINDOW_IMAGES or self._window.manifest_bytes >= WINDOW_BYTES):
            return False
        for copies in self._runs:
            action = copies.pop(self._ahead if ahead >= WINDOW_IMAGES else {})
            if action is not None:
                self._runs.move_to_end(copies)
                self._ahead[action.target] += 1
                copies.spawn_read(action)
                return True
        return False

    def _next_copy(self) -> Prepared | None:
        """The image to copy next; None where none may be now, as after nearly every copy that ends."""
        copying = self._copying.total()
        if not self._window or copying >= 2 * COPIES_AT_ONCE:
            return None
        takes_large = self._large < max(1, int(COPIES_AT_ONCE * LARGE_PART))

        def may_copy(lane: Lane) -> bool:
            if lane.target not in self._copying:
                is_room = True
            else:
                is_room = copying < COPIES_AT_ONCE and (takes_large or not lane.is_large)
            return is_room and not (lane.copies is not None and lane.copies.is_draining)

        return self._window.take(may_copy)

    def add_prepared(self, prepared: Prepared) -> None:
        """An image was read."""
        self._window.add(prepared)

    def not_prepared(self, action: Action) -> None:
        """An image will not be copied."""
        self._less(self._ahead, action.target)

    @staticmethod
    def _less(counter: Counter[str], target: str) -> None:
        counter[target] -= 1
        if not counter[target]:
            del counter[target]

    def copied(self, prepared: Prepared) -> None:
        """A copy has ended."""
        self._large -= prepared.is_large
        self._less(self._copying, prepared.action.target)


class Copies:
    """The copies of one run to one destination.

    Args:
        queue: the destination's.
        prepare: reads an action's image; None where it has dealt with the action itself.
        copy: copies a prepared image; deals with its failures itself.
        draining: once set, nothing new is begun.
    """

    def __init__(
        self,
        queue: CopyQueue,
        prepare: Callable[[Action], Awaitable[Image | None]],
        copy: Callable[[Prepared], Awaitable[None]],
        draining: asyncio.Event,
    ) -> None:
        self._queue = queue
        self._prepare = prepare
        self._copy = copy
        self._draining = draining
        self._waiting: OrderedDict[str, deque[Action]] = OrderedDict()
        self._tasks: asyncio.TaskGroup | None = None
        self._in_progress = 0
        self._prepared = 0
        self._closed = False
        self._is_broken = False
        self._changed = asyncio.Event()

    @property
    def is_draining(self) -> bool:
        """Whether nothing new is begun."""
        return self._is_broken or self._tasks is None or self._draining.is_set()

    def add(self, action: Action) -> None:
        """Takes an action."""
        self._waiting.setdefault(action.target, deque()).append(action)
        self._changed.set()

    def close(self) -> None:
        """No more will come."""
        self._closed = True
        self._changed.set()

    @property
    def has_left(self) -> bool:
        """Whether there is anything that came and was not begun, or more may come."""
        return bool(self._waiting or self._prepared or not self._closed)

    def pop(self, but: Container[str]) -> Action | None:
        """The next action, repositories taking turns, except `but`; None if none is left."""
        if self.is_draining:
            return None
        target = next((target for target in self._waiting if target not in but), None)
        if target is None:
            return None
        actions = self._waiting[target]
        action = actions.popleft()
        if actions:
            self._waiting.move_to_end(target)
        else:
            del self._waiting[target]
        return action

    def spawn_read(self, action: Action) -> None:
        """Reads an image, in this run's own tasks."""
        self._spawn(self._read(action))

    def spawn_copy(self, prepared: Prepared) -> None:
        """Copies an image, in this run's own tasks."""
        self._prepared -= 1
        self._spawn(self._work(prepared))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        if self._tasks is None:
            raise AssertionError("copies were started outside of run()")
        self._in_progress += 1
        self._tasks.create_task(work)

    async def run(self) -> None:
        """Works until all that came is done, or what is in progress when draining begins."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._queue.join(self)
                watcher = tasks.create_task(self._watch_draining())
                try:
                    await self._until_done()
                except BaseException:
                    self._is_broken = True  # nothing is spawned in a group that is about to end
                    raise
                watcher.cancel()
        finally:
            self._tasks = None
            self._queue.leave(self)

    async def _until_done(self) -> None:
        while True:
            self._changed.clear()
            self._queue.start()
            if self._is_done():
                break
            await self._changed.wait()

    def _is_done(self) -> bool:
        if self._in_progress:
            return False
        return self._draining.is_set() or not self.has_left

    async def _read(self, action: Action) -> None:
        image = None
        try:
            image = await self._prepare(action)
        except BaseException:
            self._is_broken = True
            raise
        finally:
            if image is None:
                self._queue.not_prepared(action)
            else:
                self._prepared += 1
                self._queue.add_prepared(Prepared.of(action, image, self))
            self._in_progress -= 1
            self._changed.set()

    async def _work(self, prepared: Prepared) -> None:
        try:
            await self._copy(prepared)
        except BaseException:
            self._is_broken = True
            raise
        finally:
            self._queue.copied(prepared)
            self._in_progress -= 1
            self._changed.set()

    async def _watch_draining(self) -> None:
        await self._draining.wait()
        self._changed.set()
