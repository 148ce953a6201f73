"""How many at once: a limit that learns from the other side."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Final

from replicator.ports import Clock

EPOCH_SECONDS: Final = 0.1
"""Congestion told again within this time is the same congestion: one burst of 429 halves once."""

GAIN: Final = 1.1
"""At its start a gate doubles as long as each window has at least this many times the successes a second of the last one."""

STEP: Final = 8
"""How much a gate widens for each window of successes: on a link with 50 ms round trip, steps of one would take
longer than most runs."""

LARGE_PART: Final = 0.75
"""The part of a gate that may be held for large transfers: the rest is for small ones, which need not wait for hours."""

_Waiter = asyncio.Future[None]


class Gate:
    """At most `width` holders at a time, first come first served, but that `LARGE_PART` of it at most is for large ones.

    A small one passes a large one by only while no more large ones may enter. A gate of width 1 is open to both.

    The width starts at `start` and doubles with each window (of `width`) of successes, until the first congestion or a
    window that was no faster than the one before (slow start, as of TCP: on a far link a window is a round trip). From
    then on it grows by `STEP` for each window up to `limit`, and is halved by congestion, never below 1 (additive
    increase, multiplicative decrease). Narrowing takes no slot from a holder: the count comes down as slots are given
    back. A slot that is given back goes to the first waiter, never to a newcomer; one that goes to a waiter which is
    being cancelled goes on to the next.
    """

    def __init__(
        self,
        limit: int,
        *,
        start: int = 16,
        clock: Clock,
        on_change: Callable[[int], None] | None = None,
        on_wait: Callable[[int], None] | None = None,
    ) -> None:
        if limit < 1:
            raise ValueError(f"a gate of width {limit} would never open")
        self._limit = limit
        self._width = max(1, min(start, limit))
        self._clock = clock
        self._on_change = on_change
        self.on_wait = on_wait
        """Called when somebody has to wait, with how many will hold a slot once the gate has widened."""
        self._in_use = 0
        self._successes = 0
        self._is_starting = True
        self._rate = 0.0
        self._window_began = clock.monotonic()
        self._congested_at = float("-inf")
        self._large_in_use = 0
        self._numbers = itertools.count()
        self._small: OrderedDict[_Waiter, int] = OrderedDict()
        self._large: OrderedDict[_Waiter, int] = OrderedDict()
        """Who waits, each with a number that tells who came first."""
        # Every change ends with `_admit`, so somebody waits only while no slot is free for him.

    def __repr__(self) -> str:
        return f"<Gate: {self._in_use} of {self._width} in use, {self.waiting} waiting>"

    @property
    def width(self) -> int:
        """How many may hold a slot now."""
        return self._width

    @property
    def in_use(self) -> int:
        """How many hold a slot; above `width` for a while after a congestion."""
        return self._in_use

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return sum(not waiter.done() for line in (self._small, self._large) for waiter in line)

    def try_acquire(self, *, large: bool = False) -> bool:
        """Takes a slot if one is free; then nobody waits for it."""
        if not self._is_open(large=large):
            return False
        self._take(large=large)
        return True

    async def acquire(self, *, large: bool = False) -> None:
        """Takes a slot, waiting for it in line. Cancelled, it holds none."""
        if self.try_acquire(large=large):
            return
        waiter: _Waiter = asyncio.get_running_loop().create_future()
        line = self._large if large else self._small
        line[waiter] = next(self._numbers)
        if self.on_wait is not None and self._width < self._limit:
            wider = self._width * 2 if self._is_starting else self._width + STEP
            self.on_wait(min(self._limit, wider, self._in_use + len(self._small) + len(self._large)))
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                line.pop(waiter, None)
            else:
                self.release(large=large)  # handed over in the very moment of the cancellation
            raise

    def release(self, *, large: bool = False) -> None:
        """Gives a slot back, as it was taken."""
        if self._in_use < 1 or (large and self._large_in_use < 1):
            raise RuntimeError("a slot was given back that nobody held")
        self._in_use -= 1
        self._large_in_use -= large
        self._wake(self._admit())

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def succeeded(self) -> None:
        """Tells that a request went well."""
        if self._width >= self._limit:
            return
        self._successes += 1
        if self._successes >= self._width:
            self._set_width(min(self._limit, self._width * 2 if self._gains() else self._width + STEP))

    def _gains(self) -> bool:
        """Whether the window that ends now is one of the start, and was faster than the one before."""
        if not self._is_starting:
            return False
        now = self._clock.monotonic()
        seconds, self._window_began = now - self._window_began, now
        rate = self._successes / seconds if seconds > 0 else float("inf")
        self._is_starting = rate >= GAIN * self._rate
        self._rate = rate
        return self._is_starting

    def congested(self) -> None:
        """Tells that the other side had too much (429, 503). Counts once per `EPOCH_SECONDS`."""
        now = self._clock.monotonic()
        if now - self._congested_at < EPOCH_SECONDS:
            return
        self._congested_at = now
        self._is_starting = False
        self._set_width(max(1, self._width // 2))

    def limit_to(self, limit: int) -> None:
        """Another limit from now on, at least 1. A gate that was as wide as it might be stays so."""
        was_full, self._limit = self._width >= self._limit, max(1, limit)
        self._set_width(self._limit if was_full else min(self._width, self._limit))

    def _set_width(self, width: int) -> None:
        self._successes = 0
        if width == self._width:
            return
        self._width = width
        self._wake(self._admit())
        if self._on_change is not None:
            self._on_change(width)

    def _is_open(self, *, large: bool) -> bool:
        if self._in_use >= self._width:
            return False
        return not large or self._large_in_use < max(1, int(self._width * LARGE_PART))

    def _take(self, *, large: bool) -> None:
        self._in_use += 1
        self._large_in_use += large

    def _admit(self) -> list[_Waiter]:
        """Gives the free slots to the first in line, on the books only; wakes nobody."""
        admitted: list[_Waiter] = []
        while (found := self._next()) is not None:
            waiter, large = found
            self._take(large=large)
            admitted.append(waiter)
        return admitted

    def _next(self) -> tuple[_Waiter, bool] | None:
        """Takes out of the line who may enter now and came first, and whether for a large transfer."""
        first: tuple[int, bool] | None = None
        for line, large in ((self._small, False), (self._large, True)):
            while line and next(iter(line)).done():  # a cancelled one may still be queued until its task runs
                line.popitem(last=False)
            if line and self._is_open(large=large):
                number = next(iter(line.values()))
                first = min(first or (number, large), (number, large))
        if first is None:
            return None
        return (self._large if first[1] else self._small).popitem(last=False)[0], first[1]

    @staticmethod
    def _wake(admitted: list[_Waiter]) -> None:
        for waiter in admitted:
            waiter.set_result(None)
