"""A large blob read in several parts at once, for links that give each connection only a share of what they can."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from time import monotonic
from typing import Final

import msgspec

from replicator.engine.content.parts import Parts
from replicator.engine.content.spool import SpoolFull
from replicator.errors import Advice, Corrupt, Rejected, SiteError
from replicator.flow.splice import Splice, Stream, pass_on
from replicator.ports import Chunk, ReadsRanges

_MIB: Final = 1 << 20


class PartSizes(msgspec.Struct, frozen=True):
    """How a blob is divided.

    `least`: bytes of a blob that is worth it. `first`: read alone, to learn what one connection gives. `stage`: read alone
    before it is looked at again whether more connections help. `part`: of one Range request beside others. `most`: requests
    at once to one source. `width`: of a blob, where the config does not say.
    """

    least: int = 256_000_000
    first: int = 32 * _MIB
    stage: int = 1024 * _MIB
    part: int = 32 * _MIB
    most: int = 8
    width: int = 6


PARTS: Final = PartSizes()
FAST_BYTES_PER_SECOND: Final = 60e6
"""A connection that gives this much is not helped: the parts would go over the disk for nothing."""
LIMITED_PART: Final = 0.5
"""Nor is one helped that gives this much of its part of the site's `bytes_per_second`."""
WAITING_PART: Final = 0.5
"""Of the time that has to be spent waiting for the source; else it is the destination that is slow."""


class Pace(msgspec.Struct, frozen=True):
    """What one connection gave: bytes, seconds, and how many of these were spent waiting for the source."""

    count: int
    seconds: float
    waited: float


def width(configured: int | None, pace: Pace, free: int, sizes: PartSizes, most: float | None) -> int:
    """How many parts to read at once from now on; 1: go on with one connection.

    Args:
        configured: what the site's `parallel_reads` says.
        pace: of one connection.
        free: how many more connections the source may get, this blob's first included.
        sizes: the bounds.
        most: bytes a second that this connection may give at most; None: no limit.
    """
    if configured is not None:
        return configured
    fast = FAST_BYTES_PER_SECOND if most is None else min(FAST_BYTES_PER_SECOND, most * LIMITED_PART)
    if pace.seconds <= 0 or pace.count / pace.seconds >= fast:
        return 1
    if pace.waited < pace.seconds * WAITING_PART:
        return 1
    return max(1, min(free, sizes.width))


class Crowd:
    """How many connections read large blobs from one site now: parts are for the last blobs of a run."""

    def __init__(self) -> None:
        self.reading = 0

    def free(self, most: int) -> int:
        """How many a blob may have that has one."""
        return most - self.reading + 1

    def share(self, bytes_per_second: float | None) -> float | None:
        """The part of the site's limit that each connection has that reads now."""
        return None if bytes_per_second is None else bytes_per_second / self.reading


