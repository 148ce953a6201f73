from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import pytest
from msgspec.structs import replace

from replicator.daemon.generation import Generation
from replicator.daemon.lanes import BACK_OFF_TO_SECONDS, back_off
from replicator.daemon.runs import RUNS_KEPT, Runs
from replicator.daemon.scheduler import NARROWED_SCANS_AT_ONCE, Scheduler
from replicator.daemon.triggers import REPOSITORIES_WANTED
from replicator.engine.context import RunListener, RunScope
from replicator.engine.result import DestinationResult, Outcome, RuleResult
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule
from replicator.runs.current import Run, current_run
from tests.fakes.clock import FakeClock

START = 1_700_000_000.0


@dataclass(eq=False)
class Call:
    """One run, until the test ends it at each destination."""

    rule: str
    left: set[str]
    scope: RunScope | None
    at: float
    unattended: bool
    drain: asyncio.Event
    listener: RunListener
    run: Run | None = field(default_factory=current_run)
    ended: dict[str, DestinationResult] = field(default_factory=dict)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, destination: str, outcome: Outcome = "ok") -> None:
        result = self.ended[destination] = DestinationResult(destination, outcome)
        self.left.discard(destination)
        assert self.listener.ended is not None
        self.listener.ended(self.rule, result)
        if not self.left:
            self.done.set()

    def scanned(self, destination: str) -> None:
        """All that the scan found is decided on; copies go on."""
        assert self.listener.scanned is not None
        self.listener.scanned(self.rule, destination)

    def repository_done(self, destination: str, repository: str) -> None:
        assert self.listener.repository_done is not None
        self.listener.repository_done(self.rule, destination, repository)


