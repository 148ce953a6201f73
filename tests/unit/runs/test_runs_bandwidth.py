from __future__ import annotations

import asyncio
from zoneinfo import ZoneInfo

from replicator.events import Events
from replicator.flow.limits import SiteLimits
from replicator.flow.settings import LimitSettings
from replicator.policy.bandwidth import MINUTES_A_DAY, Bandwidth, Window, parse_days, parse_time
from replicator.runs.bandwidth import follow
from tests.fakes.clock import FakeClock

UTC = ZoneInfo("UTC")
NOON = 1_700_049_600.0  # a Wednesday's


class Site:
    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.rates: list[tuple[float, float | None]] = []

    def set_bytes_per_second(self, rate: float | None) -> None:
        if not self.rates or self.rates[-1][1] != rate:
            self.rates.append((self._clock.now() - NOON, rate))


async def test_a_site_gets_each_limit_when_its_window_begins_and_ends() -> None:
    clock = FakeClock(NOON + 5)
    site = Site(clock)
    window = Window(parse_days("mon-fri"), parse_time("12:30"), parse_time("13:00"), 20)
    limits = {"hub": Bandwidth(100, (window,), UTC), "elsewhere": Bandwidth(1, (), UTC)}
    task = asyncio.create_task(follow(lambda: (limits, {"hub": site, "other": object()}), clock))
    for _ in range(200_000):
        if clock.monotonic() > 2 * 3600:
            break
        await asyncio.sleep(0)
    task.cancel()
    assert site.rates == [(5.0, 100), (1800.0, 20), (3600.0, 100)]


async def test_a_limit_can_be_set_changed_and_lifted_while_bytes_move() -> None:
    clock = FakeClock()
    limits = SiteLimits("hub", LimitSettings(), events=Events(), clock=clock)
    await limits.pace_bytes(10**9)
    assert clock.monotonic() == 0
    limits.set_bytes_per_second(100)
    for _ in range(4):
        await limits.pace_bytes(100)
    assert 3 <= clock.monotonic() < 3.1
    limits.set_bytes_per_second(100)  # the same: what is owed stays owed
    await limits.pace_bytes(100)
    assert clock.monotonic() >= 4
    limits.set_bytes_per_second(None)
    before = clock.monotonic()
    await limits.pace_bytes(10**9)
    assert clock.monotonic() == before


def test_midnight_may_end_a_day() -> None:
    assert parse_time("24:00") == MINUTES_A_DAY
