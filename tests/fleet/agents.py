"""Light agents: the real fleet, and work that does nothing but say that it was done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from replicator.events import Event, Events
from replicator.fleet.agents import Self
from replicator.fleet.connections import Dsn
from replicator.fleet.duties import Duties
from replicator.fleet.fleet import Fleet
from replicator.fleet.looks import Look
from replicator.fleet.ownership import Claim
from replicator.fleet.times import Times
from replicator.fleet.work import Done, Work
from replicator.flow.clock import SystemClock
from replicator.ports import Clock

QUICK = Times(
    heartbeat=0.2, dead=60.0, sweep=0.2, poll=0.2, answer=5.0, patience=10.0, busy=0.2, orphaned=0.5
)
"""Nobody is thought dead because the machine was busy for a second."""
FENCING = replace(QUICK, dead=1.0)
"""For tests of agents that are silent."""

Perform = Callable[[Work, Claim], Awaitable[Done]]


@dataclass(eq=False)
class LightAgent:
    """One agent and what it did."""

    name: str
    serves: tuple[str, ...] | None = None
    destinations: tuple[str, ...] = ("fra", "sgp")
    did: list[Work] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    fleet: Fleet = field(init=False)
    places: Callable[[Work], Sequence[str]] = lambda _: ()

    async def perform(self, work: Work, claim: Claim) -> Done:
        """Waits for the gate, and confirms before it says that it is done."""
        self.claims.append(claim)
        await self.gate.wait()
        await claim.confirm()
        self.did.append(work)
        return Done(report={"by": self.name})

    async def look_ended(self, look: Look) -> None:
        """Keeps it."""
        self.looks.append(look)


@asynccontextmanager
async def joined(
    dsn: Dsn,
    agent: LightAgent,
    *,
    jobs: int = 4,
    times: Times = QUICK,
    clock: Clock | None = None,
    works: bool = True,
) -> AsyncIterator[LightAgent]:
    """The agent, part of the fleet and at work."""
    events = Events()
    events.subscribe(agent.events.append)
    duties = Duties(
        perform=agent.perform,
        places=agent.places,
        destinations=lambda: agent.destinations,
        look_ended=agent.look_ended,
        changed=lambda: None,
    )
    clock = clock or SystemClock()
    me = Self(agent.name, "test", agent.serves, clock.now())
    async with Fleet.join(dsn, me, duties, jobs=jobs, events=events, clock=clock, times=times) as fleet:
        agent.fleet = fleet
        if works:
            fleet.begin()
        try:
            yield agent
        finally:
            agent.gate.set()


async def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Returns when it is true. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # what it waits for is in a database
