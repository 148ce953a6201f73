"""Commands around the runs of `sync`, as far as no process is needed to see it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from replicator.engine.engine import Engine
from replicator.engine.result import DestinationResult, RuleResult
from replicator.events import Event, Events, Warned
from replicator.policy.rule import Rule
from replicator.runs import limited
from replicator.runs.hooks import RunHooks
from replicator.runs.once import CommandedRuns
from tests.fakes.agent import simple_rule


class QuickEngine:
    """Runs that end at once, and as interrupted where a drain has begun."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.draining = False

    def drain(self) -> None:
        self.draining = True

    async def sync(self, rules: Sequence[Rule], *, recheck: bool, scope: object) -> list[RuleResult]:
        self.calls.append([rule.name for rule in rules])
        outcome: Any = "interrupted" if self.draining else "ok"
        return [RuleResult(rule.name, rule.source, [DestinationResult("fra", outcome)]) for rule in rules]


class ScriptedHooks:
    """Commands that go on until the test lets them end, or somebody kills them."""

    def __init__(self) -> None:
        self.begun: dict[str, asyncio.Event] = {name: asyncio.Event() for name in ("before", "after")}
        self.let: dict[str, asyncio.Event] = {name: asyncio.Event() for name in ("before", "after")}

    async def before(self, *_: object) -> RuleResult | None:
        self.begun["before"].set()
        await self.let["before"].wait()
        return None

    async def after(self, *_: object) -> None:
        self.begun["after"].set()
        await self.let["after"].wait()


class Stage:
    def __init__(self) -> None:
        self.engine, self.hooks, self.events = QuickEngine(), ScriptedHooks(), Events()
        self.told: list[Event] = []
        self.events.subscribe(self.told.append)
        engine, hooks = cast("Engine", self.engine), cast("RunHooks", self.hooks)
        self.runs = CommandedRuns(engine, hooks, self.events, {"slow"}, recheck=False)
        self.rules = [simple_rule("slow"), simple_rule("a"), simple_rule("b")]

    @property
    def warnings(self) -> list[str]:
        return [event.text for event in self.told if isinstance(event, Warned)]


async def test_rules_without_commands_run_together_and_results_keep_their_order() -> None:
    stage = Stage()
    stage.hooks.let["before"].set()
    stage.hooks.let["after"].set()
    results = await stage.runs.run(stage.rules)
    assert sorted(stage.engine.calls) == [["a", "b"], ["slow"]]
    assert [result.rule for result in results] == ["slow", "a", "b"]
    assert not stage.warnings


async def test_a_drain_kills_a_command_before_a_run_and_the_run_is_interrupted() -> None:
    stage = Stage()
    stage.hooks.let["after"].set()
    running = asyncio.create_task(stage.runs.run(stage.rules))
    await stage.hooks.begun["before"].wait()
    stage.runs.drain()
    results = await running
    assert [result.destinations[0].outcome for result in results] == ["interrupted", "ok", "ok"]
    assert stage.warnings == ["rule slow: run the command before: killed because replicator is shutting down"]


@pytest.mark.parametrize("when", ["while it runs", "before it runs"])
async def test_a_command_after_a_run_has_an_end_once_a_drain_began(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited, "HOOK_SECONDS", 0.01)
    stage = Stage()
    running = asyncio.create_task(stage.runs.run(stage.rules))
    await stage.hooks.begun["before"].wait()
    if when == "while it runs":
        stage.hooks.let["before"].set()
        await stage.hooks.begun["after"].wait()
    stage.runs.drain()
    await running
    assert (
        stage.warnings[-1] == "rule slow: run the command after: killed because replicator is shutting down"
    )
