"""When a rule runs: cron expressions, right across the changes of clocks. Pure."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

JITTER: Final = 0.1
"""The largest part of an interval by which a rule's looks are moved, so that agents do not all ask at once."""


class Cron(msgspec.Struct, frozen=True):
    """Five cron fields in a time zone (None: not known yet).

    Across a change of clocks as Debian's cron does: what names a time that is skipped runs right after it, what names
    a time that comes twice runs once; what runs every hour or minute runs on.
    """

    expression: str
    timezone: ZoneInfo | None = None

    @classmethod
    def parse(cls, text: str) -> Cron:
        """Raises ValueError that says what is wrong."""
        if len(text.split()) != 5:
            raise ValueError(
                f'invalid cron expression {text[:80]!r}: write minute, hour, day, month, weekday, as in "*/5 * * * *"'
            )
        try:
            next(CronSim(text, dt.datetime(2026, 1, 1, tzinfo=dt.UTC)))
        except StopIteration:
            raise ValueError(f"{text!r} names a day that never comes") from None
        except CronSimError as error:
            raise ValueError(f"invalid cron expression {text[:80]!r}: {error}") from None
        return cls(text)

    def next_after(self, at: float) -> float:
        """The first time after `at`, both in epoch seconds."""
        start = dt.datetime.fromtimestamp(at, self.timezone or dt.UTC)
        return next(CronSim(self.expression, start)).timestamp()


def spread(agent: str, rule: str, interval: float) -> float:
    """Seconds, at most a tenth of the interval, by which this agent's looks for this rule are moved: always the same."""
    drawn = hashlib.sha256(f"{agent}\0{rule}".encode()).digest()[:8]
    return JITTER * interval * int.from_bytes(drawn) / 2**64


def promised_interval(interval: float | None, cron: Cron | None, last_look: float | None) -> float | None:
    """Seconds between looks, for lag: such that a look is overdue by one once two times have passed without any."""
    if cron is None or last_look is None:
        return interval
    return (cron.next_after(cron.next_after(last_look)) - last_look) / 2
