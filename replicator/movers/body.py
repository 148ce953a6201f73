"""The body of an answer, received in large pieces by whichever framing the answer has. RFC 9112, sections 6 and 7."""

from __future__ import annotations

import re
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

from replicator.movers.connection import Connection, Malformed

_MAX_LINE_BYTES: Final = 8 * 1024
_MAX_TRAILER_LINES: Final = 100
_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,16}")


class Truncated(Exception):
    """The other side closed the connection before the end of the body."""


class Framing(Protocol):
    """How the end of a body is known."""

    @property
    def is_over(self) -> bool:
        """Whether the last byte has come."""
        ...

    @property
    def is_nearly_over(self) -> bool:
        """Whether exactly one byte is known to be left."""
        ...

    def receive_into(self, connection: Connection, view: memoryview, until: float | None) -> int | None:
        """As `Connection.receive_into`; 0 at the end of the body.

        Raises:
            Truncated: the other side closed before it.
            Malformed: the framing is broken.
        """
        ...


class Length:
    """A body of `count` bytes."""

    def __init__(self, count: int) -> None:
        self._left = count

    @property
    def is_over(self) -> bool:
        """Whether the last byte has come."""
        return self._left == 0

    @property
    def is_nearly_over(self) -> bool:
        """See `Framing`."""
        return self._left == 1

    def receive_into(self, connection: Connection, view: memoryview, until: float | None) -> int | None:
        """See `Framing`."""
        if not self._left:
            return 0
        got = connection.receive_into(view[: self._left], until)
        if got is None:
            return None
        if not got:
            raise Truncated
        self._left -= got
        return got


class UntilClose:
    """A body that ends with the connection."""

    is_nearly_over = False

    def __init__(self) -> None:
        self.is_over = False

    def receive_into(self, connection: Connection, view: memoryview, until: float | None) -> int | None:
        """See `Framing`."""
        if self.is_over:
            return 0
        got = connection.receive_into(view, until)
        self.is_over = got == 0
        return got


class Chunked:
    """A body in chunks, each with its size before it."""

    is_nearly_over = False

    def __init__(self) -> None:
        self.is_over = False
        self._left = 0
        self._ends_line = False
        self._trailers: int | None = None

    def receive_into(self, connection: Connection, view: memoryview, until: float | None) -> int | None:
        """See `Framing`."""
        try:
            while not self._left and not self.is_over:
                line = connection.line(_MAX_LINE_BYTES, until)
                if line is None:
                    return None
                self._take(line)
            if self.is_over:
                return 0
            got = connection.receive_into(view[: self._left], until)
        except EOFError:
            raise Truncated from None
        if got == 0:
            raise Truncated
        if got is not None:
            self._left -= got
            self._ends_line = not self._left
        return got

    def _take(self, line: bytes) -> None:
        """Takes a line between chunks."""
        if self._trailers is not None:
            self._trailers += 1
            self.is_over = not line
            if self._trailers > _MAX_TRAILER_LINES:
                raise Malformed("too many trailers")
        elif self._ends_line:
            if line:
                raise Malformed("a chunk that is longer than its size")
            self._ends_line = False
        else:
            size = line.partition(b";")[0].rstrip(b" \t")
            if not _SIZE.fullmatch(size):
                raise Malformed("not the size of a chunk")
            self._left = int(size, 16)
            if not self._left:
                self._trailers = 0


class Body:
    """Receives a body in large pieces.

    Args:
        connection: what it comes over, its head read.
        framing: how it ends.
        buffer: gives the memory for a piece, which has at most as many bytes.
        fill_seconds: after the first bytes a piece is filled for at most this many seconds, then returned with what it has.
    """

    def __init__(
        self, connection: Connection, framing: Framing, buffer: Callable[[], memoryview], fill_seconds: float
    ) -> None:
        self._fill_seconds = fill_seconds
        self._connection = connection
        self._framing = framing
        self._buffer = buffer
        self._failure: Exception | None = None

    @property
    def is_over(self) -> bool:
        """Whether the last byte has come."""
        return self._framing.is_over

    def last_byte(self) -> bytes:
        """The last byte if only that is left and it has arrived, else nothing. Never blocks."""
        last = bytearray(1)
        if self._framing.is_nearly_over and self._failure is None and self.fill(memoryview(last), 0.0):
            return bytes(last)
        return b""

    def next(self) -> memoryview:
        """The next bytes, none at the end. Bytes that came before a failure are returned, the failure is raised next.

        Raises:
            Truncated, Malformed: see `Framing`.
            OSError: the connection broke, or was aborted.
        """
        view = self._buffer()
        count = self.fill(view, None)
        if not count and self._failure is not None:
            raise self._failure
        return view[:count]

    def fill(self, view: memoryview, patience: float | None) -> int:
        """Receives into `view`: the number of bytes, 0 at the end, after a failure, which `next` raises, or for silence.

        Args:
            view: where to, not empty.
            patience: how many seconds the first byte is waited for; None: until it comes.
        """
        count = 0
        until = None if patience is None else monotonic() + patience
        try:
            while self._failure is None and count < len(view) and not self.is_over:
                got = self._framing.receive_into(self._connection, view[count:], until)
                if not got:
                    break
                if not count:
                    until = monotonic() + self._fill_seconds
                count += got
        except (OSError, Truncated, Malformed) as error:
            self._failure = error
        return count
