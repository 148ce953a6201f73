"""Lag: how far a destination may be behind (design.md, "Lag"). Pure; imports no database."""

from __future__ import annotations

from replicator.ports import Standing


def lag(standing: Standing, interval: float | None, now: float) -> float:
    """Seconds that the destination may be behind the source, as known at `now` (epoch seconds). Never negative.

    With tags pending: the age of the oldest. With nothing pending: 0 until the next look is overdue by one
    interval, from then on the age of the last complete look. Before the first complete look: the age of the
    rule, or of the oldest pending tag where that is greater.

    Args:
        standing: where the rule stands at the destination.
        interval: seconds between looks; None where nobody promised another look, so that none is overdue.
        now: the moment asked about.
    """
    if standing.last_look is None:
        oldest = standing.first_seen if standing.oldest_pending is None else standing.oldest_pending
        return max(0.0, now - min(standing.first_seen, oldest))
    if standing.pending and standing.oldest_pending is not None:
        return max(0.0, now - standing.oldest_pending)
    if interval is not None and now > standing.last_look + 2 * interval:
        return now - standing.last_look
    return 0.0
