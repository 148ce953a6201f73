"""Bytes a second by time of day. Pure."""

from __future__ import annotations

import datetime as dt
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

MINUTES_A_DAY: Final = 24 * 60
LocalTime = int
"""Minutes since midnight, by the clock on the wall; 1440 is the midnight that ends the day."""
_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Window(msgspec.Struct, frozen=True):
    """A limit from one time to another on some days (0 is Monday). One that passes midnight is of the day it begins."""

    days: frozenset[int]
    begins: LocalTime
    ends: LocalTime
    limit: int

    def holds(self, weekday: int, minute: LocalTime) -> bool:
        """Whether it is open at this minute of this day."""
        if self.begins < self.ends:
            return weekday in self.days and self.begins <= minute < self.ends
        yesterday = (weekday - 1) % 7
        return (weekday in self.days and minute >= self.begins) or (
            yesterday in self.days and minute < self.ends
        )


class Bandwidth(msgspec.Struct, frozen=True):
    """Bytes a second: of the first window that holds, else `default` (None: no limit)."""

    default: int | None
    windows: tuple[Window, ...]
    timezone: ZoneInfo

    def at(self, now: float) -> int | None:
        """Bytes per second at this time (epoch seconds); None means unlimited."""
        local = dt.datetime.fromtimestamp(now, self.timezone)
        minute = local.hour * 60 + local.minute
        for window in self.windows:
            if window.holds(local.weekday(), minute):
                return window.limit
        return self.default


def parse_days(text: str) -> frozenset[int]:
    """Days such as `mon-fri`, `sat,sun`, `fri-mon`. Raises ValueError that says what is wrong."""
    found: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = (each.strip() for each in part.partition("-"))
        if first not in _WEEKDAYS or (dash and last not in _WEEKDAYS):
            raise ValueError(f'invalid days {text[:80]!r}; write them as in "mon-fri" or "sat,sun"')
        begin, end = _WEEKDAYS.index(first), _WEEKDAYS.index(last if dash else first)
        found.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return frozenset(found)


def parse_time(text: str) -> LocalTime:
    """A time such as `08:00`. Raises ValueError that says what is wrong."""
    hour, _, minute = text.partition(":")
    if len(hour) == len(minute) == 2 and f"{hour}{minute}".isascii() and f"{hour}{minute}".isdigit():
        minutes = int(hour) * 60 + int(minute)
        if int(minute) < 60 and minutes <= MINUTES_A_DAY:
            return minutes
    raise ValueError(f'invalid time of day {text[:80]!r}; write "08:00", from 00:00 to 24:00')
