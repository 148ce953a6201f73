"""One thread from a socket to a socket or a file: receive, hash, send."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import NamedTuple, Protocol

from replicator.movers.body import Body


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
        moved: told the length of each piece that was received, once it was written or is in `rest`.
    """
    most, seconds, patience = bounds
    waited, end, rest = 0.0, monotonic() + seconds, view[:0]
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
        moved(count)
        if now >= end:
            break
    return Moved(rest, waited)
