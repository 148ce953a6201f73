"""Whose requests they are: those of a run, and of one destination in it.

Told by the context that tasks inherit: what is begun inside `counted` counts there, on whatever site. So runs beside
each other share none, and what several wait for (one transfer for many images) counts where it was begun.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from replicator.engine.result import Totals
from replicator.events import Event, RequestDone, RetryPlanned

COUNTED_REQUESTS: Final = frozenset({RequestDone, RetryPlanned})
"""The events that `count_request` counts."""
_TOTALS: Final[ContextVar[tuple[Totals, ...]]] = ContextVar("totals", default=())


@contextmanager
def counted(totals: Totals) -> Iterator[None]:
    """Requests and retries of what runs inside, or is begun there, count in `totals` too; see `count_request`."""
    token = _TOTALS.set((*_TOTALS.get(), totals))
    try:
        yield
    finally:
        _TOTALS.reset(token)


def count_request(event: Event) -> None:
    """A subscriber to `Events`; without it nothing is counted. Events are told on the task that emits them."""
    match event:
        case RequestDone():
            for totals in _TOTALS.get():
                totals.requests += 1
        case RetryPlanned():
            for totals in _TOTALS.get():
                totals.retries += 1