class ScriptedEngine:
    """Runs that last until the test ends them; those of `quick` rules end by themselves."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.calls: list[Call] = []
        self.outcomes: dict[str, Outcome] = {}
        """Destinations that end at once, and how."""
        self.slow_to_drain = False
        self.busy: set[str] = set()
        """Source repositories that some run works on."""

    def is_busy(self, rule: Rule, destination: str, repository: str) -> bool:
        return repository in self.busy

    async def sync(
        self,
        rules: Sequence[Rule],
        *,
        destinations: frozenset[str],
        recheck: bool,
        unattended: bool,
        scope: RunScope | None,
        drain: asyncio.Event,
        listener: RunListener,
        assignment: None = None,
    ) -> list[RuleResult]:
        (rule,) = rules
        call = Call(
            rule.name, set(destinations), scope, self._clock.now() - START, unattended, drain, listener
        )
        self.calls.append(call)
        for name in sorted(destinations & self.outcomes.keys()):
            call.end(name, self.outcomes[name])
        drained = asyncio.ensure_future(drain.wait())  # noqa: TID251
        done = asyncio.ensure_future(call.done.wait())  # noqa: TID251
        waited = {done} if self.slow_to_drain else {drained, done}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        drained.cancel()
        done.cancel()
        for name in tuple(call.left):
            call.end(name, "interrupted")
        return [RuleResult(rule.name, rule.source, list(call.ended.values()))]

    def of(self, rule: str) -> list[Call]:
        return [call for call in self.calls if call.rule == rule]


class NoCommands:
    async def before(self, *_: Any) -> None: ...
    async def after(self, *_: Any) -> None: ...


@dataclass(eq=False)
class World:
    rules: tuple[Rule, ...]
    engine: ScriptedEngine
    hooks: NoCommands = field(default_factory=NoCommands)
    users: int = 1

    def identity(self, rule: Rule) -> object:
        return rule

    def enter(self) -> None:
        self.users += 1

    async def leave(self) -> None:
        self.users -= 1


def rule(name: str = "r", *destinations: str, interval: float | None = 10.0) -> Rule:
    everything = RepositorySelection((Glob.parse("app*"),))
    return Rule(name, "hub", destinations or ("fra",), everything, interval=interval)


class Stage:
    def __init__(self, *rules: Rule) -> None:
        self.clock = FakeClock(START)
        self.engine = ScriptedEngine(self.clock)
        self.paused: set[str] = set()
        self.runs = Runs()
        self.scheduler = Scheduler(
            "agent", clock=self.clock, runs=self.runs, paused=self.paused, on_change=lambda: None
        )
        self.triggers = self.scheduler.triggers
        self.world = World(rules, self.engine)
        self.follow(self.world)

    def follow(self, world: World) -> None:
        self.world = world
        self.scheduler.follow(cast("Generation", world), {})

    def reload(self, *rules: Rule) -> World:
        old = self.world
        self.follow(World(rules, self.engine))
        return old

    async def until(self, is_so: Callable[[], bool]) -> None:
        for _ in range(20_000):
            if is_so():
                return
            await asyncio.sleep(0)
        raise AssertionError("it never came to that")

    async def turns(self, count: int = 200) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.scheduler.run())
        try:
            yield
        finally:
            self.scheduler.stop()
            await task


async def test_a_slow_destination_never_delays_the_other_ones_next_tick() -> None:
    stage = Stage(rule("r", "dead", "fra"))
    stage.engine.outcomes = {"fra": "ok"}
    async with stage.running():
        await stage.until(lambda: len(stage.engine.calls) >= 5)
        first, *later = stage.engine.calls
        assert first.left == {"dead"}
        assert all(call.ended.keys() == {"fra"} for call in later[:3])
        assert [b.at - a.at for a, b in pairwise(later[:4])] == pytest.approx([10.0] * 3)
        first.end("dead")
        await stage.until(lambda: any("dead" in call.left for call in later + stage.engine.calls[5:]))


async def test_missed_ticks_of_a_busy_destination_are_one_run_directly_after() -> None:
    stage = Stage(rule())
    async with stage.running():
        await stage.until(lambda: len(stage.engine.calls) == 1)
        await stage.until(lambda: stage.clock.monotonic() > 75)
        assert len(stage.engine.calls) == 1
        stage.engine.calls[0].end("fra")
        await stage.until(lambda: len(stage.engine.calls) == 2)
        assert stage.engine.calls[1].at == pytest.approx(stage.clock.monotonic(), abs=0.1)
        directly_after = stage.engine.calls[1].at
        stage.engine.calls[1].end("fra")
        await stage.until(lambda: len(stage.engine.calls) == 3)
        assert stage.engine.calls[2].at > directly_after


async def test_rules_run_side_by_side() -> None:
    stage = Stage(rule("a"), rule("b"))
    async with stage.running():
        await stage.until(lambda: {call.rule for call in stage.engine.calls} == {"a", "b"})


async def test_what_is_done_for_a_run_can_tell_which_one_it_is() -> None:
    stage = Stage(rule("a"), rule("b"))
    async with stage.running():
        await stage.until(lambda: len(stage.engine.calls) == 2)
        assert [call.run for call in stage.engine.calls] == list(stage.runs.running)
    assert current_run() is None


async def test_an_event_runs_at_once_beside_a_whole_run() -> None:
    stage = Stage(rule(interval=3600))
    async with stage.running():
        await stage.until(lambda: len(stage.engine.calls) == 1)
        assert stage.triggers.hint("hub", "app", "v1", at=START - 5) == {("r", "fra")}
        await stage.until(lambda: len(stage.engine.calls) == 2)
        assert stage.engine.calls[1].scope == RunScope({"app": frozenset({"v1"})}, START - 5)
        assert stage.clock.monotonic() < 1


async def test_an_event_for_a_repository_in_hand_runs_directly_after() -> None:
    stage = Stage(rule(interval=3600))
    stage.engine.outcomes = {"fra": "ok"}
    async with stage.running():
        await stage.until(lambda: len(stage.runs.recent) == 1)
        stage.engine.outcomes = {}
        stage.triggers.hint("hub", "app", "v1")
        await stage.until(lambda: len(stage.engine.calls) == 2)
        stage.triggers.hint("hub", "app", "v2")
        stage.triggers.hint("hub", "app2", "v2")
        await stage.until(lambda: len(stage.engine.calls) == 3)
        await stage.turns()
        assert stage.engine.calls[2].scope == RunScope({"app2": frozenset({"v2"})})
        stage.engine.calls[1].end("fra")
        await stage.until(lambda: len(stage.engine.calls) == 4)
        assert stage.engine.calls[3].scope == RunScope({"app": frozenset({"v2"})})


async def test_the_next_scan_begins_on_time_while_copies_of_the_one_before_go_on() -> None:
    stage = Stage(rule())
    async with stage.running():
        await stage.until(lambda: len(stage.engine.calls) == 1)
        first = stage.engine.calls[0]
        first.scanned("fra")
        await stage.until(lambda: len(stage.engine.calls) == 2)
        assert stage.engine.calls[1].at == pytest.approx(10.0, abs=1.5)
        assert first.left == {"fra"}
        first.end("fra")


async def test_slow_copies_of_events_do_not_keep_the_next_event_waiting() -> None:
    stage = Stage(rule(interval=3600))
    stage.engine.outcomes = {"fra": "ok"}
    async with stage.running():
        await stage.until(lambda: len(stage.runs.recent) == 1)
        stage.engine.outcomes = {}
        for number in range(3 * NARROWED_SCANS_AT_ONCE):
            stage.triggers.hint("hub", f"app{number}", "v1")
            await stage.until(lambda count=number + 2: len(stage.engine.calls) == count)  # type: ignore[misc]
            stage.engine.calls[-1].scanned("fra")
        assert stage.clock.monotonic() < 3600


async def test_an_event_for_a_repository_that_a_run_is_through_with_runs_at_once() -> None:
    stage = Stage(rule(interval=3600))
    stage.engine.outcomes = {"fra": "ok"}
    async with stage.running():
        await stage.until(lambda: len(stage.runs.recent) == 1)
        stage.engine.outcomes = {}
        stage.triggers.submit("r", cause="webhook", repositories={"app1": None, "app2": None})
        await stage.until(lambda: len(stage.engine.calls) == 2)
        stage.engine.calls[1].repository_done("fra", "app1")
        stage.triggers.hint("hub", "app1", "v2")
        stage.triggers.hint("hub", "app2", "v2")
        await stage.until(lambda: len(stage.engine.calls) == 3)
        await stage.turns()
        assert [call.scope for call in stage.engine.calls[2:]] == [RunScope({"app1": frozenset({"v2"})})]


async def test_an_event_for_a_repository_that_is_being_copied_waits_for_it_alone() -> None:
    stage = Stage(rule(interval=3600))
    stage.engine.busy = {"app1"}
    async with stage.running():
        await stage.until(lambda: len(stage.engine.calls) == 1)
        stage.triggers.hint("hub", "app1", "v1")
        stage.triggers.hint("hub", "app2", "v1")
        await stage.until(lambda: len(stage.engine.calls) == 2)
        await stage.turns()
        assert stage.engine.calls[1].scope == RunScope({"app2": frozenset({"v1"})})
        stage.engine.busy = set()
        stage.engine.calls[0].repository_done("fra", "app1")
        await stage.until(lambda: len(stage.engine.calls) == 3)
        assert stage.engine.calls[2].scope == RunScope({"app1": frozenset({"v1"})})


async def test_a_repository_left_to_another_run_is_scanned_once_it_is_free() -> None:
    stage = Stage(rule(interval=3600))
    async with stage.running():
        await stage.until(lambda: len(stage.engine.calls) == 1)
        busy = stage.engine.calls[0].listener.busy
        assert busy is not None
        busy("r", "fra", "app1")
        await stage.until(lambda: len(stage.engine.calls) == 2)
        assert stage.engine.calls[1].scope == RunScope({"app1": None})


async def test_an_operators_order_is_not_merged_down_to_a_tick() -> None:
    stage = Stage(rule(interval=3600))
    async with stage.running():
        await stage.until(lambda: len(stage.engine.calls) == 1)
        stage.triggers.submit("r", cause="interval")
        stage.triggers.submit("r", cause="api")
        stage.triggers.submit("r", cause="cron")
        stage.engine.calls[0].end("fra")
        await stage.until(lambda: len(stage.engine.calls) == 2)
        assert not stage.engine.calls[1].unattended


async def test_a_flood_of_events_is_a_handful_of_runs() -> None:
    stage = Stage(rule(interval=3600))
    stage.engine.outcomes = {"fra": "ok"}
    async with stage.running():
        await stage.until(lambda: len(stage.runs.recent) == 1)
        stage.engine.outcomes = {}
        for number in range(10_000):
            stage.triggers.hint("hub", f"app{number}", "v1")
            if number % 100 == 0:
                await asyncio.sleep(0)
        await stage.turns()
        assert len(stage.engine.calls) <= 2 + NARROWED_SCANS_AT_ONCE
        for call in tuple(stage.engine.calls):
            assert call.scope is None or len(call.scope.repositories) <= REPOSITORIES_WANTED
        assert len(stage.triggers) <= 1


async def test_ten_thousand_events_for_one_tag_are_one_run() -> None:
    stage = Stage(rule(interval=3600))
    stage.engine.outcomes = {"fra": "ok"}
    async with stage.running():
        await stage.until(lambda: len(stage.runs.recent) == 1)
        for _ in range(10_000):
            stage.triggers.hint("hub", "app", "v1")
        await stage.until(lambda: len(stage.runs.recent) == 2)
        await stage.turns()
        assert len(stage.engine.calls) == 2


async def test_events_that_no_rule_selects_start_nothing() -> None:
    stage = Stage(rule())
    assert stage.triggers.hint("hub", "other", "v1") == frozenset()
    assert stage.triggers.hint("elsewhere", "app", "v1") == frozenset()
    assert not stage.triggers.submit("r", cause="api", destinations=["nowhere"])
    assert not stage.triggers.submit("unknown", cause="api")
    assert len(stage.triggers) == 0


async def test_a_rule_that_keeps_failing_backs_off_alone_and_recovers() -> None:
    stage = Stage(rule("bad"), rule("good", "sin"))
    stage.engine.outcomes = {"fra": "failed", "sin": "ok"}
    async with stage.running():
        await stage.until(lambda: len(stage.engine.of("bad")) == 5)
        times = [call.at for call in stage.engine.of("bad")]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert gaps == sorted(gaps)
        assert gaps[-1] >= 4 * gaps[0]
        assert len(stage.engine.of("good")) > 10
        assert "fra" in stage.scheduler.backing_off(rule("bad"))
        assert stage.scheduler.failures("bad", "fra") == 5
        assert stage.scheduler.failures("good", "sin") == 0
        stage.engine.outcomes["fra"] = "ok"
        await stage.until(lambda: len(stage.engine.of("bad")) == 9)
        times = [call.at for call in stage.engine.of("bad")][-3:]
        assert times[2] - times[1] == pytest.approx(10)


async def test_a_drained_run_does_not_count_for_the_back_off() -> None:
    """What failed before a reload says nothing of the rule as it is now."""
    stage = Stage(rule())
    stage.engine.slow_to_drain = True
    async with stage.running():
        await stage.until(lambda: len(stage.engine.calls) == 1)
        stage.reload(replace(rule(), recheck=1.0))
        stage.engine.calls[0].end("fra", "failed")
        await stage.until(lambda: len(stage.engine.calls) == 2)
        stage.engine.calls[1].end("fra", "failed")
        await stage.until(lambda: len(stage.engine.calls) == 3)
        stage.engine.calls[2].end("fra")
        assert stage.engine.calls[2].at - stage.engine.calls[1].at == pytest.approx(10, abs=1)


async def test_who_asks_does_not_wait_for_a_back_off() -> None:
    stage = Stage(rule())
    stage.engine.outcomes = {"fra": "failed"}
    async with stage.running():
        await stage.until(lambda: len(stage.engine.calls) == 5)
        asked = stage.clock.now() - START
        assert stage.triggers.submit("r", cause="api")
        await stage.until(lambda: len(stage.engine.calls) == 6)
        assert stage.engine.calls[-1].at - asked < 1
        assert not stage.engine.calls[-1].unattended


def test_backing_off_has_an_end_and_never_undercuts_the_interval() -> None:
    assert back_off(1, 10) == 0
    assert back_off(10**6, 10) == BACK_OFF_TO_SECONDS
    assert back_off(10**6, 86_400) == 86_400
    assert back_off(2, None) > 0


async def test_a_rule_without_a_schedule_looks_again_after_failures_until_there_are_none() -> None:
    stage = Stage(rule(interval=None))
    stage.engine.outcomes = {"fra": "failed"}
    async with stage.running():
        await stage.until(lambda: len(stage.engine.calls) == 6)
        stage.engine.outcomes = {"fra": "partial"}
        await stage.until(lambda: len(stage.engine.calls) == 7)
        times = [call.at for call in stage.engine.calls]
        gaps = [60, 120, 240, 480, BACK_OFF_TO_SECONDS, BACK_OFF_TO_SECONDS]
        assert [b - a for a, b in pairwise(times)] == pytest.approx(gaps, abs=1)
        assert [run.cause for run in stage.runs.recent][-2:] == ["retry", "start"]
        assert stage.engine.calls[1].unattended
        assert "fra" in stage.scheduler.backing_off(rule())
        stage.engine.outcomes = {"fra": "ok"}
        await stage.until(lambda: len(stage.engine.calls) == 8)
        await stage.until(lambda: stage.clock.monotonic() > times[-1] + 10 * BACK_OFF_TO_SECONDS)
        assert len(stage.engine.calls) == 8
        assert not stage.scheduler.backing_off(rule())


async def test_a_rule_without_a_schedule_looks_at_everything_after_an_event_whose_look_failed() -> None:
    stage = Stage(rule(interval=None))
    stage.engine.outcomes = {"fra": "ok"}
    async with stage.running():
        await stage.until(lambda: len(stage.runs.recent) == 1)
        stage.engine.outcomes = {"fra": "failed"}
        stage.triggers.hint("hub", "app", "v1")
        await stage.until(lambda: len(stage.runs.recent) == 2)
        first = stage.engine.calls[1].at
        await stage.until(lambda: stage.clock.now() - START > first + 20)
        stage.triggers.hint("hub", "app", "v2")  # puts nothing off
        await stage.until(lambda: len(stage.runs.recent) == 3)
        stage.engine.outcomes = {"fra": "ok"}
        stage.triggers.hint("hub", "app", "v3")  # that this goes well says nothing of v1
        await stage.until(lambda: len(stage.runs.recent) == 5)
        assert [call.scope is None for call in stage.engine.calls[1:]] == [False, False, False, True]
        assert stage.engine.calls[-1].at - first == pytest.approx(60, abs=1)


async def test_what_failed_during_a_whole_look_is_looked_at_after_it() -> None:
    stage = Stage(rule(interval=None))
    async with stage.running():
        await stage.until(lambda: len(stage.engine.calls) == 1)
        stage.triggers.hint("hub", "app", "v1")
        await stage.until(lambda: len(stage.engine.calls) == 2)
        stage.engine.calls[1].end("fra", "failed")
        await stage.until(lambda: bool(stage.scheduler.backing_off(rule())))
        stage.engine.calls[0].end("fra")  # it may have been past app already
        await stage.until(lambda: len(stage.engine.calls) == 3)
        assert stage.engine.calls[2].scope is None


async def test_who_asks_meanwhile_saves_the_look_that_was_due_after_a_failure() -> None:
    stage = Stage(rule(interval=None))
    stage.engine.outcomes = {"fra": "failed"}
    async with stage.running():
        await stage.until(lambda: len(stage.runs.recent) == 1)
        stage.engine.outcomes = {"fra": "ok"}
        stage.triggers.submit("r", cause="api")
        await stage.until(lambda: stage.clock.monotonic() > BACK_OFF_TO_SECONDS)
        assert len(stage.engine.calls) == 2


async def test_a_paused_rule_does_not_run_and_a_resumed_one_does_at_once() -> None:
    stage = Stage(rule())
    stage.paused.add("r")
    async with stage.running():
        await stage.until(lambda: stage.clock.monotonic() > 50)
        assert not stage.triggers.submit("r", cause="api")
        assert stage.engine.calls == []
        stage.paused.discard("r")
        stage.scheduler.resumed("r")
        await stage.until(lambda: len(stage.engine.calls) == 1)


async def test_a_reload_leaves_runs_of_unchanged_rules_alone_and_drains_changed_ones() -> None:
    stage = Stage(rule("same"), rule("changed"), rule("gone"))
    async with stage.running():
        await stage.until(lambda: len(stage.engine.calls) == 3)
        old = stage.reload(rule("same"), replace(rule("changed"), recheck=1.0), rule("new"))
        await stage.until(lambda: len(stage.engine.of("changed")) == 2)
        assert not stage.engine.of("same")[0].drain.is_set()
        assert stage.engine.of("changed")[0].ended["fra"].outcome == "interrupted"
        assert stage.engine.of("gone")[0].ended["fra"].outcome == "interrupted"
        assert len(stage.engine.of("new")) == 1
        assert old.users == 2  # its owner, and the run that goes on
        stage.engine.of("same")[0].end("fra")
        await stage.until(lambda: old.users == 1)


async def test_an_event_joins_the_whole_run_that_goes_on_after_a_reload() -> None:
    stage = Stage(rule(interval=3600))
    async with stage.running():
        await stage.until(lambda: len(stage.engine.calls) == 1)
        old = stage.reload(rule(interval=3600))
        stage.triggers.hint("hub", "app", "v1")
        await stage.until(lambda: len(stage.engine.calls) == 2)
        assert stage.engine.calls[1].scope == RunScope({"app": frozenset({"v1"})})
        assert old.users == 3  # in one engine: runs that meet in a repository have to know of each other
        stage.engine.calls[0].end("fra")
        await stage.until(lambda: old.users == 2)
        stage.triggers.hint("hub", "app2", "v1")  # that would keep the config before in use for ever
        await stage.turns()
        assert len(stage.engine.calls) == 2
        stage.engine.calls[1].end("fra")
        await stage.until(lambda: len(stage.engine.calls) == 3)
        assert (old.users, stage.world.users) == (1, 2)


async def test_what_is_wanted_waits_for_a_run_that_is_drained_after_a_reload() -> None:
    stage = Stage(rule(interval=3600))
    stage.engine.slow_to_drain = True
    async with stage.running():
        await stage.until(lambda: len(stage.engine.calls) == 1)
        stage.reload(replace(rule(interval=3600), recheck=1.0))
        stage.triggers.hint("hub", "app", "v1")
        await stage.turns()
        assert len(stage.engine.calls) == 1
        stage.engine.calls[0].end("fra")
        await stage.until(lambda: len(stage.engine.calls) == 3)
        assert [call.scope is None for call in stage.engine.calls] == [True, True, False]
        for call in stage.engine.calls[1:]:
            call.end("fra")


async def test_stopping_drains_what_is_under_way_and_begins_nothing() -> None:
    stage = Stage(rule("a"), rule("b"))
    async with stage.running():
        await stage.until(lambda: len(stage.engine.calls) == 2)
        stage.triggers.submit("a", cause="api")
    assert len(stage.engine.calls) == 2
    assert all(call.ended["fra"].outcome == "interrupted" for call in stage.engine.calls)
    assert stage.runs.running == ()
    assert stage.world.users == 1


async def test_a_run_that_breaks_does_not_end_the_agent() -> None:
    stage = Stage(rule())

    async def broken(*_: Any, **__: Any) -> list[RuleResult]:
        raise RuntimeError("broken")

    stage.engine.sync, works = broken, stage.engine.sync  # type: ignore[method-assign]
    async with stage.running():
        await stage.until(lambda: len(stage.runs.recent) == 1)
        assert stage.runs.recent[0].error == "internal error: RuntimeError: broken"
        stage.engine.sync = works  # type: ignore[method-assign]
        await stage.until(lambda: len(stage.engine.calls) == 1)


async def test_runs_are_remembered_within_bounds() -> None:
    stage = Stage(rule())
    stage.engine.outcomes = {"fra": "ok"}
    async with stage.running():
        await stage.until(lambda: len(stage.engine.calls) > RUNS_KEPT + 10)
        assert len(stage.runs.recent) == RUNS_KEPT
        latest = stage.runs.recent[0]
        assert stage.runs.get(latest.id) is latest
        assert latest.report is not None
        assert latest.report.outcome == "ok"
