"""Runs of this process: those in progress, and the last ones with their reports, in bounded memory."""

from __future__ import annotations

import itertools
from collections import deque
from typing import Final

from replicator.engine.context import RunScope
from replicator.engine.result import DestinationResult, RuleResult
from replicator.model.shards import Shard
from replicator.report import RunCounts, combine
from replicator.runs.current import Cause, Run

RUNS_KEPT: Final = 200
ACTIONS_KEPT: Final = 1_000
"""Per destination of a run that has ended; failures first. The first run of a rule may have a hundred thousand."""
ACTIONS_KEPT_IN_ALL: Final = 50_000


class Runs:
    """The runs of this process."""

    def __init__(self) -> None:
        self.prefix = ""
        """Of ids: in a fleet, the agent's name and a hyphen."""
        self._numbers = itertools.count(1)
        self._running: dict[str, Run] = {}
        self._recent: deque[Run] = deque()
        self._actions = 0

    @property
    def running(self) -> tuple[Run, ...]:
        """Runs in progress, in the order they began."""
        return tuple(self._running.values())

    @property
    def recent(self) -> tuple[Run, ...]:
        """Runs that ended, the latest first; at most `RUNS_KEPT`."""
        return tuple(self._recent)

    def get(self, run_id: str) -> Run | None:
        """The run with this id, while it is remembered."""
        return self._running.get(run_id) or next((run for run in self._recent if run.id == run_id), None)

    def begin(
        self,
        *,
        rule: str,
        source: str,
        destinations: tuple[str, ...],
        cause: Cause,
        scope: RunScope | None,
        at: float,
        shard: Shard | None = None,
    ) -> Run:
        """A run begins. Ids are unique across restarts, with the `prefix` in the fleet."""
        run_id = f"{self.prefix}{int(at)}-{next(self._numbers)}"
        run = Run(run_id, rule, source, destinations, cause, scope, at, set(destinations), shard)
        self._running[run_id] = run
        return run

    def end(self, run: Run, result: RuleResult | None, *, at: float, error: str | None = None) -> None:
        """The run has ended, with a result or because of `error`."""
        del self._running[run.id]
        run.ended_at, run.error = at, error
        run.left.clear()
        results = [] if result is None else [result]
        counts = RunCounts(
            requests=run.totals.requests,
            retries=run.totals.retries,
            bytes_read=sum(each.totals.bytes.read for r in results for each in r.destinations),
        )
        run.report = combine(
            results, counts, started_at=run.started_at, seconds=max(0.0, at - run.started_at)
        )
        if result is None:
            run.report.outcome = "failed"
        for destination in result.destinations if result else ():
            run.actions_left_out += shorten(destination)
        run.ended.clear()
        self._recent.appendleft(run)
        self._actions += _actions(run)
        while len(self._recent) > RUNS_KEPT or (
            len(self._recent) > 1 and self._actions > ACTIONS_KEPT_IN_ALL
        ):
            self._actions -= _actions(self._recent.pop())


def shorten(result: DestinationResult) -> int:
    """Drops actions beyond the bound, successful ones first. Returns how many."""
    surplus = len(result.actions) - ACTIONS_KEPT
    if surplus <= 0:
        return 0
    kept = sorted(result.actions, key=lambda action: action.outcome != "failed")
    result.actions = kept[:ACTIONS_KEPT]
    return surplus


def _actions(run: Run) -> int:
    if run.report is None:
        return 0
    return sum(len(each.actions) for rule in run.report.rules for each in rule.destinations)
