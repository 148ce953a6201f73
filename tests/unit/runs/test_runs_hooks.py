"""Commands around runs, without a run. How the program runs them is tests/acceptance/test_run_hooks.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from replicator.config.settings import RunCommands
from replicator.engine.context import RunScope
from replicator.engine.result import DestinationResult, Failure, RuleResult
from replicator.events import Events
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule
from replicator.ports import Missing, Pending, RunRow
from replicator.runs.hooks import RunHooks
from replicator.state.memory import MemoryState
from tests.fakes.clock import FakeClock

RULE = Rule("r", "hub", ("fra",), RepositorySelection((Glob.parse("**"),)))


async def test_a_run_that_a_command_prevents_is_the_rules_error_and_changes_no_count() -> None:
    state, clock = MemoryState(FakeClock()), FakeClock()
    before = await state.close_run(
        RunRow("r", "fra", clock.now(), clock.now(), "ok", True, in_step=7, held=2, failed=0)
    )
    hooks = RunHooks({"r": RunCommands(before=("false",))}, state=state, events=Events(), clock=clock)
    # One that an event narrowed sets no error that later events' runs, which went well, would leave standing.
    for scope, error in (
        (RunScope({"app": frozenset({"v1"})}), ""),
        (None, "run the command before: false ended with 1"),
    ):
        clock.advance(60)
        result = await hooks.before(RULE, ["fra"], scope)
        assert result is not None
        assert result.destinations[0].outcome == "failed"
        (standing,) = await state.standings(["r"])
        assert standing.last_error == error
        assert (standing.in_step, standing.held, standing.last_look) == (7, 2, before.last_look)


async def test_the_command_after_gets_the_first_causes(tmp_path: Path) -> None:
    state, file = MemoryState(FakeClock()), tmp_path / "told"
    code = f"import sys; open({str(file)!r}, 'w').write(sys.stdin.read())"
    commands = {"r": RunCommands(after=(sys.executable, "-c", code))}
    hooks = RunHooks(commands, state=state, events=Events(), clock=FakeClock())
    waiting = Pending("app", "v1", None, since=1.0, attempts=3, error="hub: app: read manifest: corrupt")
    state.record(Missing("r", "fra", waiting))
    fine, tried, postponed = (DestinationResult(name) for name in ("ams", "muc", "fra"))
    tried.failures = [Failure("muc", "app", "write blob", f"refused {number}") for number in range(5)]
    postponed.totals.tags.failed = 1
    await hooks.after(RULE, RuleResult("r", "hub", [fine, tried, postponed]))
    assert json.loads(file.read_text())["causes"] == {
        "muc": [f"muc: app: write blob: refused {number}" for number in range(3)],
        "fra": ["app:v1: hub: app: read manifest: corrupt"],
    }
