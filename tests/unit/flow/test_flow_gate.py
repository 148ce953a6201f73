"""Gates: nobody passes who may not, nobody waits who need not, whatever is cancelled when."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from replicator.flow.gate import EPOCH_SECONDS, LARGE_PART, STEP, Gate
from tests.fakes.clock import FakeClock


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class GateMachine(RuleBasedStateMachine):
    """Visitors come, leave and are cancelled in any order and within one turn of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.gate = Gate(6, start=3, clock=self.clock)
        self.visitors: dict[int, asyncio.Task[None]] = {}
        self.leave: dict[int, asyncio.Event] = {}
        self.inside: list[int] = []
        self.entered: set[int] = set()
        self.large: set[int] = set()
        self.in_use_before = 0
        self.large_before = 0

    async def visit(self, number: int) -> None:
        large = number in self.large
        await self.gate.acquire(large=large)
        self.inside.append(number)
        self.entered.add(number)
        self.nobody_was_passed(by=number)
        try:
            await self.leave[number].wait()
        finally:
            self.inside.remove(number)
            self.gate.release(large=large)

    def nobody_was_passed(self, *, by: int) -> None:
        """Who came earlier and still waits has a slot already, and only has not had its turn of the loop.

        But for the large ones while no more of them may enter.
        """
        earlier = [n for n in range(by) if n not in self.entered and not self.visitors[n].cancelling()]
        if self.gate._large_in_use >= self.most_large():
            earlier = [n for n in earlier if n not in self.large]
        handed_over = self.gate.in_use - len(self.inside)
        assert len(earlier) <= handed_over, "somebody jumped the queue"

    def most_large(self) -> int:
        return max(1, int(self.gate.width * LARGE_PART))

    @rule(large=st.booleans())
    def somebody_comes(self, large: bool) -> None:  # noqa: FBT001 - drawn
        number = len(self.visitors)
        if large:
            self.large.add(number)
        self.leave[number] = asyncio.Event()
        self.visitors[number] = self.loop.create_task(self.visit(number))

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def somebody_leaves(self, data: st.DataObject) -> None:
        self.leave[data.draw(st.sampled_from(self.inside))].set()

    @precondition(lambda self: self.visitors)
    @rule(data=st.data())
    def somebody_is_cancelled(self, data: st.DataObject) -> None:
        self.visitors[data.draw(st.sampled_from(sorted(self.visitors)))].cancel()

    @rule(count=st.integers(1, 8))
    def successes(self, count: int) -> None:
        for _ in range(count):
            self.gate.succeeded()

    @rule()
    def congestion(self) -> None:
        self.clock.advance(EPOCH_SECONDS)
        self.gate.congested()

    @rule()
    def one_turn(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0))

    @rule()
    def settles(self) -> None:
        self.loop.run_until_complete(_settle())
        left = [number for number, task in self.visitors.items() if not task.done()]
        assert self.gate.in_use == len(self.inside)
        assert self.gate.waiting == len(left) - len(self.inside)
        assert self.gate._large_in_use == len(self.large.intersection(self.inside))
        assert len(self.gate._small) + len(self.gate._large) == self.gate.waiting, "the cancelled are kept"
        if self.gate.in_use < self.gate.width:
            assert not self.gate._small, "a slot was lost"
            assert not self.gate._large or self.gate._large_in_use >= self.most_large(), "a slot was lost"

    @invariant()
    def within_limits(self) -> None:
        assert 1 <= self.gate.width <= 6
        assert self.gate.in_use <= max(self.gate.width, self.in_use_before), "more were let in than may be"
        assert self.gate._large_in_use <= max(self.most_large(), self.large_before), "too many large ones"
        self.in_use_before, self.large_before = self.gate.in_use, self.gate._large_in_use

    def teardown(self) -> None:
        for task in self.visitors.values():
            task.cancel()
        self.loop.run_until_complete(_settle())
        broken = [task.exception() for task in self.visitors.values() if not task.cancelled()]
        try:
            assert [error for error in broken if error is not None] == []
            assert self.gate.in_use == 0
            assert self.gate.waiting == 0
        finally:
            self.loop.close()


TestGate = GateMachine.TestCase
TestGate.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize(("limit", "start", "width"), [(32, 16, 16), (4, 16, 4), (8, 0, 1), (1, 1, 1)])
def test_gate_starts_at_the_smaller_of_start_and_limit(limit: int, start: int, width: int) -> None:
    assert Gate(limit, start=start, clock=FakeClock()).width == width


def test_gate_that_could_never_open_is_refused() -> None:
    with pytest.raises(ValueError, match="never open"):
        Gate(0, clock=FakeClock())


def window(gate: Gate, clock: FakeClock, seconds: float) -> int:
    """A window of successes, `seconds` after the last one; the width then."""
    clock.advance(seconds)
    for _ in range(gate.width):
        gate.succeeded()
    return gate.width


def test_a_gate_at_its_start_doubles_each_round_trip_up_to_its_limit() -> None:
    clock = FakeClock()
    gate = Gate(100, start=4, clock=clock)
    assert [window(gate, clock, 0.05) for _ in range(6)] == [8, 16, 32, 64, 100, 100]


