"""Bytes of a stream into a file of the spool."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

from replicator.flow.splice import LEAST_BYTES, Splice, pass_on
from replicator.flow.thread import run_in_thread
from replicator.movers.file import FileOutlet
from replicator.ports import Chunk

WRITE_BYTES: Final = 1 << 20
"""Small chunks are collected up to here: each trip to a thread costs."""


async def fill(
    descriptor: int, at: int, chunks: AsyncIterator[Chunk], grown: Callable[[int], object]
) -> None:
    """Writes a stream to a file, from `at` on.

    Args:
        descriptor: of the file; its own offset is not used.
        at: where the first byte goes.
        chunks: what is written; spliced where it can be.
        grown: told how many bytes are in the file, each time that there are more.

    Raises:
        OSError: the file failed.
    """
    filling = _Filling(descriptor, at, grown)
    try:
        async for chunk in chunks:
            await filling.take(chunk)
            del chunk  # its memory may be used again
            await filling.splice(chunks)
    except Exception:
        await filling.flush()  # what came need not be read again
        raise
    await filling.flush()


class _Filling:
    """How far one file has come."""

    def __init__(self, descriptor: int, at: int, grown: Callable[[int], object]) -> None:
        self._descriptor = descriptor
        self._at = at
        self._written = 0
        self._grown = grown
        self._buffer = bytearray()

    async def take(self, chunk: Chunk) -> None:
        """Writes a chunk, now or with later ones."""
        if len(chunk) >= LEAST_BYTES and not self._buffer:
            await self._append(chunk)
            return
        self._buffer += chunk
        if len(self._buffer) >= WRITE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Writes what was collected."""
        buffer, self._buffer = self._buffer, bytearray()
        if buffer:
            await self._append(buffer)

    async def _append(self, data: Chunk | bytearray) -> None:
        # In a thread: a full page cache blocks a write for seconds, and the loop has other destinations to serve.
        outlet = FileOutlet(self._descriptor, self._at + self._written)
        await run_in_thread(partial(outlet.offer, memoryview(data), 0.0))
        self._took(outlet)

    async def splice(self, chunks: AsyncIterator[Chunk]) -> None:
        """Has a thread write the next bytes, if it can and nothing waits to be written."""
        if self._buffer:
            return
        outlet = FileOutlet(self._descriptor, self._at + self._written)
        splice = Splice(outlet)
        splice.count_with(lambda _: self._grown(self._written + outlet.written))
        await pass_on(chunks, splice)
        self._took(outlet)

    def _took(self, outlet: FileOutlet) -> None:
        if outlet.failure is not None:
            raise outlet.failure
        self._written += outlet.written
        if outlet.written:
            self._grown(self._written)
