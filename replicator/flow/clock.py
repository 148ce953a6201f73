"""The time of the machine."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """`ports.Clock` on the machine's own clocks and the running event loop."""

    # The functions themselves: a small image asks for the time 60 times.
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        """Returns after `seconds`; at once (though not without giving way) where that is zero or less."""
        await asyncio.sleep(seconds)
