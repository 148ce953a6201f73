"""What an agent does for its fleet, told by whoever runs the agent."""

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
        places: the locks of a piece of work that others of the same agent may have too, but no other agent.
        destinations: all destinations of the config.
        look_ended: a look is through; called at one agent.
        changed: who lives, or whether the database is there, may have changed.
    """

    perform: Callable[[Work, Claim], Awaitable[Done]]
    places: Callable[[Work], Sequence[str]]
    destinations: Callable[[], Collection[str]]
    look_ended: Callable[[Look], Awaitable[None]]
    changed: Callable[[], None]
