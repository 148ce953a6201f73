"""Docker Hub's pulls, which the agents of a fleet share: the registry's own count is what they go by."""

from __future__ import annotations

import asyncio

import pytest

from replicator.errors import Throttled
from replicator.events import Events
from replicator.sites.registry.http import Call
from replicator.sites.registry.quota import FRESH_SECONDS, PullQuota
from replicator.sites.registry.settings import Quota
from tests.fakes.clock import FakeClock

ABOUT = Call("read manifest", "GET", "/v2/a/b/manifests/latest", repository="a/b")
RESERVE = 10


class Hub:
    """Counts pulls of all agents together."""

    def __init__(self, pulls: int) -> None:
        self.left = pulls
        self.heads = 0

    @property
    def headers(self) -> dict[str, str]:
        """As each answer has them. A window of a minute gives a pull back every 10 seconds at the soonest."""
        return {"ratelimit-remaining": f"{self.left};w=60", "ratelimit-limit": "100;w=60"}


class Agent:
    """One that pulls manifests."""

    def __init__(self, hub: Hub, clock: FakeClock, share: float) -> None:
        self.hub = hub
        self.quota = PullQuota("hub", Quota(RESERVE, "stop"), Events(), clock)
        self.quota.limit_to(share)
        self.pulls = 0

    async def ask(self) -> None:
        """A HEAD."""
        self.hub.heads += 1
        self.quota.learn(self.hub.headers)

    async def pull(self) -> None:
        """One; the answer comes a turn later."""
        await self.quota.take(ABOUT, self.ask)
        self.hub.left -= 1
        self.pulls += 1
        headers = self.hub.headers
        await asyncio.sleep(0)
        self.quota.learn(headers)


async def test_an_idle_agentasks_before_it_goes_by_what_it_was_told_long_ago() -> None:
    hub, clock = Hub(40), FakeClock()
    idle, busy = Agent(hub, clock, 0.5), Agent(hub, clock, 0.5)
    await idle.pull()
    for _ in range(29):
        await busy.pull()
    assert (hub.left, hub.heads) == (RESERVE, 0)
    await clock.sleep(FRESH_SECONDS + 1)
    with pytest.raises(Throttled, match="10 pulls left"):
        await idle.pull()
    assert (hub.left, hub.heads, idle.pulls) == (RESERVE, 1, 1)


async def test_an_agent_alone_does_notask() -> None:
    hub, clock = Hub(40), FakeClock()
    agent = Agent(hub, clock, 1.0)
    await agent.pull()
    await clock.sleep(FRESH_SECONDS + 1)
    await agent.pull()
    assert (hub.left, hub.heads) == (38, 0)


async def test_what_is_in_flight_counts_for_the_other_agents_as_well() -> None:
    """Four agents that were told of 30 pulls, and get no other answer, stop when they have used them up to the reserve."""
    hub, clock = Hub(30), FakeClock()
    agents = [Agent(hub, clock, 0.25) for _ in range(4)]
    for agent in agents:
        agent.quota.learn(hub.headers)
    for agent in agents:
        for _ in range((30 - RESERVE) // 4):
            await agent.quota.take(ABOUT, agent.ask)
        with pytest.raises(Throttled):
            await agent.quota.take(ABOUT, agent.ask)
