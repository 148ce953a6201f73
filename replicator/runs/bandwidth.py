"""Limits that vary by time of day, kept up to date at the sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from replicator.policy.bandwidth import Bandwidth
from replicator.ports import Clock

_MINUTE = 60.0


@runtime_checkable
class Throttleable(Protocol):
    """A site whose bytes a second can be limited while it works."""

    def set_bytes_per_second(self, rate: float | None) -> None:
        """Sets the limit from now on; None for no limit."""
        ...


def apply(bandwidth: Mapping[str, Bandwidth], sites: Mapping[str, object], now: float) -> None:
    """Sets the limits of the sites for this time (epoch seconds)."""
    for name, limits in bandwidth.items():
        site = sites.get(name)
        if isinstance(site, Throttleable):
            site.set_bytes_per_second(limits.at(now))


async def follow(
    what: Callable[[], tuple[Mapping[str, Bandwidth], Mapping[str, object]]], clock: Clock
) -> None:
    """Sets the limits of the sites now, and again at the start of each minute, until it is cancelled."""
    while True:
        now = clock.now()
        apply(*what(), now)
        await clock.sleep(_MINUTE - now % _MINUTE)