class PartedBlob:
    """A `BlobSource` that gives out the same bytes, in order.

    It begins with one Range request. Where that is slow and the destination waits, the rest is read in parts beside each
    other into a file, from which they are given out in order. A site that ignores ranges answers with the whole blob,
    which is taken: no byte is read twice. Nothing is verified here.

    Args:
        site: where it is.
        source: the blob.
        scratch: gives the descriptor of an empty file with room for a given number of bytes; raises `SpoolFull`.
        crowd: who else reads from the source.
        sizes: how it is divided.
    """

    def __init__(
        self,
        site: str,
        source: ReadsRanges,
        scratch: Callable[[int], AbstractContextManager[int]],
        crowd: Crowd,
        sizes: PartSizes,
    ) -> None:
        self.descriptor = source.descriptor
        self.failure: SiteError | None = None
        self._site = site
        self._source = source
        self._scratch = scratch
        self._crowd = crowd
        self._sizes = sizes
        self._whole = False
        self._width: int | None = None

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncGenerator[AsyncIterator[Chunk], None]:
        """See `ports.BlobSource`."""
        self.failure = None
        reading = _Reading(self, offset)
        async with aclosing(reading.chunks()) as chunks:
            yield Stream(chunks, reading.splice)

    async def read(self, reading: _Reading, size: int) -> AsyncGenerator[Chunk, None]:
        """All bytes from the reading's position on."""
        while reading.position < size and not self._whole:
            if self._width is None or self._width < 2:
                stage = self._sizes.first if self._width is None else self._sizes.stage
                some = self._alone(reading, min(size, reading.position + stage))
            else:
                some = self._beside(reading, size, self._width)
            async with aclosing(some) as chunks:
                async for chunk in chunks:
                    yield chunk
                    del chunk  # its memory may be used again
        if reading.position < size:
            async with self._source.open(reading.position) as rest:
                async for chunk in reading.counted(rest):
                    yield chunk
                    del chunk

    async def _alone(self, reading: _Reading, stop: int) -> AsyncGenerator[Chunk, None]:
        """One part, by the only connection; then it is decided how to go on."""
        start, began = reading.position, monotonic()
        reading.waited = 0.0
        self._crowd.reading += 1
        try:
            async with self._source.open_range(start, stop) as (chunks, end):
                self._whole = end != stop
                async for chunk in reading.counted(chunks):
                    yield chunk
                    del chunk
            pace = Pace(reading.position - start, monotonic() - began, reading.waited)
            free = self._crowd.free(self._sizes.most)
            most = self._crowd.share(self._source.bytes_per_second)
            self._width = width(self._source.parallel_reads, pace, free, self._sizes, most)
        except (Corrupt, Rejected) as error:
            if reading.position > start or error.advice is Advice.STOP_SITE:
                raise
            self._whole = True  # its ranges are of no use: it is asked for all
        finally:
            self._crowd.reading -= 1

    async def _beside(self, reading: _Reading, size: int, at_once: int) -> AsyncGenerator[Chunk, None]:
        """Reads the rest in parts, over several connections.

        Falls back to one connection if the disk has no room for the parts, or if a part fails.
        """
        part = self._sizes.part
        slots = min(2 * at_once, -(-(size - reading.position) // part))
        self._crowd.reading += at_once
        try:
            with self._scratch(slots * part) as descriptor:
                parts = Parts(self._site, self._source, descriptor, slots=slots, part=part)
                async with parts.reading(reading.position, size, at_once):
                    while reading.position < size:
                        reading.parts = parts
                        chunk = await parts.next(reading.position)
                        reading.position += len(chunk)
                        yield chunk
                        del chunk
        except SpoolFull:
            self._whole = True
        except SiteError:
            self._whole = True  # whoever goes on from here does so by one connection
            raise
        finally:
            reading.parts = None
            self._crowd.reading -= at_once


class _Reading:
    """One opening. `position`: of the next byte to be given out; `waited`: seconds, for the source."""

    def __init__(self, blob: PartedBlob, position: int) -> None:
        self.position = position
        self.waited = 0.0
        self.parts: Parts | None = None
        self._blob = blob
        self._stream: AsyncIterator[Chunk] | None = None

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """The bytes; what fails is kept as the blob's failure."""
        try:
            async with aclosing(self._blob.read(self, self._blob.descriptor.size or 0)) as chunks:
                async for chunk in chunks:
                    yield chunk
                    del chunk  # its memory may be used again
        except SiteError as error:
            self._blob.failure = error
            raise

    async def counted(self, chunks: AsyncIterator[Chunk]) -> AsyncGenerator[Chunk, None]:
        """The chunks of the source, which can be spliced meanwhile."""
        self._stream = chunks
        try:
            while True:
                began = monotonic()
                chunk = await anext(chunks, None)
                self.waited += monotonic() - began
                if chunk is None:
                    return
                self.position += len(chunk)
                yield chunk
                del chunk
        finally:
            self._stream = None

    async def splice(self, splice: Splice) -> None:
        """See `flow.splice.Spliceable`."""
        splice.count_with(self._count)
        if self.parts is not None:
            await self.parts.splice(self.position, splice)
        else:
            await pass_on(self._stream, splice)
            self.waited += splice.waited

    def _count(self, count: int) -> None:
        self.position += count
