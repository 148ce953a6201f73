"""What agents tell each other about their runs, and the report of a run made from those of its shards. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from replicator.engine.result import DestinationResult, Outcome, RuleResult
from replicator.fleet.roster import REPOSITORIES_SAID, Doing
from replicator.report import RunCounts
from replicator.runs.current import Run

ACTIONS_KEPT: Final = 100
"""Of one shard at one destination; failures first."""
FAILURES_KEPT: Final = 100
MAX_TEXT: Final = 2_000
"""Characters of an error."""
_WORST: Final[Mapping[Outcome, int]] = {"ok": 0, "partial": 1, "interrupted": 2, "failed": 3}


class Piece(msgspec.Struct, frozen=True):
    """How a shard's run ended. `result` None: it broke (`error`)."""

    result: RuleResult | None
    error: str | None = None
    requests: int = 0
    retries: int = 0
    read: int = 0


@dataclass(frozen=True, slots=True)
class Gathered:
    """How all shards ended. `result` None: nothing was done. `error`: why shards broke, or None."""

    result: RuleResult | None
    counts: RunCounts
    error: str | None


def said_of(run: Run) -> Doing:
    """A run in progress, as heartbeats tell of it."""
    return Doing(
        rule=run.rule,
        destinations=run.destinations,
        shard="" if run.shard is None else str(run.shard),
        since=run.started_at,
        id=run.id,
        source=run.source,
        cause=run.cause,
        repositories=() if run.scope is None else tuple(sorted(run.scope.repositories)[:REPOSITORIES_SAID]),
    )


def packed(run: Run, result: RuleResult | None) -> dict[str, Any]:
    """A shard's run for the database, in bounded size."""
    if result is not None:
        kept = [
            msgspec.structs.replace(
                each,
                actions=sorted(each.actions, key=lambda action: action.outcome != "failed")[:ACTIONS_KEPT],
                failures=each.failures[:FAILURES_KEPT],
            )
            for each in result.destinations
        ]
        result = msgspec.structs.replace(result, destinations=kept)
    error = None if run.error is None else run.error[:MAX_TEXT]
    read = 0 if run.report is None else run.report.totals.bytes.read
    piece = Piece(result, error, run.totals.requests, run.totals.retries, read)
    plain: dict[str, Any] = msgspec.to_builtins(piece)
    return plain


def gathered(reports: Sequence[Mapping[str, Any]]) -> Gathered:
    """All shards in one. Skips shards that were not run, and reports of another version."""
    pieces = []
    for each in reports:
        with contextlib.suppress(msgspec.ValidationError):
            pieces.append(msgspec.convert(each, Piece))
    counts = RunCounts(
        requests=sum(each.requests for each in pieces),
        retries=sum(each.retries for each in pieces),
        bytes_read=sum(each.read for each in pieces),
    )
    errors = sorted({each.error for each in pieces if each.error})
    error = (
        None if not errors else errors[0] if len(errors) == 1 else f"{errors[0]}; and {len(errors) - 1} more"
    )
    return Gathered(summed([each.result for each in pieces if each.result is not None]), counts, error)


def summed(results: Sequence[RuleResult]) -> RuleResult | None:
    """The result of all shards. None: there is none."""
    if not results:
        return None
    whole: dict[str, DestinationResult] = {}
    for result in results:
        for each in result.destinations:
            if each.destination in whole:
                _add(whole[each.destination], each)
            else:
                whole[each.destination] = each
    for each in whole.values():
        if each.outcome == "failed" and (each.totals.tags.copied or each.totals.tags.unchanged):
            each.outcome = "partial"  # some shards failed as a whole, others did not
    return RuleResult(results[0].rule, results[0].source, list(whole.values()))


def _add(known: DestinationResult, more: DestinationResult) -> None:
    known.outcome = max(known.outcome, more.outcome, key=_WORST.__getitem__)
    known.totals.add(more.totals)
    for field in known.totals.tags.__struct_fields__:
        both = getattr(known.totals.tags, field) + getattr(more.totals.tags, field)
        setattr(known.totals.tags, field, both)
    known.totals.requests += more.totals.requests
    known.totals.retries += more.totals.retries
    known.warnings += [text for text in more.warnings if text not in known.warnings]
    known.failures += more.failures
    known.actions += more.actions
