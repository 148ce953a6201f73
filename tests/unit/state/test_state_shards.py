"""A rule that is looked at shard by shard stands where its shards do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Literal

import pytest

from replicator.model.shards import Shard
from replicator.ports import CatalogSeen, Missing, Pending, RunRow, Standing, Unit, UnitSeen
from replicator.state.place import Place
from tests.fakes.clock import FakeClock
from tests.unit.state.test_state_conformance import NOW, ONE, AnyState, opened

RULE = ("rule", "fra")
Outcome = Literal["ok", "partial", "failed", "interrupted"]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def state(
    request: pytest.FixtureRequest, places: Callable[[str], Place], clock: FakeClock
) -> AsyncIterator[AnyState]:
    async with opened(request.param, places(request.param), clock) as state:
        yield state


async def _look(
    state: AnyState, index: int, at: float, *, count: int = 2, error: str = "", catalog: bool = True
) -> Standing:
    """One shard's run, that began at `at` and lasted a second."""
    return await state.close_run(
        RunRow(
            *RULE,
            started_at=at,
            ended_at=at + 1,
            outcome="failed" if error else "ok",
            complete_look=not error,
            in_step=1,
            held=0,
            failed=0,
            error=error,
            shard=Shard(index, count),
            catalog_at=at if catalog else None,
        )
    )


def _unit(repository: str, at: float) -> UnitSeen:
    return UnitSeen(
        Unit(
            *RULE,
            repository,
            repository,
            source_complete_at=at,
            destination_complete_at=at,
            in_step=2,
            asked_at=at,
        )
    )


async def test_a_rule_was_looked_at_when_all_its_shards_were(state: AnyState) -> None:
    state.begin(*RULE)
    state.record(_unit("a", NOW - 50))
    assert (await _look(state, 0, NOW - 50)).last_look is None
    state.record(_unit("b", NOW - 40))
    standing = await _look(state, 1, NOW - 40)
    assert (standing.last_look, standing.last_success, standing.in_step) == (NOW - 50, NOW - 39, 4)
    state.record(_unit("b", NOW - 20))
    assert (await _look(state, 1, NOW - 20)).last_look == NOW - 50  # a new repository may be in the other one
    state.record(_unit("a", NOW - 10))
    assert (await _look(state, 0, NOW - 10)).last_look == NOW - 20


async def test_the_catalog_of_one_shard_dates_no_look(state: AnyState) -> None:
    state.begin(*RULE)
    state.record(_unit("a", NOW - 50))
    state.record(_unit("gone", NOW - 60))
    state.record(CatalogSeen(*RULE, frozenset({"a"}), NOW - 50, is_looked_at=False))
    await state.flush()
    assert [unit.repository for unit in await state.units("rule")] == ["a"]
    standing = (await state.standings(["rule"]))[0]
    assert standing.last_look is None


async def test_a_shard_whose_source_was_not_listed_holds_the_look_back(state: AnyState) -> None:
    state.begin(*RULE)
    await _look(state, 0, NOW - 50)
    await _look(state, 1, NOW - 50)
    await _look(state, 0, NOW - 20)
    standing = await _look(state, 1, NOW - 20, error="down", catalog=False)
    assert (standing.last_look, standing.last_error, standing.last_success) == (NOW - 50, "down", NOW - 19)
    standing = await _look(state, 0, NOW - 10)
    assert (standing.last_error, standing.last_success) == ("down", NOW - 19)  # the other shard's still holds
    standing = await _look(state, 1, NOW - 5)
    assert (standing.last_look, standing.last_error, standing.last_success) == (NOW - 10, "", NOW - 4)


async def test_nothing_is_a_success_while_a_tag_of_any_shard_is_pending(state: AnyState) -> None:
    state.begin(*RULE)
    await _look(state, 0, NOW - 50)
    state.record(Missing(*RULE, Pending("b", "v1", ONE, NOW - 45, source="b", asked_at=NOW - 45)))
    assert (await _look(state, 1, NOW - 45)).last_success is None


async def test_a_shard_keeps_the_time_of_its_last_listing_while_the_source_is_down(state: AnyState) -> None:
    state.begin(*RULE)
    for index in (0, 1):
        await _look(state, index, NOW - 50)
    await _look(state, 1, NOW - 30)
    await _look(state, 1, NOW - 20, error="down", catalog=False)
    assert (await _look(state, 0, NOW - 10)).last_look == NOW - 30


@pytest.mark.parametrize(("outcome", "complete"), [("ok", False), ("partial", True), ("failed", True)])
async def test_a_shard_that_did_not_see_all_or_failed_makes_no_success(
    state: AnyState, outcome: Outcome, *, complete: bool
) -> None:
    state.begin(*RULE)
    await _look(state, 0, NOW - 50)
    row = RunRow(
        *RULE, NOW - 40, NOW - 39, outcome, complete, 1, 0, 0, shard=Shard(1, 2), catalog_at=NOW - 40
    )
    assert (await state.close_run(row)).last_success is None


async def test_the_error_of_the_shard_that_failed_last_is_shown(state: AnyState) -> None:
    state.begin(*RULE)
    await _look(state, 0, NOW - 50)
    await _look(state, 1, NOW - 20, error="early")
    standing = await _look(state, 0, NOW - 10, error="late", catalog=False)
    assert standing.last_error == "late"


async def test_shards_of_another_number_do_not_set_the_look_back(state: AnyState) -> None:
    state.begin(*RULE)
    for index in (0, 1):
        await _look(state, index, NOW - 20)
    looks = [(await _look(state, index, NOW - 60, count=3)).last_look for index in (0, 1, 2)]
    assert looks == [NOW - 20] * 3


async def test_another_number_of_shards_counts_when_all_of_them_were_looked_at(state: AnyState) -> None:
    """Lag must not jump to the age of the rule because somebody changed `fleet.shards`."""
    state.begin(*RULE)
    for index in (0, 1):
        await _look(state, index, NOW - 50)
    for index in (0, 1):
        assert (await _look(state, index, NOW - 20, count=3)).last_look == NOW - 50
    assert (await _look(state, 2, NOW - 10, count=3)).last_look == NOW - 20


async def test_a_narrowed_run_of_a_shard_says_nothing_of_the_rule(state: AnyState) -> None:
    state.begin(*RULE)
    for index in (0, 1):
        await _look(state, index, NOW - 50)
    narrow = RunRow(
        *RULE, NOW - 20, NOW - 19, "failed", complete_look=False, in_step=0, held=0, failed=1,
        error="down", narrowed=True, shard=Shard(0, 2),
    )  # fmt: skip
    standing = await state.close_run(narrow)
    assert (standing.last_look, standing.last_error) == (NOW - 50, "")
