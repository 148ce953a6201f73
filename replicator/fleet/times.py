"""How often agents of a fleet look at each other, in seconds. Tests shorten them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Times:
    """The intervals of one agent; all in seconds.

    Args:
        heartbeat: between two heartbeats.
        dead: an agent whose last heartbeat is older is dead: the others end its sessions and take its work.
        sweep: between two looks for jobs without an owner. Such a job is taken over when two looks in a row saw it.
        poll: between two looks for jobs where no notification came.
        answer: how long the database may take to confirm ownership.
        patience: how long a job waits for the database to come back before it gives up.
        busy: until work is tried again that another agent still has.
        orphaned: how long a site has had no agent that serves it before others take its jobs.
        maintenance: between two removals of old rows.
    """

    heartbeat: float = 3.0
    dead: float = 9.0
    sweep: float = 3.0
    poll: float = 2.0
    answer: float = 5.0
    patience: float = 30.0
    busy: float = 3.0
    orphaned: float = 60.0
    maintenance: float = 3600.0

    @classmethod
    def of(cls, heartbeat: float) -> Times:
        """The intervals that go with one between heartbeats."""
        return cls(
            heartbeat=heartbeat,
            dead=max(3.0 * heartbeat, 5.0),  # a loaded machine may be late by seconds
            sweep=heartbeat,
            poll=heartbeat * 2.0 / 3.0,
            patience=max(10.0 * heartbeat, 10.0),
            busy=heartbeat,
            orphaned=max(20.0 * heartbeat, 6.0),
        )
