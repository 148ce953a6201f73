"""Commands around runs, without a run. How the program runs them is tests/acceptance/test_run_hooks.py."""

from __future__ import annotations

from replicator.config.build import RunCommands
from replicator.engine import RunScope
from replicator.events import Events
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule
from replicator.ports import RunRow
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
