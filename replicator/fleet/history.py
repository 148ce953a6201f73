"""Runs of a fleet as all its agents know them: those of whole rules, with their shards, and those for single repositories. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from replicator.engine.result import Failure, Outcome


class FailureAt(msgspec.Struct, frozen=True):
    """A failure of a run at one of its destinations."""

    destination: str
    failure: Failure


class PastRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has ended. Times in epoch seconds: by the database's clock in the database, else by the reader's.

    Args:
        id: unique in the fleet.
        rule: the rule's name.
        source: its source.
        destinations: those of the run.
        cause: as of runs.
        repositories: the source repositories that it was narrowed to; None: all.
        shard: which part of the repositories it was about, as "3/64"; None: all.
        shards: how many parts it had; None: it was not divided.
        agents: who did it.
        started: when it began.
        ended: when the last part of it ended.
        outcome: of the report, the worst.
        error: why it broke, or parts of it; None: it did not.
        failures: the first few.
        report: a `RunResult`; None where it is not asked for.
        actions_left_out: how many are not in the report.
    """

    id: str
    rule: str
    source: str
    destinations: tuple[str, ...]
    cause: str
    repositories: tuple[str, ...] | None = None
    shard: str | None = None
    shards: int | None = None
    agents: tuple[str, ...]
    started: float
    ended: float
    outcome: Outcome
    error: str | None = None
    failures: tuple[FailureAt, ...] = ()
    report: dict[str, Any] | None = None
    actions_left_out: int = 0


@dataclass(frozen=True, slots=True)
class OpenLook:
    """A run of a whole rule that is in progress: `through` of its `shards` have ended. `started` in epoch seconds."""

    id: str
    rule: str
    source: str
    destinations: tuple[str, ...]
    cause: str
    shards: int
    through: int
    started: float


@dataclass(frozen=True, slots=True)
class FleetRuns:
    """What an agent knows of the fleet's runs; `past`: the latest first. Times by its own clock."""

    looks: Sequence[OpenLook] = ()
    past: Sequence[PastRun] = ()


def look_id(rule: str, started: float) -> str:
    """The id of a run of a whole rule that began then (epoch seconds by the database's clock)."""
    return f"{rule}-{int(started * 1000)}"
