"""Runs rules once, with the commands around them. Rules do not wait for commands of other rules."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from replicator.events import Events, Warned
from replicator.policy.rule import Rule
from replicator.runs.hooks import HOOK_SECONDS, RunHooks

if TYPE_CHECKING:
    from replicator.engine.context import RunScope
    from replicator.engine.engine import Engine
    from replicator.engine.result import RuleResult

_T = TypeVar("_T")


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
        self._events = events
        self._commanded = commanded
        self._recheck = recheck
        self._scope = scope
        self._draining = False
        self._limits: dict[asyncio.Timeout, float] = {}

    def drain(self) -> None:
        """Stops gracefully; call it once. A command before a run is killed at once, one after it gets `HOOK_SECONDS`."""
        self._draining = True
        self._engine.drain()
        now = asyncio.get_running_loop().time()
        for limit, seconds in self._limits.items():
            limit.reschedule(now + seconds)

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
        result = await self._limited(before, 0.0, f"rule {rule.name}: run the command before")
        if result is None:
            (result,) = await self._engine.sync([rule], recheck=self._recheck, scope=self._scope)
        after = self._hooks.after(rule, result)
        await self._limited(after, HOOK_SECONDS, f"rule {rule.name}: run the command after")
        return result

    async def _limited(self, command: Coroutine[Any, Any, _T], seconds: float, what: str) -> _T | None:
        """The result of the command; None if it was killed because it was not done `seconds` after a drain began."""
        limit = asyncio.timeout(seconds if self._draining else None)
        try:
            async with limit:
                self._limits[limit] = seconds
                return await command
        except TimeoutError:
            self._events.emit(Warned(None, f"{what}: killed because replicator is shutting down"))
            return None
        finally:
            self._limits.pop(limit, None)
