"""Files as the ends of what a thread moves."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol, runtime_checkable

from replicator.movers.splice import Bounds, Moved, Outlet

_SEND_BYTES: Final = 1 << 20
"""Sent by the kernel at once; then counters move."""


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
    rest = view[:0]
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
        moved(count)
        offset, left = offset + count, left - count
        if monotonic() >= end:
            break
    return Moved(rest, 0.0)
