"""Runs rules once, with the commands around them. Rules do not wait for commands of other rules."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from replicator.events import Events
from replicator.policy.rule import Rule
from replicator.runs.hooks import RunHooks
from replicator.runs.limited import CommandLimits

if TYPE_CHECKING:
    from replicator.engine.context import RunScope
    from replicator.engine.engine import Engine
    from replicator.engine.result import RuleResult


class CommandedRuns:
    """Runs of rules, of which `commanded` (their names) have commands before or after them."""

    def __init__(
        self,
        engine: Engine,
        hooks: RunHooks,
        events: Events,
        commanded: Collection[str],
        *,
        recheck: bool,
        scope: RunScope | None = None,
    ) -> None:
        self._engine = engine
        self._hooks = hooks
        self._commanded = commanded
        self._recheck = recheck
        self._scope = scope
        self._limits = CommandLimits(events)

    def drain(self) -> None:
        """Stops gracefully; call it once. A command before a run is killed at once, one after it gets `HOOK_SECONDS`."""
        self._engine.drain()
        self._limits.drain()

    async def run(self, rules: Sequence[Rule]) -> list[RuleResult]:
        """Results in the order of the rules. A rule whose `before` failed has not run.

        Rules without commands run together and wait for no command.

        Raises:
            StateError: the state cannot be written; in an exception group if there are commands.
        """
        plain = [rule for rule in rules if rule.name not in self._commanded]
        if len(plain) == len(rules):
            return await self._engine.sync(rules, recheck=self._recheck, scope=self._scope)
        async with asyncio.TaskGroup() as tasks:
            together = tasks.create_task(self._engine.sync(plain, recheck=self._recheck, scope=self._scope))
            alone = [
                tasks.create_task(self._with_commands(rule)) for rule in rules if rule.name in self._commanded
            ]
        results = {result.rule: result for result in (*together.result(), *(each.result() for each in alone))}
        return [results[rule.name] for rule in rules]

    async def _with_commands(self, rule: Rule) -> RuleResult:
        before = self._hooks.before(rule, rule.destinations, self._scope)
        result = await self._limits.before(rule.name, before)
        if result is None:
            (result,) = await self._engine.sync([rule], recheck=self._recheck, scope=self._scope)
        after = self._hooks.after(rule, result)
        await self._limits.after(rule.name, after)
        return result
