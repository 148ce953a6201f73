"""One reading of a blob, cut into the chunks that a registry takes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial

import msgspec

from replicator.flow.splice import Splice, Stream, pass_on
from replicator.ports import Chunk


class _Piece(msgspec.Struct):
    """Being handed out; `left` bytes are missing, None: all that come."""

    left: int | None


class Cuts:
    """Hands out the bytes of `source` piece by piece, none twice.

    `position` is where in the blob the next piece begins; `start` is where the source does. What is left of the source's
    last chunk, 1 MiB as a rule, is kept for the next piece.
    """

    def __init__(self, source: AsyncIterator[Chunk], start: int) -> None:
        self.position = start
        self._source = source
        self._left: Chunk = b""

    def next(self, count: int | None) -> Stream:
        """The next `count` bytes, fewer where the source ends; None: all that are left."""
        piece = _Piece(count)
        return Stream(self._chunks(piece), partial(self._splice, piece))

    async def _chunks(self, piece: _Piece) -> AsyncGenerator[Chunk, None]:
        while piece.left is None or piece.left > 0:
            try:
                chunk = self._left or await anext(self._source)
            except StopAsyncIteration:
                return
            given, self._left = (
                (chunk, b"") if piece.left is None else (chunk[: piece.left], chunk[piece.left :])
            )
            self._take(piece, len(given))
            yield given
            del chunk, given  # their memory may be used again

    async def _splice(self, piece: _Piece, splice: Splice) -> None:
        if self._left:
            return
        if piece.left is not None:
            splice.narrow(piece.left)
        splice.count_with(partial(self._take, piece))
        await pass_on(self._source, splice)

    def _take(self, piece: _Piece, count: int) -> None:
        self.position += count
        if piece.left is not None:
            piece.left -= count
