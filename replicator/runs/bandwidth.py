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
        """Another limit from now on; None is none."""
        ...


def apply(bandwidth: Mapping[str, Bandwidth], sites: Mapping[str, object], now: float) -> None:
    """Gives the sites the limits of this moment (epoch seconds)."""
    for name, limits in bandwidth.items():
        site = sites.get(name)
        if isinstance(site, Throttleable):
            site.set_bytes_per_second(limits.at(now))


async def follow(
    what: Callable[[], tuple[Mapping[str, Bandwidth], Mapping[str, object]]], clock: Clock
) -> None:
    """Gives the sites their limits now, and again as each minute begins, until it is cancelled."""
    while True:
        now = clock.now()
        apply(*what(), now)
        await clock.sleep(_MINUTE - now % _MINUTE)
