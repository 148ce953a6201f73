"""What every state promises, asked of the one in memory and those in databases alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from replicator.model.digest import Digest, digest_of
from replicator.ports import (
    Created,
    Entry,
    Listed,
    ListingRefused,
    Missing,
    Noted,
    Pending,
    Placed,
    RunRow,
    Seen,
    Standing,
    TagBelief,
    Unpending,
)
from replicator.state.memory import RUNS_KEPT, MemoryState
from replicator.state.place import Place
from replicator.state.store import StoredState, open_state
from tests.fakes.clock import FakeClock

NOW = 1_700_000_000.0
ONE, TWO, THREE = (digest_of(text) for text in (b"one", b"two", b"three"))
AnyState = StoredState | MemoryState


@asynccontextmanager
async def opened(kind: str, place: Place, clock: FakeClock) -> AsyncIterator[AnyState]:
    state = MemoryState(clock) if kind == "memory" else await open_state(place, clock=clock)
    try:
        yield state
    finally:
        await state.aclose()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def state(
    request: pytest.FixtureRequest, places: Callable[[str], Place], clock: FakeClock
) -> AsyncIterator[AnyState]:
    async with opened(request.param, places(request.param), clock) as state:
        yield state


@pytest.fixture(params=["before", "after"])
def flushed(request: pytest.FixtureRequest) -> bool:
    """A promise about what was recorded holds before it is durable as after."""
    return bool(request.param == "after")


def placed(tag: str, digest: Digest = ONE, *, rule: str = "rule", repository: str = "app") -> Placed:
    return Placed(rule, "fra", TagBelief(tag, digest, digest, rule, NOW + 5), repository)


def missing(
    tag: str, since: float = NOW, *, attempts: int = 0, digest: Digest = ONE, rule: str = "rule"
) -> Missing:
    error = "refused" if attempts else ""
    return Missing(rule, "fra", Pending("app", tag, digest, since, attempts, error, error, NOW + 9))


def held(tag: str, reason: str, *, since: float = NOW) -> Missing:
    return Missing("rule", "fra", Pending("app", tag, ONE, since, hold=reason))


def row(
    *, started: float = NOW, look: bool = True, failed: int = 0, error: str = "", narrowed: bool = False
) -> RunRow:
    return RunRow(
        rule="rule",
        destination="fra",
        started_at=started,
        ended_at=started + 10,
        outcome="partial" if failed else "ok",
        complete_look=look,
        in_step=7,
        held=2,
        failed=failed,
        error=error,
        narrowed=narrowed,
    )


class TestState:
    async def tell(self, state: AnyState, *entries: Entry, flushed: bool) -> None:
        for entry in entries:
            state.record(entry)
        if flushed:
            await state.flush()

    async def test_a_new_state_reads_as_empty(self, state: AnyState) -> None:
        assert await state.beliefs("fra", "app") == {}
        assert await state.pending("rule", "fra", "app") == {}
        assert not await state.knows_repository("fra", "app")
        assert await state.whereabouts("fra", [ONE]) == {}
        assert await state.created([ONE]) == {}
        assert await state.listed("fra", "app") == {}
        assert await state.standings() == []

    async def test_beliefs_are_kept_by_destination_and_repository(
        self, state: AnyState, *, flushed: bool
    ) -> None:
        await self.tell(
            state, placed("v1"), placed("v2", TWO), placed("v1", TWO, repository="other"), flushed=flushed
        )
        assert await state.beliefs("fra", "app") == {
            "v1": TagBelief("v1", ONE, ONE, "rule", NOW + 5),
            "v2": TagBelief("v2", TWO, TWO, "rule", NOW + 5),
        }
        assert await state.beliefs("ams", "app") == {}

    async def test_a_belief_tells_which_rule_put_it_there(self, state: AnyState, *, flushed: bool) -> None:
        await self.tell(state, placed("v1"), placed("v1", TWO, rule="another"), flushed=flushed)
        assert (await state.beliefs("fra", "app"))["v1"] == TagBelief("v1", TWO, TWO, "another", NOW + 5)

    async def test_a_sha512_digest_comes_back_as_it_was(self, state: AnyState, *, flushed: bool) -> None:
        long = digest_of(b"long", "sha512")
        await self.tell(state, placed("v1", long), Created(long, 3.5), flushed=flushed)
        assert (await state.beliefs("fra", "app"))["v1"].digest == long
        assert await state.created([long, ONE]) == {long: 3.5}

    async def test_pending_keeps_the_earliest_since_and_the_latest_of_all_else(
        self, state: AnyState, *, flushed: bool
    ) -> None:
        await self.tell(state, missing("v1", NOW), flushed=flushed)
        await self.tell(state, missing("v1", NOW + 60, attempts=2, digest=TWO), flushed=flushed)
        known = await state.pending("rule", "fra", "app")
        assert known == {"v1": Pending("app", "v1", TWO, NOW, 2, "refused", "refused", NOW + 9)}

    async def test_an_earlier_since_told_later_wins(self, state: AnyState, *, flushed: bool) -> None:
        await self.tell(state, missing("v1", NOW), flushed=flushed)
        await self.tell(state, missing("v1", NOW - 60), flushed=flushed)
        assert (await state.pending("rule", "fra", "app"))["v1"].since == NOW - 60

    async def test_placing_ends_what_was_pending_for_that_rule_alone(
        self, state: AnyState, *, flushed: bool
    ) -> None:
        await self.tell(state, missing("v1"), missing("v2"), missing("v1", rule="another"), flushed=flushed)
        await self.tell(state, placed("v1"), flushed=flushed)
        assert set(await state.pending("rule", "fra", "app")) == {"v2"}
        assert set(await state.pending("another", "fra", "app")) == {"v1"}

    async def test_a_hold_is_kept_with_its_reason_and_counts_nowhere_as_pending(
        self, state: AnyState, *, flushed: bool
    ) -> None:
        state.begin("rule", "fra")
        await self.tell(state, held("v1", "r" * 9_000), held("v2", "archived"), flushed=flushed)
        await self.tell(state, missing("v3", NOW + 5), flushed=flushed)
        known = await state.pending("rule", "fra", "app")
        assert len(known["v1"].hold) < 2_000
        assert known["v2"] == Pending("app", "v2", ONE, NOW, hold="archived")
        (standing,) = await state.standings()
        assert (standing.pending, standing.failed, standing.oldest_tag) == (1, 0, "v3")
        (behind,) = await state.behind()
        assert (behind.pending, behind.oldest_tag, behind.oldest_pending) == (1, "v3", NOW + 5)

    async def test_a_repository_with_holds_alone_is_not_behind(
        self, state: AnyState, *, flushed: bool
    ) -> None:
        state.begin("rule", "fra")
        await self.tell(state, held("v1", "archived"), flushed=flushed)
        assert await state.behind() == []
        assert (await state.close_run(row())).last_success == NOW + 10

    async def test_a_hold_ends_with_the_tag_placed_unwanted_or_pending(
        self, state: AnyState, *, flushed: bool
    ) -> None:
        holds = [held(tag, "archived", since=NOW - 60) for tag in ("v1", "v2", "v3", "v4")]
        await self.tell(state, *holds, flushed=flushed)
        ends = placed("v1"), Unpending("rule", "fra", "app", "v2", NOW), missing("v3", NOW)
        await self.tell(state, *ends, flushed=flushed)
        known = await state.pending("rule", "fra", "app")
        assert set(known) == {"v3", "v4"}
        assert (known["v3"].hold, known["v3"].since) == ("", NOW)  # it was not pending while it was held
        await self.tell(state, held("v3", "archived", since=NOW + 60), flushed=flushed)
        assert (await state.pending("rule", "fra", "app"))["v3"].since == NOW + 60

    async def test_a_tag_pending_again_is_dated_anew(self, state: AnyState, *, flushed: bool) -> None:
        await self.tell(state, missing("v1", NOW), flushed=flushed)
        await self.tell(state, placed("v1"), missing("v1", NOW + 500), flushed=flushed)
        assert (await state.pending("rule", "fra", "app"))["v1"].since == NOW + 500

    async def test_a_tag_no_longer_wanted_is_no_longer_pending(
        self, state: AnyState, *, flushed: bool
    ) -> None:
        await self.tell(state, missing("v1"), flushed=flushed)
        await self.tell(state, Unpending("rule", "fra", "app", "v1"), flushed=flushed)
        assert await state.pending("rule", "fra", "app") == {}

    async def test_whereabouts_are_the_latest_few_first(self, state: AnyState, *, flushed: bool) -> None:
        await self.tell(state, *(Seen("fra", f"r{number}", ONE) for number in range(6)), flushed=flushed)
        await self.tell(state, Seen("fra", "r3", ONE), Seen("ams", "r9", ONE), flushed=flushed)
        assert await state.whereabouts("fra", [ONE, TWO]) == {ONE: ["r3", "r5", "r4", "r2"]}

    async def test_a_hint_taken_back_is_gone(self, state: AnyState, *, flushed: bool) -> None:
        await self.tell(
            state, Seen("fra", "a", ONE), Seen("fra", "b", ONE), Seen("fra", "a", TWO), flushed=flushed
        )
        await state.forget("fra", "a", [ONE, TWO, THREE])
        assert await state.whereabouts("fra", [ONE, TWO, THREE]) == {ONE: ["b"]}
        await self.tell(state, Seen("fra", "a", TWO), flushed=flushed)
        assert await state.whereabouts("fra", [ONE, TWO]) == {ONE: ["b"], TWO: ["a"]}

    async def test_whereabouts_of_very_many_blobs_are_read_at_once(self, state: AnyState) -> None:
        many = [digest_of(b"%d" % number) for number in range(2_500)]
        await self.tell(state, *(Seen("fra", "app", digest) for digest in many), flushed=True)
        assert set(await state.whereabouts("fra", iter(many))) == set(many)

    async def test_a_repository_is_known_by_tag_blob_or_listing(
        self, state: AnyState, *, flushed: bool
    ) -> None:
        await self.tell(
            state,
            placed("v1", repository="tagged"),
            Seen("fra", "filled", ONE),
            Noted("fra", "listed", Listed("v1", ONE, "x")),
            missing("v1"),
            flushed=flushed,
        )
        known = {
            name: await state.knows_repository("fra", name) for name in ("tagged", "filled", "listed", "app")
        }
        assert known == {"tagged": True, "filled": True, "listed": True, "app": False}
        assert not await state.knows_repository("ams", "tagged")

    async def test_listings_are_kept_by_site_and_repository(self, state: AnyState, *, flushed: bool) -> None:
        await self.tell(state, Noted("fra", "app", Listed("v1", ONE, "1")), flushed=flushed)
        await self.tell(state, Noted("fra", "app", Listed("v1", TWO, "2")), flushed=flushed)
        assert await state.listed("fra", "app") == {"v1": Listed("v1", TWO, "2")}
        assert await state.listed("ams", "app") == {}

    async def test_the_latest_refusal_of_a_listing_is_kept_by_repository_and_for_all(
        self, state: AnyState, *, flushed: bool
    ) -> None:
        await self.tell(state, ListingRefused("fra", "app", NOW - 5, "HTTP 403"), flushed=flushed)
        await self.tell(state, ListingRefused("fra", "app", NOW, "HTTP 404"), flushed=flushed)
        await self.tell(state, ListingRefused("fra", "", NOW - 1, "HTTP 429"), flushed=flushed)
        await self.tell(state, ListingRefused("fra", "b", NOW - 1, "HTTP 403"), flushed=flushed)
        assert await state.listing_refusals("fra", "app") == [
            ListingRefused("fra", "", NOW - 1, "HTTP 429"),
            ListingRefused("fra", "app", NOW, "HTTP 404"),
        ]
        assert await state.listing_refusals("fra", "c") == [ListingRefused("fra", "", NOW - 1, "HTTP 429")]
        assert len(await state.listing_refusals("fra", "b")) == 2  # of one moment
        assert await state.listing_refusals("ams", "app") == []

    async def test_a_rule_is_dated_once(self, state: AnyState, clock: FakeClock) -> None:
        state.begin("rule", "fra")
        await state.flush()
        clock.advance(100)
        state.begin("rule", "fra")
        state.begin("later", "ams")
        standings = {each.rule: each for each in await state.standings()}
        assert standings["rule"] == Standing("rule", "fra", NOW)
        assert standings["later"].first_seen >= NOW + 100
        assert [each.rule for each in await state.standings(["rule", "unknown"])] == ["rule"]

    async def test_a_good_run_is_the_last_look_from_its_start_and_a_success_from_its_end(
        self, state: AnyState
    ) -> None:
        state.begin("rule", "fra")
        standing = await state.close_run(row())
        assert standing == Standing("rule", "fra", NOW, NOW, NOW + 10, 7, 2)
        assert await state.standings() == [standing]

    async def test_a_run_never_begun_is_dated_by_its_row(self, state: AnyState) -> None:
        assert (await state.close_run(row(started=NOW - 5))).first_seen == NOW - 5

    @pytest.mark.parametrize("look", [True, False])
    async def test_a_run_that_leaves_something_pending_is_no_success(
        self, state: AnyState, clock: FakeClock, *, look: bool
    ) -> None:
        state.begin("rule", "fra")
        await state.close_run(row())
        clock.advance(100)
        state.record(missing("v1", NOW + 50, attempts=1))
        state.record(missing("v2", NOW + 40))
        standing = await state.close_run(
            row(started=NOW + 100, look=look, failed=1, error="hub: app: refused")
        )
        assert standing.last_success == NOW + 10
        assert standing.last_look == (NOW + 100 if look else NOW)
        assert (standing.pending, standing.failed, standing.oldest_pending) == (2, 1, NOW + 40)
        assert standing.last_error == "hub: app: refused"

    @pytest.mark.parametrize("bad", [row(look=False), row(failed=1)])
    async def test_success_is_not_claimed_for_what_was_not_done(self, state: AnyState, bad: RunRow) -> None:
        assert (await state.close_run(bad)).last_success is None

    async def test_a_good_run_ends_the_error(self, state: AnyState) -> None:
        await state.close_run(row(failed=1, error="refused"))
        assert (await state.close_run(row(started=NOW + 60))).last_error == ""

    async def test_a_narrowed_run_changes_neither_counts_nor_looks(self, state: AnyState) -> None:
        before = await state.close_run(row())
        narrow = RunRow("rule", "fra", NOW + 60, NOW + 61, "ok", False, 1, 0, 0, narrowed=True)
        assert await state.close_run(narrow) == before
        assert [each.narrowed for each in await state.runs("rule", "fra")] == [True, False]

    async def test_a_narrowed_run_that_went_well_hides_no_error(self, state: AnyState) -> None:
        await state.close_run(row(failed=1, error="refused"))
        assert (
            await state.close_run(row(started=NOW + 60, look=False, narrowed=True))
        ).last_error == "refused"

    async def test_what_failed_in_a_narrowed_run_is_no_error_of_the_rule(self, state: AnyState) -> None:
        """A later event's look may go well at once, and would have no way to take the error back."""
        before = await state.close_run(row())
        narrow = RunRow("rule", "fra", NOW + 60, NOW + 61, "failed", False, 0, 0, 1, "refused", narrowed=True)
        assert await state.close_run(narrow) == before

    async def test_runs_are_remembered_latest_first(self, state: AnyState) -> None:
        rows = [row(started=NOW + number, look=bool(number % 2)) for number in range(4)]
        for each in rows:
            await state.close_run(each)
        assert await state.runs("rule", "fra") == rows[::-1]
        assert await state.runs("rule", "ams") == []


async def test_sqlite_remembers_no_more_than_a_hundred_runs_of_each(tmp_path: Path) -> None:
    async with opened("sqlite", tmp_path / "state.db", FakeClock(NOW)) as state:
        for number in range(RUNS_KEPT + 5):
            await state.close_run(row(started=NOW + number))
        kept = [each.started_at for each in await state.runs("rule", "fra")]
    assert kept == [NOW + number for number in range(RUNS_KEPT + 4, 4, -1)]
