"""What is in progress at one destination of one rule, and how long it waits after failures."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from replicator.daemon.generation import Generation
from replicator.daemon.triggers import Want
from replicator.engine.result import Outcome, RuleResult
from replicator.errors import ReplicatorError
from replicator.policy.rule import Rule
from replicator.ports import Assignment
from replicator.runs.current import Cause, Run

BACK_OFF_FROM_SECONDS: Final = 60.0
BACK_OFF_TO_SECONDS: Final = 900.0
"""How long a destination at which nothing succeeds waits: twice as long each time, at least the rule's interval.

For a rule without a schedule, also how long it waits after failures until it looks again.
"""


@dataclass(eq=False)
class ActiveRun:
    """One run in progress.

    `scanned`: destinations where all that the scan found is decided on, so that the next scan may begin; copies go on.
    `done`: destinations and source repositories that are through. `assignment`: the part of the rule that it does for a
    fleet. `result`, or the `error` that there is instead, once it has ended.
    """

    run: Run
    rule: Rule
    want: Want
    generation: Generation
    assignment: Assignment | None = None
    result: RuleResult | None = None
    error: ReplicatorError | None = None
    drain: asyncio.Event = field(default_factory=asyncio.Event)
    stuck: str | None = None
    """Why it was ended: it made no progress."""
    scanned: set[str] = field(default_factory=set)
    done: set[tuple[str, str]] = field(default_factory=set)


@dataclass(eq=False)
class Lane:
    """One destination of one rule. `owed`: it runs whole at `not_before`, because of this."""

    destination: str
    active: set[ActiveRun] = field(default_factory=set)
    failures: int = 0
    not_before: float = 0.0
    owed: Cause | None = None

    @property
    def is_scanning(self) -> bool:
        """Whether a whole scan is in progress here; copies of earlier ones may go on beside it."""
        return any(active.want.whole and self.destination not in active.scanned for active in self.active)

    @property
    def narrowed_scans(self) -> int:
        """Scans for events that are in progress here."""
        return sum(not active.want.whole and self.destination not in active.scanned for active in self.active)

    @property
    def busy(self) -> set[str]:
        """Source repositories that narrowed runs are not through with."""
        return {
            name
            for active in self.active
            for name in active.want.repositories
            if (self.destination, name) not in active.done
        }

    def note(self, active: ActiveRun, outcome: Outcome, now: float) -> None:
        """How a run ended here: when it is worth trying again."""
        rule, whole = active.rule, active.want.whole
        if rule.interval is None and rule.cron is None:
            self._note_unscheduled(outcome, now, whole=whole)
        elif outcome in {"ok", "partial"}:
            self.failures, self.not_before = 0, 0.0
        elif outcome == "failed" and whole:
            self.failures += 1
            self.not_before = now + back_off(self.failures, rule.interval)

    def _note_unscheduled(self, outcome: Outcome, now: float, *, whole: bool) -> None:
        """After failures it looks at everything again in a while: no tick would ever make up for them."""
        if outcome in {"failed", "partial"}:
            self.failures += 1 if whole else 0
            if whole or self.owed is None:
                self.owed = "retry"
                self.not_before = now + max(BACK_OFF_FROM_SECONDS, back_off(self.failures, None))
        elif outcome == "ok" and whole:
            self.failures = 0
            if self.owed is None:  # else an event's look failed meanwhile
                self.not_before = 0.0


def back_off(failures: int, interval: float | None) -> float:
    """Seconds to wait after the last of this many failed runs in a row until the next one is worth trying."""
    if failures < 2:
        return 0.0
    base = BACK_OFF_FROM_SECONDS if interval is None else interval
    return float(min(base * 2 ** min(failures - 1, 30), max(base, BACK_OFF_TO_SECONDS)))
