"""Placements, units, catalogs, events, older answers and clocks that jump: asked of all states alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from replicator.model.digest import Digest, digest_of
from replicator.ports import (
    AcceptedEvent,
    CatalogSeen,
    Created,
    Entry,
    GoneAtDestination,
    Listed,
    Missing,
    Noted,
    Pending,
    Placed,
    Placement,
    RunRow,
    Seen,
    TagBelief,
    Unit,
    UnitSeen,
    Unlisted,
    Unpending,
)
from replicator.state.memory import MemoryState
from replicator.state.place import Place
from replicator.state.store import StoredState, open_state
from replicator.state.writing import KEEP_SECONDS
from tests.fakes.clock import FakeClock, StillClock

NOW = 1_700_000_000.0
YEARS = 10 * 365 * 86_400.0
DAY = 86_400.0
ONE, TWO, THREE = (digest_of(text) for text in (b"one", b"two", b"three"))
AnyState = StoredState | MemoryState


@pytest.fixture
def clock() -> FakeClock:
    return StillClock(NOW)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def state(
    request: pytest.FixtureRequest, places: Callable[[str], Place], clock: FakeClock
) -> AsyncIterator[AnyState]:
    found: AnyState = MemoryState(clock)
    if request.param != "memory":
        found = await open_state(places(request.param), clock=clock)
    yield found
    await found.aclose()


@pytest.fixture(params=["before", "after"])
def flushed(request: pytest.FixtureRequest) -> bool:
    """A promise about what was recorded holds before it is durable as after."""
    return bool(request.param == "after")


async def tell(state: AnyState, *entries: Entry, flushed: bool) -> None:
    for entry in entries:
        state.record(entry)
        if flushed:
            await state.flush()


def placed(
    tag: str,
    digest: Digest = ONE,
    *,
    asked: float = NOW,
    checked: float | None = None,
    root: bool = True,
    rule: str = "rule",
) -> Placed:
    checked = asked + 1 if checked is None else checked
    placement = Placement(digest, "children", checked, checked) if root else None
    return Placed(rule, "fra", TagBelief(tag, digest, digest, rule, checked, asked), "app", placement)


def missing(tag: str, *, asked: float = NOW, since: float = NOW, digest: Digest | None = ONE) -> Missing:
    return Missing("rule", "fra", Pending("app", tag, digest, since, source="team/app", asked_at=asked))


def unit(
    repository: str = "team/app", *, asked: float = NOW, destination: str = "fra", **values: object
) -> Unit:
    return msgspec.structs.replace(Unit("rule", destination, repository, "app", asked_at=asked), **values)


def row(started: float = NOW) -> RunRow:
    return RunRow("rule", "fra", started, started + 5, "ok", complete_look=True, in_step=9, held=9, failed=0)


# --- older answers ---


async def test_an_older_answer_does_not_replace_a_belief(state: AnyState, *, flushed: bool) -> None:
    await tell(state, placed("v1", TWO, asked=NOW), placed("v1", ONE, asked=NOW - 5), flushed=flushed)
    assert (await state.beliefs("fra", "app"))["v1"].digest == TWO
    await tell(state, placed("v1", THREE, asked=NOW), flushed=flushed)
    assert (await state.beliefs("fra", "app"))["v1"].digest == THREE


async def test_an_older_failure_does_not_make_a_tag_pending_that_was_placed_since(
    state: AnyState, *, flushed: bool
) -> None:
    await tell(state, placed("v1", asked=NOW), missing("v1", asked=NOW - 5), flushed=flushed)
    assert await state.pending("rule", "fra", "app") == {}
    await tell(state, missing("v1", asked=NOW + 5), flushed=flushed)
    assert set(await state.pending("rule", "fra", "app")) == {"v1"}


async def test_an_older_answer_neither_replaces_nor_ends_what_is_pending(
    state: AnyState, *, flushed: bool
) -> None:
    await tell(state, missing("v1", asked=NOW, digest=TWO), flushed=flushed)
    await tell(
        state,
        missing("v1", asked=NOW - 5, digest=ONE),
        Unpending("rule", "fra", "app", "v1", NOW - 5),
        placed("v1", asked=NOW - 5),
        flushed=flushed,
    )
    assert (await state.pending("rule", "fra", "app"))["v1"].digest == TWO


async def test_what_a_clock_ahead_has_written_gives_way_to_what_is_asked_now(
    state: AnyState, clock: FakeClock, *, flushed: bool
) -> None:
    clock.advance(YEARS)
    await tell(state, placed("v1", TWO, asked=NOW + YEARS), missing("v2", asked=NOW + YEARS), flushed=flushed)
    await state.flush()
    clock.advance(-YEARS)
    await tell(state, placed("v1", ONE), missing("v2", digest=THREE), flushed=flushed)
    assert (await state.beliefs("fra", "app"))["v1"].digest == ONE
    assert (await state.pending("rule", "fra", "app"))["v2"].digest == THREE
    await tell(state, Unpending("rule", "fra", "app", "v2", NOW), flushed=flushed)
    assert await state.pending("rule", "fra", "app") == {}


# --- the end of beliefs and placements ---


async def test_a_belief_ends_when_a_listing_lacks_its_tag(state: AnyState, *, flushed: bool) -> None:
    await tell(state, placed("v1"), placed("v2"), flushed=flushed)
    await tell(state, GoneAtDestination("fra", "app", ["v1", "never"], NOW + 5), flushed=flushed)
    assert set(await state.beliefs("fra", "app")) == {"v2"}


async def test_a_belief_that_was_checked_after_the_listing_stays(state: AnyState, *, flushed: bool) -> None:
    await tell(state, placed("v1", checked=NOW + 9), flushed=flushed)
    await tell(state, GoneAtDestination("fra", "app", ["v1"], NOW + 5), flushed=flushed)
    assert set(await state.beliefs("fra", "app")) == {"v1"}


async def test_a_placement_ends_with_the_last_belief_that_names_it(state: AnyState) -> None:
    await tell(state, placed("v1", ONE), placed("v2", ONE), placed("v3", TWO), flushed=True)
    assert set(await state.placements("fra", "app")) == {ONE, TWO}
    await tell(state, GoneAtDestination("fra", "app", ["v1"], NOW + 5), flushed=True)
    assert set(await state.placements("fra", "app")) == {ONE, TWO}
    await tell(state, placed("v2", THREE, asked=NOW + 6), flushed=True)
    assert set(await state.placements("fra", "app")) == {TWO, THREE}
    await tell(state, GoneAtDestination("fra", "app", ["v2", "v3"], NOW + 20), flushed=True)
    assert await state.placements("fra", "app") == {}


async def test_a_root_that_an_older_answer_has_put_is_no_placement(state: AnyState) -> None:
    await tell(state, placed("v1", TWO, asked=NOW), placed("v1", ONE, asked=NOW - 5), flushed=True)
    assert set(await state.placements("fra", "app")) == {TWO}


async def test_seeing_a_tag_again_keeps_its_placement(state: AnyState, *, flushed: bool) -> None:
    await tell(state, placed("v1"), placed("v1", asked=NOW + 60, root=False), flushed=flushed)
    assert await state.placements("fra", "app") == {ONE: Placement(ONE, "children", NOW + 1, NOW + 1)}


async def test_single_placements_and_beliefs_can_be_asked_for(state: AnyState, *, flushed: bool) -> None:
    await tell(state, placed("v1", ONE), placed("v2", TWO), missing("v3"), missing("v4"), flushed=flushed)
    assert set(await state.placements("fra", "app", [TWO, THREE])) == {TWO}
    assert set(await state.beliefs("fra", "app", ["v1", "v9"])) == {"v1"}
    assert set(await state.pending("rule", "fra", "app", {"v4", "v1"})) == {"v4"}
    assert await state.beliefs("fra", "app", []) == {}


# --- units and standings ---


async def test_a_unit_keeps_what_a_scan_could_not_find_out(state: AnyState) -> None:
    first = unit(source_complete_at=NOW, destination_complete_at=NOW + 1, in_step=5, held=1)
    await tell(state, UnitSeen(first), flushed=True)
    later = unit(asked=NOW + 9, destination_complete_at=NOW + 9, error="hub: down")
    await tell(state, UnitSeen(later, counted=False), flushed=True)
    assert await state.units("rule") == [
        msgspec.structs.replace(first, destination_complete_at=NOW + 9, error="hub: down", asked_at=NOW + 9)
    ]
    await tell(state, UnitSeen(unit(asked=NOW + 5, in_step=99)), flushed=True)
    assert (await state.units("rule"))[0].in_step == 5
    assert await state.units("rule", "ams") == []
    assert await state.units("other") == []
    name = (await state.units("rule"))[0].repository
    assert len(await state.units("rule", "fra", [name, "elsewhere"])) == 1
    assert await state.units("rule", "fra", ["elsewhere"]) == await state.units("rule", "fra", []) == []


async def test_a_catalog_ends_units_and_pending_tags_of_what_is_gone(state: AnyState) -> None:
    await tell(
        state,
        UnitSeen(unit("team/app")),
        UnitSeen(unit("team/gone")),
        UnitSeen(unit("team/new", asked=NOW + 20)),
        missing("v1"),
        flushed=True,
    )
    await tell(state, CatalogSeen("rule", "fra", frozenset({"other"}), NOW + 9), flushed=True)
    assert [each.repository for each in await state.units("rule")] == ["team/new"]
    assert await state.pending("rule", "fra", "app") == {}


async def test_a_standing_sums_up_units_and_names_what_holds_it_back(state: AnyState) -> None:
    state.begin("rule", "fra")
    await tell(
        state,
        UnitSeen(unit("a", source_complete_at=NOW - 10, destination_complete_at=NOW - 20, in_step=5, held=1)),
        UnitSeen(
            unit("b", source_complete_at=NOW - 90, destination_complete_at=NOW - 5, in_step=7, unknown=2)
        ),
        CatalogSeen("rule", "fra", frozenset({"a", "b"}), NOW - 15),
        missing("v2", since=NOW - 40),
        missing("v1", since=NOW - 50, digest=None),
        flushed=True,
    )
    (found,) = await state.standings()
    assert (found.in_step, found.held, found.unknown, found.pending) == (12, 1, 2, 2)
    assert (found.last_look, found.look_repository) == (NOW - 90, "b")
    assert (found.oldest_pending, found.oldest_repository, found.oldest_tag) == (NOW - 50, "app", "v1")


async def test_the_catalog_is_part_of_the_last_look(state: AnyState) -> None:
    good = UnitSeen(unit("a", source_complete_at=NOW - 10, destination_complete_at=NOW - 10))
    await tell(state, CatalogSeen("rule", "fra", frozenset({"a"}), NOW - 60), good, flushed=True)
    (found,) = await state.standings()
    assert (found.last_look, found.look_repository) == (NOW - 60, "")


@pytest.mark.parametrize("sides", [(None, NOW), (NOW, None), (None, None), (NOW + YEARS, NOW)])
async def test_without_a_complete_scan_of_every_unit_there_was_no_complete_look(
    state: AnyState, sides: tuple[float | None, float | None]
) -> None:
    source, destination = sides
    await tell(
        state,
        CatalogSeen("rule", "fra", frozenset({"a", "b"}), NOW),
        UnitSeen(unit("a", source_complete_at=source, destination_complete_at=destination)),
        UnitSeen(unit("b", source_complete_at=NOW, destination_complete_at=NOW)),
        flushed=True,
    )
    (found,) = await state.standings()
    assert (found.last_look, found.look_repository) == (None, "a")


async def test_a_run_closes_with_the_counts_of_its_units(state: AnyState) -> None:
    await tell(
        state,
        CatalogSeen("rule", "fra", frozenset({"a"}), NOW - 5),
        UnitSeen(unit("a", source_complete_at=NOW - 5, destination_complete_at=NOW - 5, in_step=3)),
        flushed=False,
    )
    standing = await state.close_run(row(NOW - 5))
    assert (standing.in_step, standing.held, standing.last_look) == (3, 0, NOW - 5)
    assert standing.last_success == NOW


async def test_times_of_a_clock_ahead_are_not_believed(state: AnyState, clock: FakeClock) -> None:
    clock.advance(YEARS)
    state.begin("rule", "fra")
    await state.close_run(row(clock.now()))
    await tell(
        state,
        CatalogSeen("rule", "fra", frozenset({"a"}), clock.now()),
        UnitSeen(unit("a", asked=clock.now(), source_complete_at=clock.now(), destination_complete_at=NOW)),
        flushed=True,
    )
    clock.advance(-YEARS)
    (found,) = await state.standings()
    assert (found.last_look, found.last_success) == (None, None)
    assert NOW <= found.first_seen < NOW + 60
    good = unit("a", source_complete_at=NOW, destination_complete_at=NOW)
    await tell(state, CatalogSeen("rule", "fra", frozenset({"a"}), NOW), UnitSeen(good), flushed=True)
    state.begin("rule", "fra")
    clock.advance(DAY)
    (found,) = await state.standings()
    assert found.last_look == NOW
    assert NOW <= found.first_seen < NOW + 60


async def test_what_is_behind_is_named(state: AnyState) -> None:
    await tell(state, missing("v1", since=NOW - 5), missing("v2", since=NOW - 9), flushed=False)
    (found,) = await state.behind()
    assert (found.repository, found.pending, found.oldest_pending, found.oldest_tag) == (
        "app",
        2,
        NOW - 9,
        "v2",
    )


# --- events ---


def event(name: str, tag: str | None = "v1", at: float = NOW, **values: object) -> AcceptedEvent:
    return msgspec.structs.replace(AcceptedEvent(name, "hub", "app", tag, ONE, at, at + 1), **values)


async def test_events_stay_until_they_are_answered(state: AnyState) -> None:
    every = [
        event("b", "v2", NOW - 5),
        event("a", "v1"),
        event("c", None, NOW + 5),
        event("d", None, repository=None),
    ]
    await state.accept_events(every)
    assert await state.events() == [every[0], every[1], every[3], every[2]]
    await state.answer_events(["a", "c", "unknown"])
    assert [each.id for each in await state.events()] == ["b", "d"]


async def test_of_two_events_about_one_tag_the_later_is_kept_with_the_earlier_time(state: AnyState) -> None:
    await state.accept_events([event("a", at=NOW - 5)])
    await state.accept_events([event("b", at=NOW, digest=TWO), event("b", at=NOW, digest=TWO)])
    assert await state.events() == [event("b", at=NOW - 5, digest=TWO, accepted_at=NOW + 1)]
    await state.answer_events(["a"])  # a scan that began before b came
    assert [each.id for each in await state.events()] == ["b"]


async def test_many_events_become_one_in_one_step(state: AnyState) -> None:
    await state.accept_events([event(f"e{number}", f"v{number}") for number in range(5)])
    await state.accept_events([event("all", None)], instead_of=[f"e{number}" for number in range(4)])
    assert {each.id for each in await state.events()} == {"e4", "all"}


# --- hints end ---


async def test_tags_that_a_listing_no_longer_has_are_forgotten(state: AnyState, *, flushed: bool) -> None:
    await tell(state, Noted("fra", "app", Listed("v1", ONE, "1")), flushed=flushed)
    await tell(state, Noted("fra", "app", Listed("v2", ONE, "1")), flushed=flushed)
    await tell(state, Unlisted("fra", "app", ["v1", "v9"]), flushed=flushed)
    assert set(await state.listed("fra", "app")) == {"v2"}


async def test_sqlite_forgets_what_nobody_has_used_for_long(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "state.db"
    state = await open_state(path, clock=clock)
    await tell(state, Seen("fra", "app", ONE), Created(ONE, 1.0), Created(TWO, 2.0), flushed=True)
    for _ in range(10):
        clock.advance(KEEP_SECONDS / 9)
        await state.created([TWO])
        await state.close_run(row(clock.now()))
    assert await state.whereabouts("fra", [ONE]) == {}
    assert await state.created([ONE, TWO]) == {TWO: 2.0}
    await state.aclose()


async def test_a_hint_from_elsewhere_comes_after_what_was_seen(clock: FakeClock) -> None:
    state = MemoryState(clock, hint=lambda site, _: "home" if site == "fra" else None)
    state.record(Seen("fra", "app", ONE))
    assert await state.whereabouts("fra", [ONE, TWO]) == {ONE: ["app", "home"], TWO: ["home"]}
    assert await state.whereabouts("ams", [ONE]) == {}
