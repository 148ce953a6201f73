"""One thread from a socket to a socket or a file: receive, hash, send."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final, NamedTuple, Protocol

from replicator.movers.body import Body

TOLD_BYTES: Final = 1 << 20


class Outlet(Protocol):
    """Where the bytes go."""

    def offer(self, data: memoryview, seconds: float) -> memoryview:
        """What was not taken, because nothing was taken for `seconds` or anything went wrong."""
        ...


class Bounds(NamedTuple):
    """When a thread comes back.

    After `most` bytes; after `seconds`, once what it has received is written; or when a side was silent for `patience`
    seconds.
    """

    most: int
    seconds: float
    patience: float


class Moved(NamedTuple):
    """What came of it.

    `rest` was received and hashed but not taken by the outlet. `waited`: seconds spent waiting for the body's bytes.
    """

    rest: memoryview
    waited: float


class Tally:
    """Tells of bytes about every MiB: each time wakes whoever is told. `flush` tells of the rest."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._count = 0

    def add(self, count: int) -> None:
        """Counts bytes, at most `TOLD_BYTES`."""
        if self._count + count > TOLD_BYTES:
            self.flush()
        self._count += count

    def flush(self) -> None:
        """Tells of what was not told yet."""
        count, self._count = self._count, 0
        if count:
            self._tell(count)


def move(
    body: Body,
    outlet: Outlet,
    view: memoryview,
    bounds: Bounds,
    *,
    show: Callable[[memoryview], None],
    moved: Callable[[int], None],
) -> Moved:
    """Moves bytes of a body until anything out of the ordinary happens, which whoever reads or writes next meets.

    Args:
        body: where from.
        outlet: where to.
        view: the memory to do it in.
        bounds: when it ends at the latest.
        show: sees each piece before it is written.
        moved: told how many bytes were received and written or are in `rest`, `TOLD_BYTES` at most at once.
    """
    most, seconds, patience = bounds
    waited, end, rest, tally = 0.0, monotonic() + seconds, view[:0], Tally(moved)
    while most and not rest:
        began = monotonic()
        count = body.fill(view[:most], patience)
        now = monotonic()
        waited += now - began
        if not count:
            break
        most -= count
        piece = view[:count]
        show(piece)
        rest = outlet.offer(piece, patience)
        tally.add(count)
        if now >= end:
            break
    tally.flush()
    return Moved(rest, waited)
