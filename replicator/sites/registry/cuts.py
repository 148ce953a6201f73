"""One reading of a blob, cut into the chunks that a registry takes."""

from __future__ import annotations

from collections.abc import AsyncIterator

from replicator.ports import Chunk


class Cuts:
    """Hands out the bytes of `source` piece by piece, none twice.

    `position` is where in the blob the next piece begins; `start` is where the source does. What is left of the source's
    last chunk, 1 MiB as a rule, is kept for the next piece.
    """

    def __init__(self, source: AsyncIterator[Chunk], start: int) -> None:
        self.position = start
        self._source = source
        self._left: Chunk = b""

    async def next(self, count: int | None) -> AsyncIterator[Chunk]:
        """The next `count` bytes, fewer where the source ends; None: all that are left."""
        left = count
        while left is None or left > 0:
            try:
                chunk = self._left or await anext(self._source)
            except StopAsyncIteration:
                return
            given, self._left = (chunk, b"") if left is None else (chunk[:left], chunk[left:])
            if left is not None:
                left -= len(given)
            self.position += len(given)
            yield given
