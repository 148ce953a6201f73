"""When something that was checked once is to be checked again. Pure."""

from __future__ import annotations

from math import floor
from typing import Final
from zlib import crc32

CLOCK_SLACK_SECONDS: Final = 60.0
"""A time further ahead than this was written while a clock ran ahead."""


def is_ahead(now: float, time: float) -> bool:
    """Whether a remembered time cannot be right, because it lies ahead. It is then ignored, as if it were not known."""
    return time > now + CLOCK_SLACK_SECONDS


def is_due(now: float, last: float | None, period: float, key: str) -> bool:
    """Whether something checked at `last` is to be checked now, so that it is checked once in every period.

    Each key has its own moment within the period, so that 50,000 tags that were copied at once do not all come due
    at once, and so that a check out of turn does not move the turns.

    Args:
        now: epoch seconds.
        last: when it was last checked; None for never. A time that is ahead of `now` counts as never.
        period: seconds; 0 makes everything due.
        key: what is checked.
    """
    if last is None or is_ahead(now, last) or period <= 0:
        return True
    phase = crc32(key.encode("utf-8", "surrogatepass")) / 2**32 * period
    return floor((now - phase) / period) > floor((min(last, now) - phase) / period)
