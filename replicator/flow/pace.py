"""How much a second: a token bucket."""

from __future__ import annotations

import asyncio

from replicator.ports import Clock


class Pace:
    """Lets `rate` units through each second, first come first served.

    What was not used is saved up to one second's worth, so that is the largest burst. An amount above that waits
    for a full bucket, goes through whole and leaves a debt, which those behind it wait off: the mean holds.
    """

    def __init__(self, rate: float, *, clock: Clock) -> None:
        if not rate > 0:
            raise ValueError(f"a pace of {rate} a second would never let anything through")
        self.rate = rate
        self._burst = rate  # one second's worth
        self._clock = clock
        self._level = self._burst
        self._level_at = clock.monotonic()
        self._turn = asyncio.Lock()
        self._in_line = 0

    def change(self, rate: float) -> None:
        """Another rate from now on; nothing is saved up by that. Who waits already waits by the old one."""
        self._refill()
        self.rate = self._burst = rate
        self._level = min(self._level, rate)

    async def take(self, amount: float) -> None:
        """Returns when `amount` may go through. Cancelled, it has taken nothing."""
        if not self._in_line and self._wait(amount) <= 0:
            self._level -= amount
            return
        self._in_line += 1
        try:
            async with self._turn:  # a lock serves in the order of asking
                wait = self._wait(amount)
                if wait > 0:
                    await self._clock.sleep(wait)
                    self._refill()
                self._level -= amount
        finally:
            self._in_line -= 1

    def _wait(self, amount: float) -> float:
        """Seconds until the bucket holds the amount (all it can hold, for a larger one)."""
        self._refill()
        return (min(amount, self._burst) - self._level) / self.rate

    def _refill(self) -> None:
        now = self._clock.monotonic()
        self._level = min(self._burst, self._level + (now - self._level_at) * self.rate)
        self._level_at = now
