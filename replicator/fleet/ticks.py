"""When a rule of a fleet is due: the same moment at every agent, whenever that started. Pure: the time is told.

An interval is counted from the epoch, moved by what the rule's name gives, so that nothing needs to be agreed upon. The
times are those of the database's clock.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec.structs import replace

from replicator.policy.rule import Rule
from replicator.policy.schedule import Cron, spread

RETRY_SECONDS: Final = 900.0
"""A rule without a schedule is looked at again after this long while something of it fails, or it was never looked at."""
_WINDOWS: Final = (3600.0, 86_400.0, 32 * 86_400.0, 367 * 86_400.0)


@dataclass(frozen=True, slots=True)
class Tick:
    """A moment at which a rule is due, in milliseconds: its name in the database. `cause` as of runs."""

    at: int
    cause: str


class Ticks:
    """The ticks of one rule.

    Args:
        rule: the rule.
        last_look: the oldest last look of its destinations (epoch seconds); since when it is defined as it is, if that
            is later.
        is_new: it is looked at at once, as nobody has looked at what it is now. `last_look` names that look: the same
            moment at every agent.
    """

    def __init__(self, rule: Rule, *, last_look: float, is_new: bool = False) -> None:
        self._rule = rule
        self.identity = identity(rule)
        self._spread = 0.0 if rule.interval is None else spread("", rule.name, rule.interval)
        self._last_look = last_look
        self._first = Tick(int(last_look * 1000), "start") if is_new else None
        self._times: tuple[float, float] = (0.0, 0.0)
        """The times of cron around now: the last, and the next."""
        self._done: Tick | None = None

    def due(self, now: float, *, is_failing: bool) -> Tick | None:
        """The latest tick that has come and is not `done`. `is_failing`: some of its tags or its last run failed, or none ended."""
        tick = self._latest(now, is_failing=is_failing)
        return None if tick is None or tick == self._done else tick

    def done(self, tick: Tick, now: float) -> None:
        """Somebody in the fleet took care of it."""
        self._done = tick
        if self._first is not None:
            self._first, self._last_look = None, now

    def next(self, now: float) -> float | None:
        """When the next one comes, epoch seconds. None: not by itself."""
        rule = self._rule
        if rule.cron is not None:
            return rule.cron.next_after(now)
        return None if rule.interval is None else self._interval(now, rule.interval) + rule.interval

    def _latest(self, now: float, *, is_failing: bool) -> Tick | None:
        rule = self._rule
        if self._first is not None:
            return self._first
        if rule.cron is not None:
            at = self._cron(rule.cron, now)
            return Tick(int(at * 1000), "cron") if at > self._last_look else None
        if rule.interval is not None:
            at = self._interval(now, rule.interval)
            return Tick(int(at * 1000), "interval") if at > self._last_look else None
        if is_failing:
            at = now // RETRY_SECONDS * RETRY_SECONDS
            return Tick(int(at * 1000), "retry") if now - self._last_look >= RETRY_SECONDS else None
        return None

    def _interval(self, now: float, interval: float) -> float:
        return (now - self._spread) // interval * interval + self._spread

    def _cron(self, cron: Cron, now: float) -> float:
        if not self._times[0] <= now < self._times[1]:
            self._times = (_last_before(cron, now), cron.next_after(now))
        return self._times[0]


def _last_before(cron: Cron, now: float) -> float:
    """The last time that has come; 0 if that is long ago."""
    for seconds in _WINDOWS:
        at = cron.next_after(now - seconds)
        if at <= now:
            while (following := cron.next_after(at)) <= now:
                at = following
            return at
    return 0.0


def identity(rule: Rule) -> str:
    """The rule as it is now, in few characters: the same in every process that has the same config."""
    sign = (
        None if rule.sign is None else (rule.sign.statement, rule.sign.hosts)
    )  # the rest is the agent's own
    demanded = [policy.fingerprint for policy in rule.trust]
    plain = replace(rule, sign=None, trust=())
    text = msgspec.json.encode((plain, sign, demanded), enc_hook=_as_text, order="deterministic")
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def _as_text(value: object) -> str:
    if isinstance(value, re.Pattern):
        return str(value.pattern)  # its repr ends after 200 characters
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
