"""The limits of one site."""

from __future__ import annotations

import asyncio
from typing import get_args

import pytest

from replicator.errors import Advice, Throttled
from replicator.events import Event, Events, InFlight, LimitChanged, TurnAwaited
from replicator.flow.limits import LARGE_BLOB_BYTES, MAX_HOLD_SECONDS, SiteLimits, Traffic
from replicator.flow.settings import LimitSettings
from tests.fakes.clock import FakeClock


class World:
    """One site's limits, with everything they told."""

    def __init__(self, settings: LimitSettings = LimitSettings()) -> None:  # noqa: B008 - frozen
        self.clock = FakeClock()
        self.told: list[Event] = []
        events = Events()
        events.subscribe(self.told.append)
        self.limits = SiteLimits("hub", settings, events=events, clock=self.clock)

    async def request(self, kind: Traffic = "requests") -> float:
        """Makes one and tells when it started."""
        async with self.limits.slot(kind):
            return self.clock.monotonic()


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_unlimited_request_never_gives_way() -> None:
    """Called for each of 100,000 HEADs: entering and leaving must not even turn the loop."""
    world = World()
    coroutine = world.request()
    with pytest.raises(StopIteration):
        coroutine.send(None)


async def test_every_gate_tells_its_width_from_the_start_and_what_is_in_flight() -> None:
    world = World(LimitSettings(concurrency=20))
    assert world.told == [LimitChanged("hub", kind, 16) for kind in ("requests", "reads", "writes")]
    world.told.clear()
    await world.request("reads")
    assert world.told == [InFlight("hub", "reads", +1), InFlight("hub", "reads", -1)]


@pytest.mark.parametrize(("concurrency", "streams"), [(8, 8), (64, 64), (128, 64), (500, 250)])
def test_fewer_blobs_than_small_requests_move_at_once(concurrency: int, streams: int) -> None:
    world = World(LimitSettings(concurrency=concurrency))
    for kind in get_args(Traffic):
        for _ in range(50 * concurrency):
            world.limits.succeeded(kind)
    widest = {told.kind: told.limit for told in world.told if isinstance(told, LimitChanged)}
    assert widest == {"requests": concurrency, "reads": streams, "writes": streams}


async def test_congestion_narrows_the_gate_of_its_kind_alone_and_success_widens_it() -> None:
    world = World()
    world.told.clear()
    world.limits.congested("writes")
    for _ in range(8):
        world.limits.succeeded("writes")
    assert world.told == [LimitChanged("hub", "writes", 8), LimitChanged("hub", "writes", 16)]


@pytest.mark.parametrize("kind", ["reads", "writes"])
async def test_large_blobs_leave_slots_to_small_ones(kind: Traffic) -> None:
    world = World(LimitSettings(concurrency=4))
    inside = [0, 0]

    async def transfer(size: int | None) -> None:
        large = size == LARGE_BLOB_BYTES + 1
        async with world.limits.slot_for(kind, "move blob", size=size):
            inside[large] += 1
            await asyncio.Event().wait()

    large = [asyncio.create_task(transfer(LARGE_BLOB_BYTES + 1)) for _ in range(9)]
    await _settle()
    assert inside == [0, 3]
    small = [asyncio.create_task(transfer(size)) for size in (LARGE_BLOB_BYTES, None)]
    await _settle()
    assert inside == [1, 3]
    large[0].cancel()  # its slot is for whoever came first
    await _settle()
    assert inside == [1, 4]
    for task in [*large, *small]:
        task.cancel()
    await _settle()


async def test_copies_both_ways_between_two_sites_cannot_wait_for_each_other() -> None:
    """With one gate for reads and writes each copy would hold the only slot that the other needs."""
    one, other = World(LimitSettings(concurrency=1)), World(LimitSettings(concurrency=1))
    both_writing = asyncio.Barrier(2)

    async def copy(source: World, destination: World) -> None:
        async with destination.limits.slot("writes"):
            await both_writing.wait()
            async with source.limits.slot("reads"):
                pass

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(copy(one, other))
        group.create_task(copy(other, one))


async def test_no_request_of_any_kind_starts_before_a_hold_ends() -> None:
    world = World()
    world.limits.congested("requests", retry_after=30)
    async with asyncio.TaskGroup() as group:
        started = [group.create_task(world.request(kind)) for kind in ("requests", "reads", "writes")]
    # One after the other: released together they would be refused together.
    first, second, third = (task.result() for task in started)
    assert first == pytest.approx(30)
    assert second - first > 0.1
    assert third - second > 0.1


