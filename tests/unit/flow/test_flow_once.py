"""Single flight: one call, one outcome for all, no work without somebody who wants it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.flow.once import Ended, Once


class Work:
    """Something slow that counts how often it is done and ends as told."""

    def __init__(self) -> None:
        self.begun = 0
        self.cleaned_up = 0
        self.finish = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.begun += 1
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # cancelling an upload takes a request
            self.cleaned_up += 1
            raise
        if self.error is not None:
            raise self.error
        return self.begun


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_everybody_gets_the_outcome_of_one_call() -> None:
    once, work = Once[str, int](), Work()
    waiters = [asyncio.create_task(once.run("blob", work)) for _ in range(5)]
    await _settle()
    work.finish.set()
    assert [await waiter for waiter in waiters] == [1] * 5
    assert work.begun == 1


async def test_different_keys_do_not_share() -> None:
    once, work = Once[str, int](), Work()
    work.finish.set()
    await once.run("one", work)
    await once.run("two", work)
    assert work.begun == 2


async def test_failure_is_shared_by_all_waiters() -> None:
    """In zot the first waiter read the error and the others read nil from the closed channel: success."""
    once, work = Once[str, int](), Work()
    work.error = OSError("disk full")
    waiters = [asyncio.create_task(once.run("blob", work)) for _ in range(5)]
    await _settle()
    work.finish.set()
    await _settle()
    assert [waiter.exception() for waiter in waiters] == [work.error] * 5


async def test_outcome_is_forgotten_at_once() -> None:
    once, work = Once[str, int](), Work()
    work.finish.set()
    work.error = OSError("reset")
    with pytest.raises(OSError, match="reset"):
        await once.run("blob", work)
    work.error = None
    assert await once.run("blob", work) == 2  # in the same turn of the loop: the failure is not served again
    await _settle()
    assert len(once) == 0


async def test_waiters_begin_anew_where_the_first_is_cancelled_and_share_again() -> None:
    once, work = Once[str, int](), Work()
    waiters = [asyncio.create_task(once.run("blob", work)) for _ in range(4)]
    await _settle()
    waiters[0].cancel()
    await _settle()
    assert waiters[0].cancelled()
    assert work.cleaned_up == 1
    work.finish.set()
    assert [await waiter for waiter in waiters[1:]] == [2] * 3


async def test_cancelled_waiter_leaves_the_work_to_the_others() -> None:
    once, work = Once[str, int](), Work()
    waiters = [asyncio.create_task(once.run("blob", work)) for _ in range(3)]
    await _settle()
    waiters[1].cancel()
    await _settle()
    assert waiters[1].cancelled()
    work.finish.set()
    assert [await waiters[0], await waiters[2]] == [1, 1]


async def test_work_ends_before_its_cancelled_caller_goes_on() -> None:
    once, work = Once[str, int](), Work()
    caller = asyncio.create_task(once.run("blob", work))
    await _settle()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert work.cleaned_up == 1
    assert len(once) == 0


async def test_newcomer_takes_over_from_what_is_dying() -> None:
    once, work = Once[str, int](), Work()
    first = asyncio.create_task(once.run("blob", work))
    await _settle()
    first.cancel()
    await asyncio.sleep(0)  # the work is being cancelled now
    second = asyncio.create_task(once.run("blob", work))
    await _settle()
    work.finish.set()
    assert await second == 2
    assert first.cancelled()


async def test_work_that_cancels_itself_does_not_look_done() -> None:
    """A task group takes a child's CancelledError for an orderly end: nobody would notice the missing blob."""

    async def gives_up() -> None:
        raise asyncio.CancelledError

    once = Once[str, None]()
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(once.run("blob", gives_up))
    assert caught.group_contains(Ended)


async def test_newcomer_in_the_turn_in_which_the_work_ends_starts_anew() -> None:
    once, work = Once[str, int](), Work()
    first = asyncio.create_task(once.run("blob", work))
    await _settle()
    work.finish.set()
    newcomer = asyncio.create_task(once.run("blob", work))
    assert (await first, await newcomer) == (1, 2)


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["come", "cancel", "turn", "end"]), st.integers(0, 5)), max_size=30
    ),
    fails=st.booleans(),
)
def test_whoever_is_not_cancelled_gets_the_outcome_and_nothing_is_left(
    steps: list[tuple[str, int]], *, fails: bool
) -> None:
    asyncio.run(_play(steps, fails=fails))


async def _play(steps: list[tuple[str, int]], *, fails: bool) -> None:
    once = Once[str, int]()
    at_work = peak = 0
    finish = asyncio.Event()
    broken = OSError("broken")

    async def work() -> int:
        nonlocal at_work, peak
        at_work += 1
        peak = max(peak, at_work)
        try:
            await finish.wait()
        finally:
            at_work -= 1
        if fails:
            raise broken
        return 7

    waiters: list[asyncio.Task[int]] = []
    cancelled: set[asyncio.Task[int]] = set()
    for what, number in steps:
        if what == "come":
            waiters.append(asyncio.create_task(once.run("key", work)))
        elif what == "cancel" and waiters:
            waiter = waiters[number % len(waiters)]
            if waiter.cancel():
                cancelled.add(waiter)
        elif what == "turn":
            await asyncio.sleep(0)
        elif what == "end":
            finish.set()
    finish.set()
    await _settle()
    await _settle()
    for waiter in waiters:
        assert waiter.done()
        if waiter.cancelled():
            assert waiter in cancelled
        elif fails:
            assert waiter.exception() is broken
        else:
            assert waiter.result() == 7
    assert at_work == 0
    assert peak <= 1
    assert len(once) == 0
    assert len(asyncio.all_tasks()) == 1
