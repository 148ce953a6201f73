"""Trying again: the one place that sleeps between attempts."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from functools import cache
from types import ModuleType
from typing import Final, Protocol, TypeVar

from replicator.errors import Advice, Overloaded, SiteError, Throttled, Transient
from replicator.flow.patience import MAX_TURNS, REFUSED_SECONDS, REQUEST, Budget

__all__ = ["DEFAULT_BUDGET", "MAX_TURNS", "Budget", "Serving", "is_refusal", "retrying"]

T = TypeVar("T")

DEFAULT_BUDGET: Final = REQUEST


class Serving(Protocol):
    """Whoever counts what a site serves."""

    @property
    def served(self) -> int:
        """Requests served so far, of anybody's."""
        ...


async def retrying(
    call: Callable[[], Awaitable[T]],
    budget: Budget = DEFAULT_BUDGET,
    on_retry: Callable[[SiteError, float], None] | None = None,
    *,
    site: Serving | None = None,
    only_refused: bool = False,
) -> T:
    """What `call` returns, called again while it fails with a `SiteError` that advises RETRY.

    Waits as long as the error's `retry_after` says where it says; where that is more than the budget has left,
    the error is raised at once. `on_retry` gets the error and the wait in seconds, before each wait.

    A refusal (429, 503) uses up no patience where the `site` has served others since the call's last failure: at a site
    that lets ten requests a second through, a thousand wait for long, and all come through. With `only_refused` nothing
    else is tried again: such a request was not taken, so that repeating it is safe whatever it does.

    Raises:
        SiteError: the last one when the budget is spent (a refusal then advises LATER); any with another advice at
            once.
        Exception: whatever else `call` raises, at once; a cancellation too, also while waiting.
    """
    began = time.monotonic()
    try:
        return await call()  # without stamina: nearly all calls end here
    except SiteError as error:
        if error.advice is not Advice.RETRY or (only_refused and not is_refusal(error)):
            raise
        first = error
    patience = _Patience(budget, began, on_retry, site, only_refused=only_refused)
    async for attempt in _stamina().retry_context(on=patience.wait_after, attempts=None, timeout=None):
        with attempt:
            if attempt.num == 1:
                raise first
            return await call()
    raise AssertionError("unreachable: stamina returns, retries or raises")


@cache
def _stamina() -> ModuleType:
    """The library, imported for the first failure: most runs have none."""
    import stamina  # noqa: PLC0415 - see above
    from stamina.instrumentation import set_on_retry_hooks  # noqa: PLC0415

    # Left alone, stamina logs and counts each retry through whatever it finds installed, with a metric of its own
    # in the default registry. Retries are told by `on_retry`, once.
    set_on_retry_hooks(())
    return stamina


def is_refusal(error: BaseException) -> bool:
    """Whether a site refused the request for having too much to do: it was not taken, and may be sent again."""
    return isinstance(error, (Throttled, Overloaded))


class _Patience:
    """Decides after each failure; stamina does the waiting."""

    def __init__(
        self,
        budget: Budget,
        began: float,
        on_retry: Callable[[SiteError, float], None] | None,
        site: Serving | None,
        *,
        only_refused: bool,
    ) -> None:
        self._budget = budget
        self._deadline = began + budget.seconds
        self._on_retry = on_retry
        self._site = site
        self._served = 0 if site is None else site.served
        self._only_refused = only_refused
        self._failures = 0
        self._refusals = 0
        self._refused_since = began
        self._turns = 0

    def wait_after(self, error: Exception) -> bool | float:
        """Seconds to wait before the next attempt, or False: raise. Also asked about cancellations."""
        if not isinstance(error, SiteError) or error.advice is not Advice.RETRY:
            return False
        refused = is_refusal(error)
        if self._only_refused and not refused:
            return False
        self._count(refused=refused)
        wait = self._wait(error)
        most = self._budget.attempts if self._budget.refusals is None else self._budget.refusals
        spent = self._failures >= self._budget.attempts or self._failures + self._refusals >= max(
            most, self._budget.attempts
        )
        at = time.monotonic() + wait
        told = isinstance(error, Transient) and error.retry_after
        shut = refused and not told and at > self._refused_since + REFUSED_SECONDS
        if spent or shut or self._turns >= MAX_TURNS or at > self._deadline:
            if refused and not told:
                # All the patience there is was used up here: nobody further out need have more.
                error.advice = Advice.LATER
            return False
        if self._on_retry is not None:
            self._on_retry(error, wait)
        return wait

    def _count(self, *, refused: bool) -> None:
        if not refused:
            self._failures += 1
        elif self._site is not None and self._site.served > self._served:
            self._served = self._site.served
            self._refusals = 0
            self._turns += 1
            self._refused_since = time.monotonic()
            self._deadline = self._refused_since + self._budget.seconds
        else:
            self._refusals += 1

    def _wait(self, error: SiteError) -> float:
        if isinstance(error, Transient) and error.retry_after:
            return error.retry_after
        # The exponent is bounded because 2.0 ** 1024 is an OverflowError.
        doubled = self._budget.wait_initial * 2.0 ** min(max(self._failures + self._refusals - 1, 0), 64)
        return random.uniform(0, min(self._budget.wait_max, doubled))  # noqa: S311 - spreads load, guards nothing
