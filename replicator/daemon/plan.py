"""When a rule is due. Pure: times come in, none is asked for."""

from __future__ import annotations

from replicator.policy.rule import Rule
from replicator.policy.schedule import spread
from replicator.runs.current import Cause

_BACK_SECONDS = 60.0
"""A wall clock set back by more is a jump."""


class Plan:
    """When one rule runs next.

    An interval is counted on the steady clock and on the wall clock, whichever says so first: so neither a wall clock
    set back nor a machine that slept delays it. Cron is the wall clock's alone; set back, it is reckoned anew. However
    many times were missed, the rule is due once.

    Args:
        rule: the rule.
        agent: the agent's name, which spreads intervals.
        last_look: the oldest last look of its destinations (epoch seconds), None where one was never served.
        now: epoch seconds.
        monotonic: seconds of the steady clock.
    """

    def __init__(
        self, rule: Rule, agent: str, *, last_look: float | None, now: float, monotonic: float
    ) -> None:
        self.rule = rule
        self.cause: Cause = "start"
        self._spread = 0.0 if rule.interval is None else spread(agent, rule.name, rule.interval)
        self._seen = now
        self.next_run: float | None = self._first(last_look, now)
        """Epoch seconds; None: not by itself."""
        self._steady = None if self.next_run is None else monotonic + self.next_run - now

    def _first(self, last_look: float | None, now: float) -> float | None:
        rule = self.rule
        if last_look is None or last_look > now or (rule.interval is None and rule.cron is None):
            return now
        after = rule.cron.next_after(last_look) if rule.cron else last_look + (rule.interval or 0.0)
        if after <= now:
            return now
        self.cause = "cron" if rule.cron else "interval"
        return after + self._spread

    def is_due(self, now: float, monotonic: float) -> bool:
        """Whether the rule is to run now."""
        if self.rule.cron and now < self._seen - _BACK_SECONDS and self.cause == "cron":
            self.next_run = self.rule.cron.next_after(now)
        self._seen = now
        if self.next_run is None:
            return False
        if now >= self.next_run:
            return True
        return self.cause != "cron" and self._steady is not None and monotonic >= self._steady

    def advance(self, now: float, monotonic: float) -> None:
        """It was due, and is due again one interval or cron time later."""
        first = self.cause == "start"
        if self.rule.cron:
            self.cause, self.next_run, self._steady = "cron", self.rule.cron.next_after(now), None
        elif self.rule.interval is None:
            self.next_run = self._steady = None
        else:
            step = self.rule.interval + (self._spread if first else 0.0)
            late = 0.0 if self._steady is None else monotonic - self._steady
            wait = step - late if 0 <= late < step else step
            self.cause, self.next_run, self._steady = "interval", now + wait, monotonic + wait

    def seconds_left(self, now: float, monotonic: float) -> float | None:
        """Until it is due; None: not by itself."""
        if self.next_run is None:
            return None
        left = self.next_run - now
        return left if self._steady is None else min(left, self._steady - monotonic)
