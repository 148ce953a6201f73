"""Docker Hub's pull quota: what it told last, and whether a manifest may be read now.

It counts each GET of a manifest; HEAD is free and tells the same (docs.docker.com, "Docker Hub pull usage and limits").
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from msgspec.structs import replace

from replicator.errors import Advice, StateError, Throttled
from replicator.events import Events, QuotaSeen, RetryPlanned
from replicator.ports import PULL_SECONDS, Clock, PullGrant, PullWindow, SharedPulls
from replicator.sites.registry.errormap import Operation
from replicator.sites.registry.settings import Quota

MIN_WAIT_SECONDS: Final = 10.0
MAX_WAIT_SECONDS: Final = 900.0
UNCOUNTED_SECONDS: Final = 600.0
"""How long a registry that was asked and told nothing is taken not to count."""
_EPOCH_SECONDS: Final = 1_000_000_000
"""A reset above this is a date."""


def read_window(headers: Mapping[str, str]) -> PullWindow | None:
    """What `ratelimit-remaining: 76;w=21600` and `ratelimit-limit` say; None where nobody counts."""
    text = headers.get("ratelimit-remaining")
    if text is None:
        return None
    remaining, seconds = _numbers(text)
    if remaining is None:
        return None
    limit, other = _numbers(headers.get("ratelimit-limit", ""))
    return PullWindow(remaining, limit, seconds or other)


def _numbers(text: str) -> tuple[int | None, int | None]:
    count, _, parameters = text.partition(";")
    window = parameters.strip().removeprefix("w=")
    return _number(count.strip()), _number(window)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def read_remaining(headers: Mapping[str, str], now: float) -> tuple[int, float] | None:
    """Requests left and the seconds until their window ends, of `RateLimit-*` headers; None where these do not say both.

    The IETF's drafts up to 07 (`RateLimit-Remaining`, `RateLimit-Reset`; the `X-` form is older) and from 08 on
    (`RateLimit: "default";r=50;t=30`). GitHub and GitLab tell the reset in seconds since the epoch. Docker Hub tells no
    reset: what it counts are pulls (see `read_window`).

    Args:
        headers: of an answer.
        now: seconds since the epoch.
    """
    if (text := headers.get("RateLimit")) is not None:
        pairs: dict[str, str] = {}
        for pair in re.split("[;,]", text):
            name, _, value = pair.strip().partition("=")
            pairs[name] = value
        remaining = _number(pairs.get("r", pairs.get("remaining", "")))
        reset = _number(pairs.get("t", pairs.get("reset", "")))
    else:
        prefix = "X-" if "X-RateLimit-Remaining" in headers else ""
        if (text := headers.get(f"{prefix}RateLimit-Remaining")) is None:
            return None
        remaining = _number(text.strip())
        reset = _number(headers.get(f"{prefix}RateLimit-Reset", "").strip())
    if remaining is None or reset is None:
        return None
    return remaining, reset - now if reset > _EPOCH_SECONDS else float(reset)


def wait_seconds(window: PullWindow) -> float:
    """How long one more pull takes to come back: the window gives its pulls evenly, as far as anybody knows."""
    if not window.limit or not window.seconds:
        return 60.0
    return min(max(window.seconds / window.limit, MIN_WAIT_SECONDS), MAX_WAIT_SECONDS)


class PullQuota:
    """Keeps a reserve of the pulls that a registry grants; does nothing where none is set or nobody counts.

    The agents of a fleet have one account or address: each takes pulls from what the fleet has left (`share_pulls`), and
    goes by its own count only while the database is away.
    """

    def __init__(self, site: str, settings: Quota, events: Events, clock: Clock) -> None:
        self._site = site
        self._settings = settings
        self._events = events
        self._clock = clock
        self._window: PullWindow | None = None
        self._told_at = 0.0
        self._turn = asyncio.Lock()
        self._shared: SharedPulls | None = None
        self._granted = 0
        self._granted_until = 0.0
        self._used = 0
        self._told_least: int | None = None
        self._uncounted_until = 0.0

    @property
    def is_limiting(self) -> bool:
        """Whether `take` has to be asked at all."""
        return self._settings.reserve > 0

    def share_pulls(self, pulls: SharedPulls) -> None:
        """See `ports.SharesPulls`."""
        self._shared = pulls

    def learn(self, headers: Mapping[str, str]) -> None:
        """Takes what a reply tells, if it does."""
        if "ratelimit-remaining" in headers and (window := read_window(headers)) is not None:
            self._window = window
            self._told_at = self._clock.monotonic()
            least = self._told_least
            self._told_least = window.remaining if least is None else min(least, window.remaining)
            self._events.emit(QuotaSeen(self._site, window.remaining))

    async def take(self, about: Operation, ask: Callable[[], Awaitable[object]]) -> None:
        """Returns when one more manifest may be read, and counts it: what is in flight has not been told yet.

        Args:
            about: what is held up.
            ask: a request that costs nothing and whose reply `learn` will see.

        Raises:
            Throttled: only the reserve is left, and the site is not to be used any more.
        """
        async with self._turn:
            if self._shared is not None and await self._take_from(self._shared, about, ask):
                return
            while (window := self._window) is not None and window.remaining <= self._settings.reserve:
                wait = self._told_at + wait_seconds(window) - self._clock.monotonic()
                if wait > 0:
                    await self._hold(about, window, wait)
                await self._ask(ask)
            if window is not None:
                self._window = replace(window, remaining=window.remaining - 1)

    async def _take_from(
        self, shared: SharedPulls, about: Operation, ask: Callable[[], Awaitable[object]]
    ) -> bool:
        """Takes one pull of the fleet's; False: the database is away."""
        now = self._clock.monotonic()
        if self._granted and now < self._granted_until:
            self._granted, self._used = self._granted - 1, self._used + 1
            return True
        if now < self._uncounted_until:
            return True
        try:
            while not (grant := await self._reserve(shared)).count:
                if grant.window is not None and (wait := wait_seconds(grant.window) - grant.age) > 0:
                    await self._hold(about, grant.window, wait)
                window = await self._ask(ask)
                if window is None:
                    self._uncounted_until = self._clock.monotonic() + UNCOUNTED_SECONDS
                    return True
                await shared.tell(self._site, window, grant.version)
        except StateError:
            return False
        self._granted, self._used = grant.count - 1, 1
        self._granted_until = self._clock.monotonic() + PULL_SECONDS
        return True

    async def _ask(self, ask: Callable[[], Awaitable[object]]) -> PullWindow | None:
        self._window = None  # an answer that does not tell means that nobody counts
        await ask()
        return self._window

    async def _reserve(self, shared: SharedPulls) -> PullGrant:
        grant = await shared.reserve(
            self._site, used=self._used, told=self._told_least, keep=self._settings.reserve
        )
        self._granted, self._used, self._told_least = 0, 0, None
        if grant.window is not None:
            self._events.emit(QuotaSeen(self._site, grant.window.remaining))
        return grant

    async def _hold(self, about: Operation, window: PullWindow, wait: float) -> None:
        if self._settings.below == "stop":
            cause = f"{window.remaining} pulls left, not above the reserve of {self._settings.reserve}"
            raise Throttled(
                self._site, about.operation, cause, repository=about.repository, advice=Advice.STOP_SITE
            )
        self._events.emit(RetryPlanned(self._site, about.operation, "quota", wait))
        await self._clock.sleep(wait)
