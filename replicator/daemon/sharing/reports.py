"""The report of a look whose shards were done by several agents: one result out of theirs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from replicator.engine import DestinationResult, Outcome, RuleResult

ACTIONS_KEPT: Final = 100
"""Of one shard at one destination; failures first."""
FAILURES_KEPT: Final = 100
_WORST: Final[Mapping[Outcome, int]] = {"ok": 0, "partial": 1, "interrupted": 2, "failed": 3}


def packed(result: RuleResult) -> dict[str, Any]:
    """A shard's result for the database, in bounded size."""
    kept = [
        msgspec.structs.replace(
            each,
            actions=sorted(each.actions, key=lambda action: action.outcome != "failed")[:ACTIONS_KEPT],
            failures=each.failures[:FAILURES_KEPT],
        )
        for each in result.destinations
    ]
    plain: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(result, destinations=kept))
    return plain


def unpacked(reports: Sequence[Mapping[str, Any]]) -> RuleResult | None:
    """The result of all shards. None: there is none, or another version wrote them."""
    try:
        results = [msgspec.convert(each, RuleResult) for each in reports]
    except msgspec.ValidationError:
        return None
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
