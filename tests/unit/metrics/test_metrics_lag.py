"""Lag and its neighbours as Prometheus sees them: a real state file, a real engine, a clock that tests own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import event

from replicator.daemon.standings import Standings
from replicator.engine.context import RunScope
from replicator.errors import Rejected, StateError, Unavailable
from replicator.metrics import Metrics
from replicator.model.digest import digest_of
from replicator.policy.rule import Rule
from replicator.policy.schedule import Cron
from replicator.ports import Missing, Pending, RunRow
from replicator.state.store import StoredState, open_state
from tests.engine.world import World, rule
from tests.fakes.clock import FakeClock
from tests.fakes.memory import MemorySite
from tests.unit.metrics.test_metrics import Scraped

START = 1_700_000_000.0
INTERVAL = 300.0
ROUNDING = 10.0
"""The state writes in the background, which takes seconds of a fake clock."""

REFUSED = Rejected("left", "write manifest", "400")
DOWN = Unavailable("source", "list repositories", "503")


class Stage:
    """One agent's view of a rule from `source` to `left`, without its scheduler: tests say when it runs."""

    def __init__(self, world: World, clock: FakeClock, path: Path) -> None:
        self.world = world
        self.clock = clock
        self.rule = replace(rule(), interval=INTERVAL)
        self._path = path
        self.state: StoredState
        self.metrics: Metrics

    async def start(self) -> None:
        """A new process on the same state."""
        self.world.state = self.state = await open_state(self._path, clock=self.clock)
        self.state.begin("rule", "left")
        self.standings = Standings(self.state, self.clock)
        self.metrics = Metrics([self.rule], self.standings, self.standings.behind)
        await self.standings.refresh([self.rule])

    async def run(self, *, at: float | None = None, repository: str = "app") -> str:
        """One run; with `at`, only for an event of that time. Gives its outcome."""
        scope = None if at is None else RunScope({repository: None}, at)
        result = await self.world.sync_one(self.rule, scope=scope)
        await self.standings.refresh([self.rule])
        return result.outcome

    def value(self, name: str, **labels: str) -> float:
        pair = {"rule": "rule"} if "observed" in name else {"rule": "rule", "destination": "left"}
        found = Scraped(self.metrics).value(f"replicator_{name}", **pair, **labels)
        assert found is not None
        return found

    @property
    def lag(self) -> float:
        return self.value("lag_seconds")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    clock = FakeClock(START)
    sites = {name: MemorySite(name) for name in ("source", "left")}
    stage = Stage(World(sites, None, clock), clock, tmp_path / "state.db")
    await stage.start()
    yield stage
    await stage.state.aclose()


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=ROUNDING)


async def test_before_the_first_look_it_is_the_age_of_the_rule(stage: Stage) -> None:
    stage.clock.advance(100)
    assert stage.lag == about(100)
    assert stage.value("last_observed_timestamp_seconds") == 0
    assert stage.value("last_success_timestamp_seconds") == 0


async def test_in_step_it_is_zero_until_the_next_look_is_overdue_by_an_interval(stage: Stage) -> None:
    stage.world.put("app", "v1")
    assert await stage.run() == "ok"
    looked = stage.value("last_observed_timestamp_seconds")
    assert looked == about(START)
    assert stage.value("tags", state="in_step") == 1
    stage.clock.advance(2 * INTERVAL - ROUNDING)
    assert stage.lag == 0
    stage.clock.advance(2 * ROUNDING)
    assert stage.lag == pytest.approx(stage.clock.now() - looked)  # the age of the last complete look


async def test_a_cron_rule_is_overdue_by_the_distance_of_its_times(stage: Stage) -> None:
    stage.rule = replace(stage.rule, interval=None, cron=Cron("0 * * * *"))
    stage.world.put("app", "v1")
    assert await stage.run() == "ok"
    stage.clock.advance(3600)
    assert stage.lag == 0
    stage.clock.advance(2 * 3600)
    assert stage.lag == about(3 * 3600)


async def test_a_failed_change_is_dated_by_the_last_look_that_still_agreed(stage: Stage) -> None:
    stage.world.put("app", "v1")
    assert await stage.run() == "ok"
    agreed = stage.value("last_observed_timestamp_seconds")
    stage.clock.advance(200)
    stage.world.put("app", "v2")
    stage.world.left.fail("write_manifest", REFUSED)
    stage.clock.advance(100)
    assert await stage.run() == "partial"
    assert stage.lag == pytest.approx(stage.clock.now() - agreed)
    assert (stage.value("tags", state="failed"), stage.value("tags", state="pending")) == (1, 0)
    stage.clock.advance(1000)
    assert stage.lag == pytest.approx(stage.clock.now() - agreed)


async def test_a_change_that_an_event_told_is_dated_by_the_event(stage: Stage) -> None:
    stage.world.put("app", "v1")
    assert await stage.run() == "ok"
    stage.clock.advance(250)
    stage.world.put("app", "v2")
    happened = stage.clock.now()
    stage.world.left.fail("write_manifest", REFUSED)
    stage.clock.advance(3)
    assert await stage.run(at=happened) == "partial"
    stage.clock.advance(40)
    assert stage.lag == pytest.approx(stage.clock.now() - happened)


