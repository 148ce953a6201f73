"""What an agent does for its fleet: functions that the daemon passes in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from replicator.fleet.looks import Look
from replicator.fleet.ownership import Claim
from replicator.fleet.work import Done, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Duties:
    """The duties.

    Args:
        perform: does a piece of work. It writes nothing that the claim does not confirm, and ends soon once that is lost.
        places: the locks of a piece of work that other work of the same agent may share, but no other agent's.
        destinations: all destinations of the config.
        look_ended: called at one agent when the last shard of a look has ended.
        changed: called when the living agents, or whether the database is there, may have changed.
    """

    perform: Callable[[Work, Claim], Awaitable[Done]]
    places: Callable[[Work], Sequence[str]]
    destinations: Callable[[], Collection[str]]
    look_ended: Callable[[Look], Awaitable[None]]
    changed: Callable[[], None]
