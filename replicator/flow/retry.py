"""Trying again: the one place that sleeps between attempts."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import stamina
from stamina.instrumentation import set_on_retry_hooks

from replicator.errors import Advice, SiteError, Transient

T = TypeVar("T")

# Left alone, stamina logs and counts each retry through whatever it finds installed, with a metric of its own
# in the default registry. Retries are told by `on_retry`, once.
set_on_retry_hooks(())


@dataclass(frozen=True, slots=True)
class Budget:
    """How much patience: calls in all, seconds from the first call to the last retry's start, and the waits.

    The n-th wait is drawn evenly between 0 and `wait_initial` doubled n-1 times, `wait_max` at most ("full
    jitter": clients that failed together do not come back together).
    """

    attempts: int = 5
    seconds: float = 120.0
    wait_initial: float = 0.2
    wait_max: float = 30.0


DEFAULT_BUDGET: Final = Budget()


async def retrying(
    call: Callable[[], Awaitable[T]],
    budget: Budget = DEFAULT_BUDGET,
    on_retry: Callable[[SiteError, float], None] | None = None,
) -> T:
    """What `call` returns, called again while it fails with a `SiteError` that advises RETRY.

    Waits as long as the error's `retry_after` says where it says; where that is more than the budget has left,
    the error is raised at once. `on_retry` gets the error and the wait in seconds, before each wait.

    Raises:
        SiteError: the last one, unchanged, when the budget is spent; any with another advice at once.
        Exception: whatever else `call` raises, at once; a cancellation too, also while waiting.
    """
    began = time.monotonic()
    try:
        return await call()  # without stamina: nearly all calls end here
    except SiteError as error:
        if error.advice is not Advice.RETRY:
            raise
        first = error
    patience = _Patience(budget, began, on_retry)
    async for attempt in stamina.retry_context(
        on=patience.wait_after, attempts=budget.attempts, timeout=None
    ):
        with attempt:
            if attempt.num == 1:
                raise first
            return await call()
    raise AssertionError("unreachable: stamina returns, retries or raises")


class _Patience:
    """Decides after each failure; stamina does the waiting."""

    def __init__(
        self, budget: Budget, began: float, on_retry: Callable[[SiteError, float], None] | None
    ) -> None:
        self._budget = budget
        self._deadline = began + budget.seconds
        self._on_retry = on_retry
        self._failures = 0

    def wait_after(self, error: Exception) -> bool | float:
        """Seconds to wait before the next attempt, or False: raise. Also asked about cancellations."""
        self._failures += 1
        if not isinstance(error, SiteError) or error.advice is not Advice.RETRY:
            return False
        wait = self._wait(error)
        if self._failures >= self._budget.attempts or time.monotonic() + wait > self._deadline:
            return False
        if self._on_retry is not None:
            self._on_retry(error, wait)
        return wait

    def _wait(self, error: SiteError) -> float:
        if isinstance(error, Transient) and error.retry_after:
            return error.retry_after
        # The exponent is bounded because 2.0 ** 1024 is an OverflowError.
        doubled = self._budget.wait_initial * 2.0 ** min(self._failures - 1, 64)
        return random.uniform(0, min(self._budget.wait_max, doubled))  # noqa: S311 - spreads load, guards nothing