async def test_hold_can_be_prolonged_while_it_is_waited_for_but_not_shortened() -> None:
    world = World()
    world.limits.congested("requests", retry_after=10)
    request = asyncio.create_task(world.request())
    await _settle()
    world.limits.congested("requests", retry_after=25)
    world.limits.congested("requests", retry_after=1)
    assert await request == pytest.approx(25)


async def test_longest_hold_is_waited_for() -> None:
    world = World()
    world.limits.congested("requests", retry_after=MAX_HOLD_SECONDS)
    assert await world.request() == pytest.approx(MAX_HOLD_SECONDS)


async def test_site_that_wants_to_be_left_alone_for_a_day_is_not_waited_for_but_asked_again() -> None:
    """Each request would wait as long as a hold may be, and be told the same: a run of a thousand would take days."""
    world = World()
    world.limits.congested("requests", retry_after=10)
    waiting = asyncio.create_task(world.request("reads"))
    await _settle()
    world.limits.congested("requests", retry_after=86_400)
    for request in (waiting, world.request(), world.request("writes")):
        with pytest.raises(Throttled, match=r"hub: .* 86400 s") as raised:
            await request
        assert raised.value.advice is Advice.STOP_SITE
    assert world.clock.monotonic() <= 10
    world.clock.advance(MAX_HOLD_SECONDS)
    before = len(world.clock.slept)
    await world.request()
    assert len(world.clock.slept) == before


async def test_refusal_to_wait_names_the_operation_that_met_it() -> None:
    world = World()
    world.limits.congested("requests", retry_after=86_400)
    with pytest.raises(Throttled, match=r"^hub: app: list tags: skipped"):
        await world.limits.enter("requests", "list tags", "app")
    with pytest.raises(Throttled, match=r"^hub: read object: skipped"):
        async with world.limits.slot_for("reads", "read object"):
            raise AssertionError("entered")


async def test_kept_slot_is_one_in_flight_and_each_request_in_it_takes_its_turn() -> None:
    world = World(LimitSettings(concurrency=1, requests_per_second=2))
    world.told.clear()
    async with world.limits.kept("writes"):
        for _ in range(6):
            async with world.limits.turn_for("upload blob", "app"):
                pass
        world.limits.congested("writes", retry_after=86_400)
        with pytest.raises(Throttled, match=r"^hub: app: upload blob: skipped"):
            async with world.limits.turn_for("upload blob", "app"):
                raise AssertionError("entered")
    assert sum(world.clock.slept) >= 1.0
    in_flight = [event for event in world.told if isinstance(event, InFlight)]
    assert in_flight == [InFlight("hub", "writes", +1), InFlight("hub", "writes", -1)]


async def test_slot_is_free_again_where_the_site_is_not_asked() -> None:
    world = World(LimitSettings(concurrency=1))
    world.limits.congested("requests", retry_after=86_400)
    for _ in range(3):
        with pytest.raises(Throttled):
            await world.request()
    world.clock.advance(MAX_HOLD_SECONDS)
    await world.request()


@pytest.mark.parametrize("retry_after", [0, -5, None])
async def test_retry_after_of_nothing_only_slows_down(retry_after: float | None) -> None:
    world = World()
    world.limits.congested("requests", retry_after=retry_after)
    assert await world.request() < 1


async def test_requests_of_all_kinds_share_one_pace() -> None:
    world = World(LimitSettings(requests_per_second=2))
    kinds: list[Traffic] = ["requests", "reads", "writes", "requests"]
    assert [await world.request(kind) for kind in kinds] == pytest.approx([0, 0, 0.5, 1])


async def test_cancelled_while_held_gives_its_slot_back() -> None:
    world = World(LimitSettings(concurrency=1))
    world.limits.congested("requests", retry_after=60)
    world.told.clear()
    first = asyncio.create_task(world.request())
    await _settle()
    first.cancel()
    await _settle()
    assert first.cancelled()
    assert world.told == [TurnAwaited("hub", +1), TurnAwaited("hub", -1)]  # it was never in flight
    assert await world.request() == pytest.approx(60)


async def test_bytes_are_paced_only_where_they_are_limited() -> None:
    free, slow = World(), World(LimitSettings(bytes_per_second=1000))
    for _ in range(5):
        await free.limits.pace_bytes(1_000_000)
        await slow.limits.pace_bytes(1000)
    assert free.clock.monotonic() == 0
    assert slow.clock.monotonic() == pytest.approx(4)


