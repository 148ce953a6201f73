"""Rules run once, with the commands around them: each rule that has any at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Sequence
from typing import Any, TypeVar

from replicator.engine import Engine, RuleResult
from replicator.events import Events, Warned
from replicator.policy.rule import Rule
from replicator.runs.hooks import HOOK_SECONDS, RunHooks

_T = TypeVar("_T")


class CommandedRuns:
    """Runs of rules, of which `commanded` (their names) have commands before or after them."""

    def __init__(
        self, engine: Engine, hooks: RunHooks, events: Events, commanded: Collection[str], *, recheck: bool
    ) -> None:
        self._engine = engine
        self._hooks = hooks
        self._events = events
        self._commanded = commanded
        self._recheck = recheck
        self._draining = False
        self._limits: dict[asyncio.Timeout, float] = {}

    def drain(self) -> None:
        """Ends it softly; once only. A command before a run is killed at once, one after it gets `HOOK_SECONDS`."""
        self._draining = True
        self._engine.drain()
        now = asyncio.get_running_loop().time()
        for limit, seconds in self._limits.items():
            limit.reschedule(now + seconds)

    async def run(self, rules: Sequence[Rule]) -> list[RuleResult]:
        """Their results, in their order; a rule that its command prevented did not run.

        Rules without commands run as one, and wait for nobody's command.

        Raises:
            StateError: the memory cannot be kept; where there are commands, in a group.
        """
        plain = [rule for rule in rules if rule.name not in self._commanded]
        if len(plain) == len(rules):
            return await self._engine.sync(rules, recheck=self._recheck)
        async with asyncio.TaskGroup() as tasks:
            together = tasks.create_task(self._engine.sync(plain, recheck=self._recheck))
            alone = [
                tasks.create_task(self._with_commands(rule)) for rule in rules if rule.name in self._commanded
            ]
        results = {result.rule: result for result in (*together.result(), *(each.result() for each in alone))}
        return [results[rule.name] for rule in rules]

    async def _with_commands(self, rule: Rule) -> RuleResult:
        before = self._hooks.before(rule, rule.destinations, None)
        result = await self._limited(before, 0.0, f"rule {rule.name}: run the command before")
        if result is None:
            (result,) = await self._engine.sync([rule], recheck=self._recheck)
        after = self._hooks.after(rule, result)
        await self._limited(after, HOOK_SECONDS, f"rule {rule.name}: run the command after")
        return result

    async def _limited(self, command: Coroutine[Any, Any, _T], seconds: float, what: str) -> _T | None:
        """What the command comes to; None where it was killed, for it had so long after a drain began, and was not done."""
        limit = asyncio.timeout(seconds if self._draining else None)
        try:
            async with limit:
                self._limits[limit] = seconds
                return await command
        except TimeoutError:
            self._events.emit(Warned(None, f"{what}: was killed, since we were told to end"))
            return None
        finally:
            self._limits.pop(limit, None)
