"""The time of the machine."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """`ports.Clock` on the machine's own clocks and the running event loop."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment, never going back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Returns after `seconds`; at once (though not without giving way) where that is zero or less."""
        await asyncio.sleep(seconds)
