"""The run that work is done for: its facts, and the context in which log lines find it."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from replicator.engine.result import DestinationResult, RunResult, Totals
from replicator.model.shards import Shard

if TYPE_CHECKING:
    from replicator.engine.context import RunScope

Cause = Literal["start", "interval", "cron", "webhook", "api", "retry"]
"""What starts a run. `retry`: an earlier run had failures, and the rule has no schedule to repeat it."""


@dataclass(eq=False)
class Run:
    """One run of one rule. `report` and `ended_at` (epoch seconds) are None while it is in progress.

    `totals` has its requests and retries, counted by `engine.counted`; the rest is in the report.
    `left` are the destinations that are not finished, `ended` the results of the others.
    `shard`: the part of the rule's repositories that it looks at, in a fleet. `actions_left_out` counts actions of the report that are not kept.
    """

    id: str
    rule: str
    source: str
    destinations: tuple[str, ...]
    cause: Cause
    scope: RunScope | None
    started_at: float
    left: set[str]
    shard: Shard | None = None
    totals: Totals = field(default_factory=Totals)
    ended: dict[str, DestinationResult] = field(default_factory=dict)
    ended_at: float | None = None
    report: RunResult | None = None
    error: str | None = None
    actions_left_out: int = 0

    def results(self) -> Iterator[DestinationResult]:
        """The result of each destination that is finished."""
        if self.report is None:
            yield from self.ended.values()
        else:
            for rule in self.report.rules:
                yield from rule.destinations


_CURRENT: Final[ContextVar[Run | None]] = ContextVar("run", default=None)


def context_of(run: Run) -> Context:
    """A copy of the context in which `current_run` is `run`, for the tasks of the run."""
    context = copy_context()
    context.run(_CURRENT.set, run)
    return context


def current_run() -> Run | None:
    """The run that the current task works for; None in commands without an agent."""
    return _CURRENT.get()
