"""Retries: only what may help, only as long as the budget says, and never a hidden wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import stamina
from stamina.instrumentation import get_on_retry_hooks

from replicator.errors import Advice, NotFound, Overloaded, SiteError, Throttled, Unavailable
from replicator.flow.retry import MAX_TURNS, Budget, retrying


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=1_000, cap=True):
        yield


class Call:
    """Fails with one error after the other, then returns how often it was called."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.made = 0

    async def __call__(self) -> int:
        self.made += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.made


class Told:
    def __init__(self) -> None:
        self.errors: list[SiteError] = []
        self.waits: list[float] = []

    def __call__(self, error: SiteError, wait: float) -> None:
        self.errors.append(error)
        self.waits.append(wait)


def _reset(retry_after: float | None = None) -> Unavailable:
    return Unavailable("hub", "read blob", "connection reset", retry_after=retry_after)


async def test_success_is_called_once_and_tells_nobody() -> None:
    call, told = Call(), Told()
    assert await retrying(call, on_retry=told) == 1
    assert told.errors == []


async def test_call_is_made_again_until_it_succeeds_and_each_retry_is_told() -> None:
    errors = [_reset(), Throttled("hub", "read blob", "slow down"), _reset()]
    call, told = Call(*errors), Told()
    assert await retrying(call, on_retry=told) == 4
    assert told.errors == errors


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_attempts_bound_the_calls_and_the_last_error_is_raised_as_it_was(attempts: int) -> None:
    errors = [_reset() for _ in range(10)]
    call, told = Call(*errors), Told()
    with pytest.raises(Unavailable) as caught:
        await retrying(call, Budget(attempts=attempts), told)
    assert caught.value is errors[attempts - 1]
    assert caught.value.advice is Advice.RETRY
    assert call.made == attempts
    assert told.errors == errors[: attempts - 1]  # what is raised was not announced as a retry


@pytest.mark.parametrize("advice", [Advice.LATER, Advice.GIVE_UP, Advice.STOP_SITE])
@pytest.mark.parametrize("before", [0, 1, 2])
async def test_other_advice_is_raised_at_once_on_any_attempt(advice: Advice, before: int) -> None:
    final = NotFound("hub", "read blob", "gone", advice=advice)
    call, told = Call(*(_reset() for _ in range(before)), final), Told()
    with pytest.raises(NotFound) as caught:
        await retrying(call, on_retry=told)
    assert caught.value is final
    assert len(told.errors) == before


@pytest.mark.parametrize("before", [0, 1])
async def test_what_is_no_site_error_is_raised_at_once(before: int) -> None:
    call = Call(*(_reset() for _ in range(before)), KeyError("bug"))
    with pytest.raises(KeyError):
        await retrying(call)
    assert call.made == before + 1


async def test_site_says_how_long_to_wait() -> None:
    told = Told()
    await retrying(Call(_reset(7.5), Throttled("hub", "x", "y", retry_after=90)), on_retry=told)
    assert told.waits == [7.5, 90]


async def test_wait_that_the_budget_does_not_have_is_raised_at_once() -> None:
    error = Throttled("hub", "read manifest", "pull limit", retry_after=3600)
    call, told = Call(error), Told()
    with pytest.raises(Throttled) as caught:
        await retrying(call, Budget(seconds=120), told)
    assert caught.value is error
    assert caught.value.advice is Advice.RETRY
    assert (call.made, told.waits) == (1, [])


async def test_spent_time_ends_the_retries() -> None:
    call = Call(_reset())
    with pytest.raises(Unavailable):
        await retrying(call, Budget(seconds=-1))
    assert call.made == 1


async def test_waits_are_drawn_from_a_doubling_range_with_a_cap() -> None:
    """Full jitter: a fixed part in the wait would bring those who failed together back together."""
    waits: list[list[float]] = []
    for _ in range(40):
        told = Told()
        errors = [
            _reset(0 if number == 2 else None) for number in range(5)
        ]  # a Retry-After of 0 is no order to storm
        await retrying(Call(*errors), Budget(attempts=6, wait_initial=1, wait_max=5), told)
        waits.append(told.waits)
    tops = [1, 2, 4, 5, 5]
    for top, drawn in zip(tops, zip(*waits, strict=True), strict=True):
        assert all(0 <= wait <= top for wait in drawn)
        assert min(drawn) < top / 3
        assert max(drawn) > top / 2


async def test_cancellation_ends_a_wait_at_once() -> None:
    waiting = asyncio.Event()
    call = Call(_reset(60), _reset(60))
    with stamina.set_testing(False):
        task = asyncio.create_task(retrying(call, on_retry=lambda *_: waiting.set()))
        await waiting.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()  # it does wait
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert call.made == 1


@pytest.mark.parametrize("before", [0, 1])
async def test_cancelled_call_is_not_made_again(before: int) -> None:
    call = Call(*(_reset() for _ in range(before)), asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await retrying(call)
    assert call.made == before + 1


async def test_stamina_itself_neither_logs_nor_counts() -> None:
    await retrying(Call(_reset()))
    assert get_on_retry_hooks() == ()


class Busy:
    """A site that serves others meanwhile, while `serving`."""

    def __init__(self, *, serving: bool) -> None:
        self._serving = serving
        self._served = 0

    @property
    def served(self) -> int:
        self._served += self._serving
        return self._served


@pytest.mark.parametrize("refusal", [Throttled, Overloaded])
async def test_refusals_use_up_no_patience_while_others_are_served(refusal: type[SiteError]) -> None:
    call = Call(*[refusal("hub", "read manifest", "busy") for _ in range(15)])
    await retrying(call, Budget(attempts=3, wait_initial=0.0, wait_max=0.0), site=Busy(serving=True))
    assert call.made == 16


@pytest.mark.parametrize("refusal", [Throttled, Overloaded])
async def test_refusals_of_everybody_end_and_are_left_for_later(refusal: type[SiteError]) -> None:
    call = Call(*[refusal("hub", "read manifest", "busy") for _ in range(50)])
    budget = Budget(attempts=2, refusals=4, wait_initial=0.0, wait_max=0.0)
    with pytest.raises(refusal) as raised:
        await retrying(call, budget, site=Busy(serving=False))
    assert call.made == 4
    assert raised.value.advice is Advice.LATER


async def test_one_that_is_always_refused_is_given_up_whoever_else_is_served() -> None:
    call = Call(*[Overloaded("hub", "read blob", "503") for _ in range(500)])
    with pytest.raises(Overloaded):
        await retrying(call, Budget(wait_initial=0.0, wait_max=0.0), site=Busy(serving=True))
    assert call.made == MAX_TURNS


async def test_only_refusals_are_tried_again_where_nothing_else_is_safe() -> None:
    call = Call(
        Throttled("hub", "start upload", "429", retry_after=0.001),
        Unavailable("hub", "start upload", "reset"),
    )
    with pytest.raises(Unavailable):
        await retrying(call, Budget(wait_initial=0.0), only_refused=True)
    assert call.made == 2
