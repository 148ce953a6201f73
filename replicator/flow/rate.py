"""The rate of requests that a site accepts, learnt from its refusals. Pure: every time is given."""

from __future__ import annotations

from collections import deque
from typing import Final

CUT: Final = 0.85
"""To this part of the rate that was refused a site is slowed down."""
_FIRST_RATE: Final = 4.0
"""Requests a second after a first refusal that came before enough were accepted to know better."""
_SEARCH_ACCEPTED: Final = 4
_SEARCH_STEP: Final = 1.6
"""Until the second refusal the rate is multiplied by this each time this many requests have been accepted."""
_CYCLE_SECONDS: Final = 1.5
_CYCLE_REQUESTS: Final = 30
_CYCLE_HOLDS: Final = 8
"""After a cut the old rate is reached again after both of these: a slow site is tried less often."""
_MEASURED: Final = 5
_MEASURED_SECONDS: Final = 5.0
"""From this many accepted requests on, what was accepted tells the rate."""
_FAR_BELOW: Final = 0.75
"""What was accepted is the better guess where it is this far below the rate that was refused."""
_SLOWEST: Final = 0.05
_PROBE_SECONDS: Final = 0.05
_PROBE_MAX_SECONDS: Final = 2.0
_SLOP_SECONDS: Final = 0.05
"""Timers wake late: up to this many seconds of a missed start are made up for."""
FORGET_SECONDS: Final = 300.0
"""A site that has refused nothing for this many seconds is no longer paced."""


class Rate:
    """The pace for the requests of one site: none until the first refusal, then what was learnt from refusals.

    A refusal cuts the rate to `CUT` of what was accepted; from there it grows along a cubic curve: fast at first,
    flat around the rate that was refused, then faster and faster, so that a limit is met softly and a limit that
    was lifted is found out (RFC 9438 does so with windows; botocore's adaptive retries with rates). Starts are
    spread evenly. A site that accepts nothing at all is probed at growing intervals and its rate kept: that it is
    shut for a moment says nothing of how much it takes when it is open.

    Beside it a window may be known in which a number of requests are left (`RateLimit-*` headers): at none left, the next
    one starts with the next window.

    All times are seconds of one monotonic clock.
    """

    def __init__(self) -> None:
        self._rate: float | None = None
        self._peak = 0.0
        self._cut_at = float("-inf")
        self._grows_from = 0.0
        self._hold = 0.0
        self._accepted = 0
        self._recent: deque[float] = deque(maxlen=1_024)
        self._searching = True
        self._probes = 0
        self._next_at = float("-inf")
        self._left: int | None = None
        self._window_ends = 0.0

    @property
    def is_known(self) -> bool:
        """Whether requests have to wait for their turn at all."""
        return self._rate is not None or self._left is not None

    def per_second(self, now: float) -> float | None:
        """The rate now; None where nothing is limited."""
        if self._rate is None or self._searching:
            return self._rate
        cycle = max(_CYCLE_SECONDS, _CYCLE_REQUESTS / self._peak, _CYCLE_HOLDS * self._hold)
        at = (max(now, self._grows_from) - self._grows_from) / cycle - 1.0
        return max(_SLOWEST, self._peak * (1.0 + (1.0 - CUT) * at**3))

    def wait(self, now: float) -> float:
        """Seconds until the next request may start; 0 where it may now."""
        wait = 0.0
        if self._left is not None:
            if now >= self._window_ends:
                self._left = None
            elif self._left <= 0:
                wait = self._window_ends - now
        if self._rate is not None:
            if now - self._cut_at > FORGET_SECONDS:
                self._forget()
            else:
                wait = max(wait, self._next_at - now)
        return max(0.0, wait)

    def take(self, now: float) -> None:
        """A request starts."""
        if self._left is not None:
            self._left -= 1
        rate = self.per_second(now)
        if rate is not None:
            pause = self._pause if self._probes else 1.0 / rate
            self._next_at = max(self._next_at, now - _SLOP_SECONDS) + pause

    def accepted(self, now: float) -> None:
        """A request was answered, and not refused."""
        self._recent.append(now)
        if self._rate is None:
            return
        self._accepted += 1
        if self._probes:
            self._probes, self._next_at = 0, now
        if self._searching and self._accepted % _SEARCH_ACCEPTED == 0:
            self._rate *= _SEARCH_STEP

    def refused(self, now: float, sent_at: float, hold: float = 0.0) -> None:
        """A request was refused for there being too many.

        Args:
            now: the time.
            sent_at: when it had started; one that was on its way when the site was slowed down tells nothing new.
            hold: seconds for which nothing starts because the site asked for that.
        """
        if sent_at <= self._cut_at:
            return
        rate = self.per_second(now)
        since, self._cut_at, self._grows_from = self._cut_at, now, now + hold
        if rate is None:
            first = sum(1.0 for at in self._recent if at > now - 1.0)
            self._searching = True
            self._begin(max(first, _FIRST_RATE), now)
        elif not self._accepted:
            self._probes = min(self._probes + 1, 16)
            self._next_at = max(self._next_at, now + self._pause)
            self._grows_from += self._pause
        else:
            measured = self._measured(now, since)
            if measured is not None and measured < rate * _FAR_BELOW:
                # A search has just had the rate before the last step accepted.
                rate = max(measured, rate / _SEARCH_STEP) if self._searching else measured
            self._searching = False
            self._begin(rate, now)
        self._hold = hold

    def blameless(self, now: float) -> None:
        """What was refused lately was refused for itself, not for there being too many: no more probing."""
        if self._probes:
            self._probes, self._next_at = 0, now

    def told(self, remaining: int, reset: float, now: float, in_flight: int) -> None:
        """The site told of a window.

        Args:
            remaining: requests left in it, by the answer's count.
            reset: seconds until it ends.
            now: the time.
            in_flight: requests that have started and are not answered; they may not be counted yet.
        """
        self._left, self._window_ends = remaining - in_flight, now + reset

    @property
    def _pause(self) -> float:
        """Seconds between two probes of a site that accepts nothing."""
        return min(_PROBE_MAX_SECONDS, _PROBE_SECONDS * 2.0**self._probes)

    def _begin(self, peak: float, now: float) -> None:
        self._peak = max(peak, _SLOWEST)
        self._rate = max(_SLOWEST, peak * CUT)
        self._accepted = 0
        self._probes = 0
        self._next_at = now + 1.0 / self._rate

    def _measured(self, now: float, since: float) -> float | None:
        """How many a second were accepted since the last cut, or over some seconds if that is more; None: too few."""
        if self._accepted < _MEASURED or now <= since:
            return None
        lately = sum(at > now - _MEASURED_SECONDS for at in self._recent)
        return max(self._accepted / (now - since), lately / _MEASURED_SECONDS)

    def _forget(self) -> None:
        self._rate = None
        self._recent.clear()
        self._searching = True
