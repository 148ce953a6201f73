"""Brings destinations in step: observe -> plan -> transfer -> verify -> record. Knows ports only.

Users of the engine import from here; `observe`, `plan`, `content` and `transfer` are its inside.
"""

from __future__ import annotations

from replicator.engine.accounting import count_request, counted
from replicator.engine.content.spool import Spool
from replicator.engine.context import DRAIN_SECONDS, RunListener, RunScope
from replicator.engine.engine import Engine
from replicator.engine.plan.remembered import Memory, TagRoute, remembered
from replicator.engine.result import (
    ActionName,
    ActionOutcome,
    ActionResult,
    BlobTotals,
    ByteTotals,
    DecisionName,
    DestinationResult,
    Failure,
    FilterCount,
    Outcome,
    RuleResult,
    RunResult,
    TagDecision,
    TagTotals,
    Totals,
)

__all__ = [
    "DRAIN_SECONDS",
    "ActionName",
    "ActionOutcome",
    "ActionResult",
    "BlobTotals",
    "ByteTotals",
    "DecisionName",
    "DestinationResult",
    "Engine",
    "Failure",
    "FilterCount",
    "Memory",
    "Outcome",
    "RuleResult",
    "RunListener",
    "RunResult",
    "RunScope",
    "Spool",
    "TagDecision",
    "TagRoute",
    "TagTotals",
    "Totals",
    "count_request",
    "counted",
    "remembered",
]