async def test_a_blind_source_makes_it_grow_from_the_last_complete_look(stage: Stage) -> None:
    stage.world.put("app", "v1")
    assert await stage.run() == "ok"
    looked = stage.value("last_observed_timestamp_seconds")
    stage.world.source.fail("repositories", DOWN, times=3)
    for _ in range(3):
        stage.clock.advance(INTERVAL)
        assert await stage.run() != "ok"
    assert stage.value("last_observed_timestamp_seconds") == looked
    assert stage.lag == pytest.approx(stage.clock.now() - looked)
    assert await stage.run() == "ok"
    assert stage.lag == 0


async def test_it_recovers_with_the_destination(stage: Stage) -> None:
    stage.world.put("app", "v1")
    stage.world.left.fail("write_manifest", REFUSED)
    assert await stage.run() == "failed"
    stage.clock.advance(1000)
    assert stage.lag == about(1000)
    assert await stage.run() == "ok"
    assert stage.lag == 0
    assert stage.value("last_success_timestamp_seconds") == about(stage.clock.now())


async def test_it_survives_a_restart(stage: Stage) -> None:
    stage.world.put("app", "v1")
    stage.world.left.fail("write_manifest", REFUSED)
    assert await stage.run() == "failed"
    stage.clock.advance(1000)
    before, observed = stage.lag, stage.value("last_observed_timestamp_seconds")
    await stage.state.aclose()
    stage.clock.advance(500)
    await stage.start()
    assert stage.lag == about(before + 500)
    assert stage.value("last_observed_timestamp_seconds") == observed
    assert stage.value("tags", state="failed") == 1


async def test_a_state_that_cannot_be_read_leaves_what_was_known_and_lag_grows(stage: Stage) -> None:
    stage.clock.advance(100)
    await stage.state.aclose()
    with pytest.raises(StateError):
        await stage.standings.refresh([stage.rule])
    before = stage.lag
    stage.clock.advance(100)
    assert stage.lag == before + 100


# --- many rules ---


@asynccontextmanager
async def counted(path: Path, clock: FakeClock) -> AsyncIterator[tuple[StoredState, Callable[[], list[str]]]]:
    """A state, and the queries that were asked of it since the last time of asking."""
    state = await open_state(path, clock=clock)
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    def taken() -> list[str]:
        told = [each for each in asked if each.lstrip().upper().startswith("SELECT")]
        asked.clear()
        return told

    engine = await state._database.run(lambda connection: connection.engine)
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield state, taken
    finally:
        event.remove(engine, "before_cursor_execute", note)
        await state.aclose()


def many_rules() -> Sequence[Rule]:
    return [
        replace(rule(f"rule-{n}", destinations=("left", "right")), interval=INTERVAL) for n in range(1000)
    ]


async def test_a_thousand_rules_cost_three_queries_a_refresh_and_none_a_scrape(tmp_path: Path) -> None:
    clock, rules = FakeClock(START), many_rules()
    async with counted(tmp_path / "state.db", clock) as (state, queries):
        standings = Standings(state, clock)
        metrics = Metrics(rules, standings, standings.behind)
        for each in rules:
            for destination in each.destinations:
                state.begin(each.name, destination)
        await state.flush()
        queries()
        await standings.refresh(rules)
        assert len(queries()) == 3
        await standings.refresh(rules, repositories=100)
        assert len(queries()) == 4
        first, second = metrics.expose(), metrics.expose()
        assert queries() == []
    assert first == second
    assert first.count(b"\nreplicator_lag_seconds{") == 2000


async def test_the_breakdown_shows_those_furthest_behind_and_counts_the_rest(tmp_path: Path) -> None:
    clock = FakeClock(START)
    one = rule("one")
    async with counted(tmp_path / "state.db", clock) as (state, _):
        for number in range(10):
            missing = Pending(
                f"app/{number}", "v1", digest_of(b"x"), START - 100 * number, attempts=number % 2
            )
            state.record(Missing("one", "left", missing))
            state.record(Missing("gone", "left", missing))  # a rule of an earlier config
        for name in ("one", "gone"):
            await state.close_run(RunRow(name, "left", START, START, "partial", True, 0, 0, 0))
        standings = Standings(state, clock)
        await standings.refresh([one], repositories=3)
        clock.advance(5)
        scraped = Scraped(Metrics([one], standings, standings.behind))
        await standings.refresh([one])
        assert standings.behind() is None
    shown = {number: scraped.value(
        "replicator_repository_lag_seconds", rule="one", destination="left", repository=f"app/{number}"
    ) for number in range(10)}  # fmt: skip
    assert {number for number, lag in shown.items() if lag is not None} == {7, 8, 9}
    assert shown[9] == about(905)
    assert scraped.value("replicator_repositories_left_out") == 7
    place = {"rule": "one", "destination": "left", "repository": "app/9"}
    assert scraped.value("replicator_repository_tags", **place, state="failed") == 1
    assert scraped.value("replicator_repository_tags", **place, state="pending") == 0
