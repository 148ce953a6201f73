"""Docker Hub's pulls, which the agents of a fleet share: together they take no more than there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.errors import StateError, Throttled
from replicator.events import Event, Events, QuotaSeen
from replicator.fleet.looks import Look
from replicator.fleet.pulls import GRANTED_AT_ONCE, HELD_SECONDS, Account, Pulls
from replicator.fleet.queue import Queue
from replicator.fleet.work import Done, Work
from replicator.ports import PullGrant, PullWindow, SharedPulls
from replicator.sites.registry.http import Call
from replicator.sites.registry.quota import PullQuota
from replicator.sites.registry.settings import Quota
from tests.fakes.clock import FakeClock

ABOUT = Call("read manifest", "GET", "/v2/a/b/manifests/latest", repository="a/b")
RESERVE = 10


class Hub:
    """Counts pulls of all agents together, if it counts at all."""

    def __init__(self, pulls: int, *, counts: bool = True) -> None:
        self.left = pulls
        self.heads = 0
        self.counts = counts

    @property
    def headers(self) -> dict[str, str]:
        """As each answer has them. A window of a minute gives a pull back every 10 seconds at the soonest."""
        told = {"ratelimit-remaining": f"{self.left};w=60", "ratelimit-limit": "100;w=60"}
        return told if self.counts else {}


class Agent:
    """One that pulls manifests."""

    def __init__(self, hub: Hub, pulls: SharedPulls | None) -> None:
        self.hub = hub
        self.seen: list[Event] = []
        events = Events()
        events.subscribe(self.seen.append)
        self.clock = FakeClock()
        self.quota = PullQuota("hub", Quota(RESERVE, "stop"), events, self.clock)
        if pulls is not None:
            self.quota.share_pulls(pulls)
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

    async def pull_some(self, count: int) -> None:
        """So many, which there must be."""
        for _ in range(count):
            await self.pull()

    async def pull_all(self, at_once: int = 4) -> None:
        """Until there are no more: several at once, as runs do."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(self._pull_on())

    async def _pull_on(self) -> None:
        while True:
            try:
                await self.pull()
            except Throttled as error:
                assert "pulls left" in error.cause  # noqa: PT017  # raised after many
                return


@asynccontextmanager
async def accounts(dsn: str, *names: str) -> AsyncIterator[list[Pulls]]:
    """The account of each of these agents, in one database."""

    async def perform(_number: int, _work: Work) -> Done:
        return Done()

    async def ended(_number: int, _looks: Sequence[Look]) -> None:
        return

    queues = [Queue(dsn, name, perform=perform, ended=ended) for name in names]
    for queue in queues:
        await queue.open()
    try:
        yield [Pulls(name, queue) for name, queue in zip(names, queues, strict=True)]
    finally:
        for queue in queues:
            await queue.aclose()


async def test_two_agents_together_pull_no_more_than_the_quota_leaves(shared: str) -> None:
    hub = Hub(60)
    async with accounts(shared, "a", "b") as pulls:
        agents = [Agent(hub, each) for each in pulls]
        async with asyncio.TaskGroup() as tasks:
            for agent in agents:
                tasks.create_task(agent.pull_some(GRANTED_AT_ONCE + 1))  # each gets some, whoever is quicker
        async with asyncio.TaskGroup() as tasks:
            for agent in agents:
                tasks.create_task(agent.pull_all())
    assert hub.left == RESERVE
    assert hub.heads <= 2, "they ask when nobody knows, and not again"


async def test_an_agent_goes_by_what_another_one_was_told(shared: str) -> None:
    hub = Hub(RESERVE)
    async with accounts(shared, "a", "b") as pulls:
        first, second = (Agent(hub, each) for each in pulls)
        for agent in (first, second):
            with pytest.raises(Throttled, match="10 pulls left"):
                await agent.pull()
    assert (hub.left, hub.heads) == (RESERVE, 1)
    assert QuotaSeen("hub", RESERVE) in second.seen, "its metrics tell what the fleet knows"


async def test_pulls_of_others_are_noticed(shared: str) -> None:
    hub = Hub(100)
    async with accounts(shared, "a") as pulls:
        agent = Agent(hub, pulls[0])
        await agent.pull()
        hub.left -= 80  # somebody with the same address
        await agent.pull_all()
    assert hub.left >= RESERVE - GRANTED_AT_ONCE, "no more than what was granted before it showed"


async def test_a_registry_that_does_not_count_is_asked_once(shared: str) -> None:
    hub = Hub(0, counts=False)
    async with accounts(shared, "a") as pulls:
        agent = Agent(hub, pulls[0])
        for _ in range(30):
            await agent.pull()
    assert hub.heads == 1


async def test_without_the_database_an_agent_goes_by_its_own_count() -> None:
    class Away:
        async def reserve(self, site: str, *, used: int, told: int | None, keep: int) -> PullGrant:
            raise StateError("fleet: the database is away")

        async def tell(self, site: str, window: PullWindow, version: int) -> None:
            raise AssertionError("nothing was granted")

    hub = Hub(40)
    agent = Agent(hub, Away())
    await agent.pull()
    await agent.pull_all(at_once=1)
    assert (hub.left, hub.heads) == (RESERVE, 0)


async def test_an_agent_alone_does_not_ask() -> None:
    hub = Hub(40)
    agent = Agent(hub, None)
    await agent.pull_all(at_once=1)
    assert (hub.left, hub.heads) == (RESERVE, 0)


AGENTS = ("a", "b", "c")
STEPS = st.lists(
    st.tuples(st.sampled_from(AGENTS), st.sampled_from(("reserve", "pull", "ask", "tell", "late"))),
    max_size=80,
)


@given(st.integers(0, 60), STEPS)
def test_whatever_order_answers_come_in_the_reserve_is_kept(pulls: int, steps: list[tuple[str, str]]) -> None:
    """Agents that begin what they were granted at any time before it is forgotten, and answers that come late."""
    account, now, left = Account(), 1_000.0, pulls
    granted, used = dict.fromkeys(AGENTS, 0), dict.fromkeys(AGENTS, 0)
    versions, asked = dict.fromkeys(AGENTS, 0), dict.fromkeys(AGENTS, (0, pulls))
    for agent, what in steps:
        now += 0.1
        match what:
            case "reserve":
                account.settle(agent, used[agent], None, now)
                grant = account.grant(agent, RESERVE, now)
                # What it still had is given up: those who take more have begun all of theirs.
                granted[agent], used[agent], versions[agent] = grant.count, 0, grant.version
            case "pull" if granted[agent]:
                granted[agent], used[agent], left = granted[agent] - 1, used[agent] + 1, left - 1
            case "ask":
                asked[agent] = (versions[agent], left)
            case "tell":
                version, told = asked[agent]
                account.tell(PullWindow(told, 100, 60), version, now)
            case "late":
                now += HELD_SECONDS
                granted = dict.fromkeys(AGENTS, 0)  # too late to begin any
    assert left >= min(pulls, RESERVE)
