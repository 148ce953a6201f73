"""The pace: the mean holds, first come first served, and who gave up has used nothing."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.flow.pace import Pace
from tests.fakes.clock import FakeClock


@settings(max_examples=100, deadline=None)
@given(
    rate=st.floats(0.1, 1e8),
    shares=st.lists(st.floats(0.001, 5), min_size=1, max_size=30),
)
def test_each_goes_as_soon_as_the_rate_allows_and_in_order(rate: float, shares: list[float]) -> None:
    asyncio.run(_all_at_once(rate, [share * rate for share in shares]))


async def _all_at_once(rate: float, amounts: list[float]) -> None:
    clock = FakeClock()
    pace = Pace(rate, clock=clock)
    went: list[tuple[int, float]] = []

    async def take(number: int, amount: float) -> None:
        await pace.take(amount)
        went.append((number, clock.monotonic()))

    async with asyncio.TaskGroup() as group:
        for number, amount in enumerate(amounts):
            group.create_task(take(number, amount))
    assert [number for number, _ in went] == list(range(len(amounts)))
    before = 0.0
    for (_, at), amount in zip(went, amounts, strict=True):
        expected = max(0.0, (before + min(amount, rate) - rate) / rate)
        assert at == pytest.approx(expected, abs=1e-6)
        before += amount


async def test_burst_is_one_seconds_worth_however_long_it_was_quiet() -> None:
    clock = FakeClock()
    pace = Pace(10, clock=clock)
    clock.advance(3600)
    for _ in range(10):
        await pace.take(1)
    assert clock.slept == []
    await pace.take(1)
    assert clock.slept == [pytest.approx(0.1)]


async def test_large_amount_goes_whole_and_is_paid_for_by_those_behind() -> None:
    clock = FakeClock()
    pace = Pace(10, clock=clock)
    await pace.take(35)
    assert clock.slept == []
    await pace.take(1)
    assert clock.slept == [pytest.approx(2.6)]


async def test_newcomer_does_not_pass_those_who_wait() -> None:
    clock = FakeClock()
    pace = Pace(10, clock=clock)
    await pace.take(10)
    order: list[str] = []

    async def take(name: str, amount: float) -> None:
        await pace.take(amount)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(take("large", 9))
        await asyncio.sleep(0)
        clock.advance(0.5)  # enough for the small one, not for the large one
        group.create_task(take("small", 1))
    assert order == ["large", "small"]


@pytest.mark.parametrize("which", [0, 1])
async def test_cancelled_takes_nothing_and_holds_up_nobody(which: int) -> None:
    clock = FakeClock()
    pace = Pace(10, clock=clock)
    await pace.take(10)
    tasks = [asyncio.create_task(pace.take(8)), asyncio.create_task(pace.take(4))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks.pop(which).cancel()
    await tasks[0]
    assert clock.monotonic() == pytest.approx([0.4, 0.8][which])
    await pace.take(1)
    assert clock.monotonic() == pytest.approx([0.5, 0.9][which])


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_pace_that_lets_nothing_through_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="never let anything through"):
        Pace(rate, clock=FakeClock())
