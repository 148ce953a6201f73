"""A blob on its way to a destination, counted as it is handed over."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Final

from replicator.errors import SiteError
from replicator.flow.splice import Splice, Stream, pass_on
from replicator.model.descriptor import Descriptor
from replicator.model.mediatypes import CONFIGS
from replicator.ports import BlobSource, Chunk, ReadsWhole, VerifiesItself

SMALL_BLOB_BYTES: Final = 64 * 1024
"""Up to here sending costs no more than asking a repository that is new, or the state for another one."""


class Delivery:
    """A `BlobSource` that counts what is handed over: bytes, and the position after them. `passed`: what came by of a small config, for the index."""

    def __init__(self, source: BlobSource, on_written: Callable[[int, int], None]) -> None:
        self._source = source
        self._on_written = on_written
        self._position = 0
        descriptor = source.descriptor
        is_config = descriptor.media_type in CONFIGS and (descriptor.size or 0) <= SMALL_BLOB_BYTES
        self.passed: bytearray | None = bytearray() if is_config and descriptor.size else None

    @property
    def descriptor(self) -> Descriptor:
        """See `ports.BlobSource`."""
        return self._source.descriptor

    @property
    def failure(self) -> SiteError | None:
        """See `ports.BlobSource`."""
        return self._source.failure

    @property
    def is_verified(self) -> bool:
        """See `ports.VerifiesItself`."""
        return isinstance(self._source, VerifiesItself) and self._source.is_verified

    async def whole(self) -> bytes:
        """See `ports.ReadsWhole`."""
        source = self._source
        if not isinstance(source, ReadsWhole):
            async with self.open() as chunks:
                return b"".join([chunk async for chunk in chunks])
        data = await source.whole()
        if self.passed is not None:
            self.passed[:] = data
        self._on_written(len(data), len(data))
        return data

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncGenerator[AsyncIterator[Chunk], None]:
        """See `ports.BlobSource`."""
        self._position = offset
        if self.passed is not None:
            del self.passed[offset:]
        async with self._source.open(offset) as chunks, aclosing(self._counted(chunks)) as counted:
            yield Stream(counted, partial(self._splice, chunks))

    async def _counted(self, chunks: AsyncIterator[Chunk]) -> AsyncGenerator[Chunk, None]:
        async for chunk in chunks:
            if self.passed is not None:
                self.passed += chunk
            count = len(chunk)
            yield chunk
            del chunk  # its memory may be used again
            self._count(count)

    async def _splice(self, chunks: AsyncIterator[Chunk], splice: Splice) -> None:
        if self.passed is None:
            splice.count_with(self._count)
            await pass_on(chunks, splice)

    def _count(self, count: int) -> None:
        self._position += count
        self._on_written(count, self._position)