def test_a_gate_grows_by_a_step_once_doubling_brought_no_more_a_second() -> None:
    clock = FakeClock()
    gate = Gate(100, start=4, clock=clock)
    assert [window(gate, clock, seconds) for seconds in (0.05, 0.05, 0.2)] == [8, 16, 16 + STEP]
    assert window(gate, clock, 0.001) == 16 + 2 * STEP  # the start is over for good


def test_a_gate_grows_by_a_step_once_it_met_congestion() -> None:
    clock = FakeClock()
    gate = Gate(100, start=8, clock=clock)
    assert window(gate, clock, 0.05) == 16
    gate.congested()
    assert [window(gate, clock, 0.05) for _ in range(2)] == [8 + STEP, 8 + 2 * STEP]


def test_width_grows_for_a_window_of_successes_and_stops_at_the_limit() -> None:
    seen: list[int] = []
    clock = FakeClock()
    gate = Gate(14, start=6, clock=clock, on_change=seen.append)
    for _ in range(5):
        gate.succeeded()
    assert gate.width == 6
    clock.advance(1.0)
    for _ in range(100):
        gate.succeeded()
    assert seen == [12, 14]


def test_a_burst_of_congestion_halves_once_and_never_closes_the_gate() -> None:
    seen: list[int] = []
    clock = FakeClock()
    gate = Gate(32, start=16, clock=clock, on_change=seen.append)
    for _ in range(20):
        gate.congested()
    assert seen == [8]
    for _ in range(10):
        clock.advance(EPOCH_SECONDS)
        gate.congested()
    assert seen == [8, 4, 2, 1]


async def test_narrowing_takes_effect_as_slots_come_back() -> None:
    gate = Gate(4, clock=FakeClock())
    for _ in range(4):
        await gate.acquire()
    gate.congested()
    assert (gate.in_use, gate.width) == (4, 2)
    waiting = asyncio.create_task(gate.acquire())
    await _settle()
    gate.release()
    gate.release()
    await _settle()
    assert not waiting.done()
    gate.release()
    await waiting
    assert gate.in_use == 2
    assert repr(gate) == "<Gate: 2 of 2 in use, 0 waiting>"


async def test_a_slot_handed_to_a_waiter_that_is_cancelled_in_that_moment_goes_to_the_next() -> None:
    gate = Gate(1, clock=FakeClock())
    await gate.acquire()
    first = asyncio.create_task(gate.acquire())
    second = asyncio.create_task(gate.acquire())
    await _settle()
    gate.release()
    first.cancel()  # the slot is already on its way
    await _settle()
    assert first.cancelled()
    assert second.done()
    assert gate.in_use == 1


async def test_waiter_that_gives_up_is_not_kept() -> None:
    gate = Gate(1, clock=FakeClock())
    await gate.acquire()
    waiting = asyncio.create_task(gate.acquire())
    await _settle()
    assert gate.waiting == 1
    waiting.cancel()
    await _settle()
    assert len(gate._small) == gate.waiting == 0


@pytest.mark.parametrize(("width", "large"), [(1, 1), (2, 1), (3, 2), (4, 3), (16, 12)])
async def test_large_ones_leave_a_part_to_small_ones(width: int, large: int) -> None:
    gate = Gate(width, clock=FakeClock())
    waiting = [asyncio.create_task(gate.acquire(large=True)) for _ in range(width + 1)]
    await _settle()
    assert sum(task.done() for task in waiting) == gate.in_use == large
    small = [asyncio.create_task(gate.acquire()) for _ in range(width)]
    await _settle()
    assert sum(task.done() for task in small) == width - large
    for task in [*waiting, *small]:
        task.cancel()
    await _settle()


async def test_large_one_that_came_first_goes_first_where_it_may() -> None:
    gate = Gate(2, clock=FakeClock())
    await gate.acquire()
    await gate.acquire()
    large = asyncio.create_task(gate.acquire(large=True))
    small = [asyncio.create_task(gate.acquire()) for _ in range(3)]
    await _settle()
    gate.release()
    await _settle()
    assert large.done()
    assert not any(task.done() for task in small), "a stream of small ones must not starve it either"
    for task in small:
        task.cancel()
    await _settle()


def test_a_slot_that_nobody_held_cannot_be_given_back() -> None:
    with pytest.raises(RuntimeError, match="nobody held"):
        Gate(1, clock=FakeClock()).release()
    gate = Gate(1, clock=FakeClock())
    assert gate.try_acquire()
    with pytest.raises(RuntimeError, match="nobody held"):
        gate.release(large=True)


@pytest.mark.parametrize("large", [False, True])
async def test_line_is_served_in_the_order_of_asking_without_those_who_left(*, large: bool) -> None:
    gate = Gate(1, start=1, clock=FakeClock())
    await gate.acquire(large=large)
    served: list[int] = []

    async def visit(number: int) -> None:
        await gate.acquire(large=large)
        served.append(number)
        gate.release(large=large)

    visits = [asyncio.create_task(visit(number)) for number in range(4)]
    await _settle()
    visits[0].cancel()
    gate.release(large=large)  # before the cancelled one has had its turn of the loop
    await asyncio.gather(*visits, return_exceptions=True)  # noqa: TID251
    assert served == [1, 2, 3]
    assert (gate.in_use, gate.waiting) == (0, 0)
