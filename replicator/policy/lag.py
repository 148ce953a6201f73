"""Lag: how far a destination may be behind. Pure."""

from __future__ import annotations

from replicator.policy.recheck import is_ahead
from replicator.ports import Standing


def lag(standing: Standing, interval: float | None, now: float) -> float:
    """Seconds that the destination may be behind the source, as known at `now` (epoch seconds). Never negative.

    The age of the oldest pending tag, an unresolved one included; 0 with nothing pending. Once the next scan is
    overdue by one interval, no less than the age of the last complete scan. Before the first complete scan, no less
    than the age of the rule.

    Args:
        standing: where the rule stands at the destination. A time in it that lies ahead of `now` is ignored.
        interval: seconds between scans; None where nobody promised another one, so that none is overdue.
        now: the moment asked about.
    """
    oldest = now if standing.oldest_pending is None else standing.oldest_pending
    look = standing.last_look
    if look is None or is_ahead(now, look):
        return max(0.0, now - min(standing.first_seen, oldest))
    if interval is not None and now > look + 2 * interval:
        oldest = min(oldest, look)
    return max(0.0, now - oldest)
