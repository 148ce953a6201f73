"""The agents of a fleet, as an agent or `replicator fleet` read them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

REPOSITORIES_SAID: Final = 5
"""Of those that a run is narrowed to."""
SKEW_SECONDS: Final = 5.0
"""A clock that is further from the database's is worth a warning."""

AgentState = Literal["working", "draining", "lost", "unknown"]
"""`lost`: silent for too long, its work is others' now. `unknown`: the database is away."""


@dataclass(frozen=True, slots=True)
class Doing:
    """One run in progress, as its agent says with each heartbeat.

    `shard`: its number and how many there are, as "3/64". `since` in epoch seconds by the agent's clock. `repositories`: some
    of those that it is narrowed to; empty: all of the shard.
    """

    rule: str
    destinations: tuple[str, ...]
    shard: str
    since: float
    id: str = ""
    source: str = ""
    cause: str = ""
    repositories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent as it is in the database.

    Args:
        name: its `agent.name`.
        version: of replicator.
        serves: the destinations that it was told to serve; None: all.
        sites: with which it works now.
        silent: seconds since its last heartbeat.
        started: epoch seconds by its clock.
        draining: it takes no new work.
        doing: what it does.
        clock_skew: how many seconds its clock is ahead of the database's.
        seen: when this was read, epoch seconds by the database's clock.
    """

    name: str
    version: str
    serves: tuple[str, ...] | None
    sites: tuple[str, ...]
    silent: float
    started: float
    draining: bool
    doing: tuple[Doing, ...] = ()
    clock_skew: float = 0.0
    seen: float = 0.0

    def has(self, site: str) -> bool:
        """Whether it takes work for a destination."""
        return not self.draining and (self.serves is None or site in self.serves)


@dataclass(frozen=True, slots=True)
class Roster:
    """All agents at one moment.

    Args:
        agents: all that the database lists, lost ones too, by name.
        at: when they were read, epoch seconds by the reader's clock.
        dead: an agent that is silent for longer (seconds) is lost.
        is_current: whether the database is there to tell.
    """

    agents: tuple[Agent, ...]
    at: float
    dead: float
    is_current: bool = True

    def state(self, agent: Agent) -> AgentState:
        """The state of an agent."""
        if not self.is_current:
            return "unknown"
        if agent.silent > self.dead:
            return "lost"
        return "draining" if agent.draining else "working"

    def moment(self, agent: Agent, at: float) -> float:
        """A time of an agent's clock, by the reader's clock."""
        return at - agent.clock_skew - agent.seen + self.at
