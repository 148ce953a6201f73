"""What a registry's answers say about its load: the site's gates and paces follow it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from yarl import URL

from replicator.flow.limits import SiteLimits, Traffic
from replicator.ports import Clock
from replicator.sites.registry.errormap import retry_after
from replicator.sites.registry.payload.answer import Answer
from replicator.sites.registry.quota import PullQuota, read_remaining

_OVERLOAD: Final = frozenset({429, 503})
_MAX_REFUSALS: Final = 3
"""A URL that is refused more often than this in a row is refused for itself, and slows nothing else down."""


class Feedback:
    """Tells the limits of one registry what its answers mean for them.

    Args:
        is_own: whether a URL is of the registry itself; answers of other hosts say nothing about its rate.
        limits: of the site.
        quota: of pulls.
        clock: the time.
    """

    def __init__(
        self, is_own: Callable[[URL], bool], limits: SiteLimits, quota: PullQuota, clock: Clock
    ) -> None:
        self._is_own = is_own
        self._limits = limits
        self._quota = quota
        self._clock = clock
        self._refusals: dict[URL, int] = {}

    def learn(self, kind: Traffic, url: URL, began: float, response: Answer) -> None:
        """Takes one answer: `url` is what was asked for, at `began` (monotonic seconds)."""
        status, headers = response.status, response.headers
        by_site = self._is_own(response.url)
        if status in _OVERLOAD:
            refusals = self._refusals[url] = self._refusals.get(url, 0) + 1
            if refusals > _MAX_REFUSALS:
                by_site = False
                self._limits.blameless()
            wait = retry_after(headers, self._clock.now())
            self._limits.congested(kind, wait, sent_at=began, by_site=by_site)
        else:
            self._refusals.pop(url, None)
            if status < 400 or status == 404:
                self._limits.succeeded(kind, by_site=by_site)
            elif by_site:
                self._limits.answered()
        if by_site and (window := read_remaining(headers, self._clock.now())) is not None:
            self._limits.told(*window)
        self._quota.learn(headers)
