"""Time that tests own."""

from __future__ import annotations

import asyncio
import heapq
import itertools

from replicator.flow.clock import SystemClock

_PATIENCE_TURNS = 20
"""How often the loop turns before time moves on: enough for everybody who can run without time to have run."""


class FakeClock:
    """`ports.Clock` that never waits.

    Time stands still while anybody can run. When the loop has turned a few times with sleepers left, it jumps to
    the earliest of them, so sleepers wake in the order of their times and every run is the same.
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._epoch = now
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._turning = False
        self.slept: list[float] = []
        """Every sleep asked for, in order."""

    def now(self) -> float:
        return self._epoch + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Moves time on; who slept for that long wakes in the next turns of the loop."""
        self._elapsed += seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._numbers), sleeper))
        self._start_turning()
        await sleeper

    def _start_turning(self) -> None:
        if not self._turning:
            self._turning = True
            self._turn(_PATIENCE_TURNS)

    def _turn(self, left: int) -> None:
        if left:
            asyncio.get_running_loop().call_soon(self._turn, left - 1)
            return
        self._turning = False
        while self._sleepers:
            wakes_at, _, sleeper = heapq.heappop(self._sleepers)
            if not sleeper.done():
                self._elapsed = max(self._elapsed, wakes_at)
                sleeper.set_result(None)
                break
        if self._sleepers:
            self._start_turning()


class StillClock(FakeClock):
    """Time passes only where the test says so: nobody who sleeps wakes."""

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.Event().wait()


class SteppedClock(SystemClock):
    """The system's time, and the hours that a test adds to it: who sleeps for longer than a second wakes by these."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return super().now() + self._ahead

    def monotonic(self) -> float:
        return super().monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        """Moves time on; who slept for that long wakes."""
        self._ahead += seconds
        now = self.monotonic()
        for wakes_at, sleeper in self._sleepers:
            if wakes_at <= now and not sleeper.done():
                sleeper.set_result(None)
        self._sleepers = [one for one in self._sleepers if one[0] > now]

    async def sleep(self, seconds: float) -> None:
        if seconds <= 1:
            await super().sleep(seconds)
            return
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.monotonic() + seconds, sleeper))
        await sleeper
