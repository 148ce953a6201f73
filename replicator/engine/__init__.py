"""Brings destinations in step: observe -> plan -> transfer -> verify -> record. Knows ports only.

Users of the engine import from here; `observe`, `plan`, `content` and `transfer` are its inside. A name is imported from there
when it is first used: a command that only prints results, or that has yet to ask a site, does without the engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
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

_MODULES: Final = {
    "accounting": (
        "count_request",
        "counted",
    ),
    "content.spool": ("Spool",),
    "context": (
        "DRAIN_SECONDS",
        "RunListener",
        "RunScope",
    ),
    "engine": ("Engine",),
    "plan.remembered": (
        "Memory",
        "TagRoute",
        "remembered",
    ),
    "result": (
        "ActionName",
        "ActionOutcome",
        "ActionResult",
        "BlobTotals",
        "ByteTotals",
        "DecisionName",
        "DestinationResult",
        "Failure",
        "FilterCount",
        "Outcome",
        "RuleResult",
        "RunResult",
        "TagDecision",
        "TagTotals",
        "Totals",
    ),
}
_HOMES: Final = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
