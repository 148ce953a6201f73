"""Parts of a blob that are read beside each other into one file and given out in order."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from replicator.engine.content.filling import fill
from replicator.engine.content.spool import READ_BYTES, SpoolFull
from replicator.errors import Advice, SiteError, Unavailable
from replicator.flow.patience import STALLED_READINGS
from replicator.flow.splice import Splice, splice_file
from replicator.flow.thread import run_in_thread
from replicator.ports import Chunk, ReadsRanges

_log = logging.getLogger(__name__)


class _Part:
    """Bytes from `start` to `stop`, of which `have` lie in the file from `at` on."""

    def __init__(self, start: int, stop: int, at: int) -> None:
        self.start = start
        self.stop = stop
        self.at = at
        self.have = 0
        self.failure: SiteError | None = None


class Parts:
    """The file has `slots` places for a part, each used again once its part was given out: so much is read ahead.

    Args:
        site: where the blob is, for errors.
        source: the blob.
        descriptor: of the file.
        slots: how many parts it has room for.
        part: bytes of one.
    """

    def __init__(self, site: str, source: ReadsRanges, descriptor: int, *, slots: int, part: int) -> None:
        self._site = site
        self._source = source
        self._descriptor = descriptor
        self._slots = slots
        self._part = part
        self._parts: deque[_Part] = deque()
        self._free = asyncio.Semaphore(slots)
        self._changed = asyncio.Event()
        self._next = 0
        self._count = 0

    @asynccontextmanager
    async def reading(self, start: int, stop: int, at_once: int) -> AsyncGenerator[None, None]:
        """Reads from `start` to `stop`, `at_once` parts beside each other, until the context is left."""
        self._next = start
        tasks = [asyncio.create_task(self._read_parts(stop)) for _ in range(at_once)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def next(self, position: int) -> Chunk:
        """Bytes from `position` on, at least one and at most 1 MiB; positions are asked for in order.

        Raises:
            SiteError: of the site, where a part fails for good.
            SpoolFull: the file failed.
        """
        part = await self._ready(position)
        inside = position - part.start
        try:
            want = min(READ_BYTES, part.have - inside)
            chunk = await run_in_thread(partial(os.pread, self._descriptor, want, part.at + inside))
        except OSError as error:
            raise _broken(error) from error
        if not chunk:
            raise SpoolFull("a part of a blob was cut off")
        return chunk

    async def splice(self, position: int, splice: Splice) -> None:
        """Moves what has come of the part that has `position`."""
        part = self._parts[0]
        splice.narrow(part.start + part.have - position)
        if part.failure is None and part.start <= position and splice.is_worth_it:
            await splice_file(self._descriptor, part.at + position - part.start, splice)

    async def _ready(self, position: int) -> _Part:
        """The part of `position`, which has come."""
        while True:
            while self._parts and position >= self._parts[0].stop:
                self._parts.popleft()
                self._free.release()
            if self._parts:
                part = self._parts[0]
                if part.start + part.have > position:
                    return part
                if part.failure is not None:
                    raise part.failure
            self._changed.clear()
            await self._changed.wait()

    async def _read_parts(self, stop: int) -> None:
        """Reads one part after the other, whichever is next."""
        while True:
            await self._free.acquire()
            if self._next >= stop:
                return
            at = self._count % self._slots * self._part
            part = _Part(self._next, min(stop, self._next + self._part), at)
            self._next, self._count = part.stop, self._count + 1
            self._parts.append(part)
            try:
                await self._read(part)
            except SiteError as error:
                part.failure = error
            except OSError as error:
                part.failure = _broken(error)
            except Exception as error:  # noqa: BLE001 - whoever waits for the part must hear of it
                _log.exception("read a part of a blob: unexpected error")
                part.failure = SpoolFull(f"parts of a blob: unexpected {type(error).__name__}: {error}")
            finally:
                self._changed.set()
            if part.failure is not None:
                return

    async def _read(self, part: _Part) -> None:
        """Reads a part, going on where it broke."""
        stalled = 0
        while part.start + part.have < part.stop and part.failure is None:
            before = part.have
            try:
                await self._request(part)
            except SiteError as error:
                stalled = 0 if part.have > before else stalled + 1
                if error.advice is not Advice.RETRY or stalled >= STALLED_READINGS:
                    raise

    async def _request(self, part: _Part) -> None:
        before = part.have

        def grown(count: int) -> None:
            part.have = before + count
            self._changed.set()

        async with self._source.open_range(part.start + before, part.stop) as (chunks, end):
            if end != part.stop:
                part.failure = Unavailable(self._site, "read blob", "it ignores Range, which it took before")
                return
            await fill(self._descriptor, part.at + before, chunks, grown)


def _broken(error: OSError) -> SpoolFull:
    return SpoolFull(f"parts of a blob: {error.strerror or error}")
