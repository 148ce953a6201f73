"""When a tag that failed may be tried again by a run that nobody is waiting for. Pure."""

from __future__ import annotations

from typing import Final

FIRST_SECONDS: Final = 30.0
LONGEST_SECONDS: Final = 3600.0


def retry_at(now: float, attempts: int) -> float:
    """When a tag that failed `attempts` times may be tried again (epoch seconds): after 30 s, doubled up to 1 h."""
    return now + min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(max(attempts - 1, 0), 12))


def is_postponed(now: float, not_before: float) -> bool:
    """Whether a tag is still to wait. A time that no failure up to now can have set is ignored."""
    return now < not_before <= now + LONGEST_SECONDS
