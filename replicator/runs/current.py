"""The run that something is done for: its facts, and the context that its log lines find it in."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Final, Literal

from replicator.engine import DestinationResult, RunResult, RunScope, Totals

Cause = Literal["start", "interval", "cron", "webhook", "api", "retry"]
"""What starts a run. `retry`: an earlier one had failures, and nothing else would make the rule look again."""


@dataclass(eq=False)
class Run:
    """One run of one rule. `report` and `ended_at` (epoch seconds) are None while it is in progress.

    `totals` has its requests and retries, by `engine.counted`; the rest is in the report.
    `left` are the destinations that are not through yet, `ended` the results of those that are.
    `actions_left_out` counts what the report had and is not kept.
    """

    id: str
    rule: str
    source: str
    destinations: tuple[str, ...]
    cause: Cause
    scope: RunScope | None
    started_at: float
    left: set[str]
    totals: Totals = field(default_factory=Totals)
    ended: dict[str, DestinationResult] = field(default_factory=dict)
    ended_at: float | None = None
    report: RunResult | None = None
    error: str | None = None
    actions_left_out: int = 0

    def results(self) -> Iterator[DestinationResult]:
        """Of each destination that is through."""
        if self.report is None:
            yield from self.ended.values()
        else:
            for rule in self.report.rules:
                yield from rule.destinations


_CURRENT: Final[ContextVar[Run | None]] = ContextVar("run", default=None)


def context_of(run: Run) -> Context:
    """For the run's task: the context as it is, with `run` as `current_run` of what is begun in it."""
    context = copy_context()
    context.run(_CURRENT.set, run)
    return context


def current_run() -> Run | None:
    """The run that this is done for; None where it is for none, as in a command that runs no agent."""
    return _CURRENT.get()
