"""Files as the ends of what a thread moves."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol, runtime_checkable

from replicator.movers.splice import Bounds, Moved, Outlet, Tally

RESERVED_BYTES: Final = 16 << 20
"""Smaller files are written before the file system looks for a place."""
_KEEP_SIZE: Final = 1
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SEND_BYTES: Final = 1 << 20
"""Sent by the kernel at once; then counters move."""


def reserve(descriptor: int, count: int) -> None:
    """Has the file system set `count` bytes aside, so that a large file is in few pieces and a full disk is told at once.

    The file's length stays. Where the file system cannot do that, or there are fewer than `RESERVED_BYTES`, nothing is done:
    `os.posix_fallocate` would write a byte to each block there.

    Raises:
        OSError: there is not so much room.
    """
    if count < RESERVED_BYTES:
        return
    import ctypes  # noqa: PLC0415 - takes some milliseconds, and only large files need it

    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if fallocate(descriptor, _KEEP_SIZE, 0, count) < 0 and (number := ctypes.get_errno()) in _NO_ROOM:
        raise OSError(number, os.strerror(number))


class FileOutlet:
    """Writes to an open file from `at` on; the file's own offset is not used.

    `written` counts the bytes. A failure is kept in `failure`; whoever writes next raises it.
    """

    def __init__(self, descriptor: int, at: int) -> None:
        self.written = 0
        self.failure: OSError | None = None
        self._descriptor = descriptor
        self._at = at

    def offer(self, data: memoryview, seconds: float) -> memoryview:  # noqa: ARG002 - a file takes it or fails
        """What was not written."""
        try:
            while data:
                count = os.pwrite(self._descriptor, data, self._at + self.written)
                self.written += count
                data = data[count:]
        except OSError as error:
            self.failure = error
        return data

    def abort(self) -> None:
        """Nothing to do: a write ends by itself, and the descriptor may be closed only then."""


@runtime_checkable
class TakesFiles(Protocol):
    """An outlet that the kernel can copy a file into."""

    def offer_file(self, descriptor: int, offset: int, count: int, seconds: float) -> int | None:
        """How many bytes of the file it took, fewer as in `offer`; None: it cannot take files, and took nothing."""
        ...


def move_file(
    descriptor: int,
    offset: int,
    outlet: Outlet,
    buffer: Callable[[], memoryview],
    bounds: Bounds,
    *,
    show: Callable[[memoryview], None] | None,
    moved: Callable[[int], None],
) -> Moved:
    """As `splice.move`, from a file that has the bytes already; by `sendfile` where nobody has to see them.

    A file that fails, or is shorter, ends it: whoever reads next meets that.
    """
    left, seconds, patience = bounds
    end = monotonic() + seconds
    while show is None and left and isinstance(outlet, TakesFiles):
        want = min(left, _SEND_BYTES)
        taken = outlet.offer_file(descriptor, offset, want, patience)
        if taken is None:
            break
        moved(taken)
        offset, left = offset + taken, left - taken
        if taken < want or monotonic() >= end:
            return Moved(memoryview(b""), 0.0)
    view = buffer() if left else memoryview(b"")
    rest, tally = view[:0], Tally(moved)
    while left and not rest:
        try:
            count = os.preadv(descriptor, [view[:left]], offset)
        except OSError:
            break
        if not count:
            break
        piece = view[:count]
        if show is not None:
            show(piece)
        rest = outlet.offer(piece, patience)
        tally.add(count)
        offset, left = offset + count, left - count
        if monotonic() >= end:
            break
    tally.flush()
    return Moved(rest, 0.0)
