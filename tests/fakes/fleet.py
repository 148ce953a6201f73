"""A fleet of three agents, as one of them knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from replicator.engine.result import RunResult
from replicator.fleet.history import FleetRuns, OpenLook, PastRun
from replicator.fleet.roster import Agent, Doing, Roster

DEAD = 20.0


def roster(now: float, *, is_current: bool = True) -> Roster:
    """One agent at work, one that drains, with a clock ten minutes ahead, and one that is lost; `now`: the reader's time."""
    seen = 5_000.0  # by the database's clock
    doing = (
        Doing("platform", ("fra",), "3/64", seen - 30, "a-1-1", "hub", "interval"),
        Doing("platform", ("fra",), "9/64", seen - 10, "a-1-2", "hub", "webhook", ("platform/<b>app</b>",)),
    )
    return Roster(
        (
            Agent("a", "1.0.0", ("fra",), ("fra", "hub"), 2.0, seen - 3600, False, doing, 0.0, seen),
            Agent("b", "1.0.1", None, (), 1.0, seen + 600 - 60, draining=True, clock_skew=600.0, seen=seen),
            Agent("c", "1.0.0", None, ("hub",), 90.0, seen - 3600, False, doing[:1], 0.0, seen),
        ),
        now,
        DEAD,
        is_current,
    )


@dataclass
class FakeHistory:
    """`daemon.http.agent.FleetHistory`."""

    looks: Sequence[OpenLook] = ()
    past: Sequence[PastRun] = ()
    reports: dict[str, RunResult] = field(default_factory=dict)

    def __call__(self) -> FleetRuns:
        return FleetRuns(self.looks, self.past)

    async def report(self, run_id: str) -> RunResult | None:
        return self.reports.get(run_id)


@dataclass
class FakeSharing:
    """`daemon.http.agent.Shared`."""

    roster: Roster
    history: FakeHistory = field(default_factory=FakeHistory)
