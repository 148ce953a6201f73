"""Commands around a rule's run: `before` gets what is going to run and may prevent it, `after` gets the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from replicator.config.settings import RunCommands
from replicator.engine.result import DestinationResult, Failure, RuleResult
from replicator.errors import StateError
from replicator.events import Events, Failed, RunEnded, Warned
from replicator.policy.rule import Rule
from replicator.ports import Clock, RunRow, Standing, State
from replicator.runs.causes import failed_causes, reported_causes
from replicator.runs.command import run_command

if TYPE_CHECKING:
    from replicator.engine.context import RunScope

HOOK_SECONDS: Final = 5.0
"""Time for commands around runs when the program stops, in addition to the runs' `DRAIN_SECONDS`."""
_OPERATION: Final = "run the command before"


class RunHooks:
    """The commands of all rules."""

    def __init__(
        self, commands: Mapping[str, RunCommands], *, state: State, events: Events, clock: Clock
    ) -> None:
        self._commands = commands
        self._state = state
        self._events = events
        self._clock = clock

    async def before(
        self, rule: Rule, destinations: Sequence[str], scope: RunScope | None
    ) -> RuleResult | None:
        """Runs the rule's `before`. None: the run may begin; else it is prevented, with this result."""
        commands = self._commands.get(rule.name)
        if commands is None or not commands.before:
            return None
        told = {
            "version": 1,
            "event": "before",
            "rule": rule.name,
            "source": rule.source,
            "destinations": list(destinations),
            "repositories": None if scope is None else _plain(scope),
        }
        began = self._clock.now()
        problem = await _run(commands, commands.before, told)
        if problem is None:
            return None
        if not commands.before_required:
            self._events.emit(Warned(None, f"rule {rule.name}: {_OPERATION}: {problem}"))
            return None
        return await self.fail(
            rule, destinations, problem, began, operation=_OPERATION, narrowed=scope is not None
        )

    async def after(self, rule: Rule, result: RuleResult) -> None:
        """Runs the rule's `after`. If it fails, that is a warning in the log and in the report."""
        commands = self._commands.get(rule.name)
        if commands is None or not commands.after:
            return
        told = {"version": 1, "event": "after", "report": result, "causes": await self._causes(result)}
        problem = await _run(commands, commands.after, told)
        if problem is not None:
            text = f"rule {rule.name}: run the command after: {problem}"
            self._events.emit(Warned(None, text))
            for destination in result.destinations:
                destination.warnings.append(text)

    async def _causes(self, result: RuleResult) -> dict[str, list[str]]:
        """By destination, the first causes of failures: of this run, or of failed tags that it did not try again."""
        causes = {}
        for each in result.destinations:
            if each.failures or each.totals.tags.failed:
                causes[each.destination] = reported_causes(each) or await self._waiting(result.rule, each)
        return causes

    async def _waiting(self, rule: str, result: DestinationResult) -> list[str]:
        try:
            return await failed_causes(self._state, rule, result.destination)
        except StateError as error:
            return [str(error)]

    async def fail(
        self,
        rule: Rule,
        destinations: Sequence[str],
        problem: str,
        began: float,
        *,
        operation: str,
        narrowed: bool = False,
    ) -> RuleResult:
        """Records a run that failed as a whole, before its scan or because it was stuck. Counts do not change.

        Raises StateError.
        """
        reason = "command" if operation == _OPERATION else "stuck"
        results = []
        known = {each.destination: each for each in await self._state.standings([rule.name])}
        for name in destinations:
            stood = known.get(name) or Standing(rule.name, name, began)
            failure = Failure(rule.source, None, operation, problem, reason)
            results.append(DestinationResult(name, "failed", failures=[failure]))
            self._events.emit(Failed(rule.name, name, rule.source, None, operation, failure.reason, problem))
            row = RunRow(
                rule=rule.name,
                destination=name,
                started_at=began,
                ended_at=self._clock.now(),
                outcome="failed",
                complete_look=False,
                in_step=stood.in_step,  # nothing was scanned, so nothing changed
                held=stood.held,
                failed=0,
                error=f"{operation}: {problem}",
                narrowed=narrowed,
            )
            standing = await self._state.close_run(row)
            self._events.emit(
                RunEnded(
                    rule.name,
                    name,
                    "failed",
                    row.ended_at - began,
                    in_step=standing.in_step,
                    pending=standing.pending,
                    held=standing.held,
                    failed=standing.failed,
                )
            )
        return RuleResult(rule.name, rule.source, results)


async def _run(commands: RunCommands, argv: Sequence[str], told: Mapping[str, object]) -> str | None:
    return await run_command(
        argv,
        msgspec.json.encode(told),
        commands.timeout,
        env={name: secret() for name, secret in commands.env.items()},
    )


def _plain(scope: RunScope) -> dict[str, list[str] | None]:
    return {name: None if tags is None else sorted(tags) for name, tags in scope.repositories.items()}