async def test_slot_is_given_back_when_the_request_fails() -> None:
    world = World(LimitSettings(concurrency=1))
    with pytest.raises(OSError, match="reset"):
        async with world.limits.slot("reads"):
            raise OSError("reset")
    async with asyncio.timeout(30):
        await world.request("reads")


async def test_window_that_the_site_told_lets_so_many_through_and_no_more_until_it_ends() -> None:
    world = World()
    world.limits.told(2, 30.0)
    assert [await world.request() for _ in range(4)] == pytest.approx([0.0, 0.0, 30.0, 30.0])


async def test_window_that_the_site_told_counts_what_is_in_flight() -> None:
    world = World()
    async with world.limits.slot("reads"):
        world.limits.told(1, 30.0)
    assert await world.request() == pytest.approx(30.0)


@pytest.mark.parametrize("reset", [0.0, -1.0, MAX_HOLD_SECONDS + 1])
async def test_window_without_a_use_is_not_heeded(reset: float) -> None:
    world = World()
    world.limits.told(0, reset)
    assert await world.request() == 0.0


async def test_limit_of_bytes_can_change_and_keeps_its_debt_where_it_stays() -> None:
    world = World()

    async def sent(count: int) -> float:
        await world.limits.pace_bytes(count)
        return world.clock.monotonic()

    assert await sent(1_000) == 0.0
    world.limits.set_bytes_per_second(10)
    assert [await sent(10), await sent(10)] == pytest.approx([0.0, 1.0])
    world.limits.set_bytes_per_second(10)
    assert await sent(10) == pytest.approx(2.0)
    world.limits.set_bytes_per_second(20)
    assert [await sent(20), await sent(20)] == pytest.approx([2.0, 3.0])
    world.limits.set_bytes_per_second(None)
    assert await sent(1_000) == pytest.approx(3.0)


async def test_only_what_the_site_itself_answered_counts_as_served() -> None:
    world = World()
    world.limits.succeeded("reads")
    world.limits.succeeded("reads", by_site=False)
    world.limits.answered()
    assert world.limits.served == 2


async def test_who_is_refused_for_itself_slows_nobody_down() -> None:
    world = World()
    for _ in range(4):
        world.clock.advance(1)
        world.limits.congested("requests", sent_at=world.clock.monotonic())
    before = world.clock.monotonic()
    world.limits.blameless()
    assert await world.request() == before


async def test_a_share_holds_for_what_begins_and_is_given_back() -> None:
    """Two agents of a fleet: each keeps to half of all limits, until one of them leaves."""
    world = World(LimitSettings(concurrency=8, requests_per_second=10, bytes_per_second=1_000))
    world.limits.limit_to(0.5)
    assert world.told[-3:] == [LimitChanged("hub", kind, 4) for kind in ("requests", "reads", "writes")]
    started = [await world.request() for _ in range(15)]
    assert started[4:] == pytest.approx([0.2 * number for number in range(11)])
    await world.limits.pace_bytes(500)
    at = world.clock.monotonic()
    await world.limits.pace_bytes(500)
    assert world.clock.monotonic() - at == pytest.approx(1.0)
    world.limits.limit_to(1.0)
    assert world.told[-3:] == [LimitChanged("hub", kind, 8) for kind in ("requests", "reads", "writes")]
    at = world.clock.monotonic()
    await world.limits.pace_bytes(1_000)
    await world.limits.pace_bytes(1_000)
    assert world.clock.monotonic() - at == pytest.approx(2.0)


async def test_a_share_holds_for_a_limit_that_changes_with_the_time_of_day() -> None:
    world = World(LimitSettings())
    world.limits.limit_to(0.25)
    assert not world.limits.paces_bytes
    world.limits.set_bytes_per_second(400)
    await world.limits.pace_bytes(100)
    at = world.clock.monotonic()
    await world.limits.pace_bytes(100)
    assert world.clock.monotonic() - at == pytest.approx(1.0)
    world.limits.set_bytes_per_second(None)
    assert not world.limits.paces_bytes


async def test_many_agents_have_one_request_each_at_least() -> None:
    world = World(LimitSettings(concurrency=4))
    world.limits.limit_to(1 / 100)
    assert world.told[-1] == LimitChanged("hub", "writes", 1)
    assert await world.request("writes") == 0


async def test_a_share_leaves_what_is_in_progress_alone() -> None:
    world = World(LimitSettings(concurrency=2))
    async with world.limits.slot("reads"), world.limits.slot("reads"):
        world.limits.limit_to(0.5)
        third = asyncio.create_task(world.request("reads"))
        await _settle()
    assert not third.done()
    await third
