"""Blobs out of thin air."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from replicator.errors import SiteError
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, digest_of


class BytesSource:
    """A `replicator.ports.BlobSource` of given bytes, which may lie and may break.

    Args:
        data: what is read.
        digest: what it is said to be; the data's own where None.
        size: how large it is said to be; the data's own where None.
        chunk_bytes: how much one chunk has.
        breaks: raised when (the first) `breaks_at` bytes of the whole went by; once, so that a second reading goes well.
        breaks_at: see `breaks`.
    """

    def __init__(
        self,
        data: bytes,
        *,
        digest: Digest | None = None,
        size: int | None = None,
        chunk_bytes: int = 64 * 1024,
        breaks: SiteError | None = None,
        breaks_at: int = 0,
    ) -> None:
        self.descriptor = Descriptor(
            "application/octet-stream", digest or digest_of(data), len(data) if size is None else size
        )
        self.failure: SiteError | None = None
        self.opened: list[int] = []
        self._data = data
        self._chunk_bytes = chunk_bytes
        self._breaks = breaks
        self._breaks_at = breaks_at

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        self.failure = None
        self.opened.append(offset)
        yield self._chunks(offset)

    async def _chunks(self, offset: int) -> AsyncIterator[bytes]:
        for start in range(offset, len(self._data), self._chunk_bytes):
            if self._breaks is not None and start >= self._breaks_at:
                self.failure, self._breaks = self._breaks, None
                raise self.failure
            yield self._data[start : start + self._chunk_bytes]
