"""Agents as processes that share PostgreSQL, between registries that count: killed, frozen, cut off, drained."""

from __future__ import annotations

import asyncio
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from replicator.demo.images import image, layer
from replicator.demo.images import load as put
from tests.acceptance.program import ROOT
from tests.fakes.registry import Exchange, FakeRegistry
from tests.fleet.processes import Crew, become, crew, until
from tests.fleet.proxy import way_to
from tests.postgres import Database, Postgres

RULE = """
[[rule]]
name = "apps"
source = "hub"
destinations = ["fra"]
repositories = ["**"]
interval = "30d"
"""
IMAGES = 40
pytestmark = pytest.mark.timeout(240)  # seconds to start a process, where the machine is busy


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        for number in range(IMAGES):
            put(registry.store, f"app{number}", "v1", image(f"{number}", [layer(f"{number}", 100_000)]))
        yield registry


@pytest.fixture
async def fra() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        yield registry


class Held:
    """Holds back the answer to one request."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.release = asyncio.Event()
        self.repository = ""

    async def __call__(self, exchange: Exchange) -> web.StreamResponse:
        self.repository = exchange.request.path.removeprefix("/v2/").partition("/blobs/")[0]
        self.reached.set()
        await self.release.wait()
        return await exchange.proceed()


def copied(registry: FakeRegistry) -> int:
    return sum(len(repository.tags) for repository in registry.store.repositories.values())


async def idle(agents: Crew, name: str) -> bool:
    """Whether the runs that an agent had in hand have ended."""
    runs = (await agents.get(name, "/api/v1/runs"))["runs"]
    return not any(run["agents"] == [name] and run["ended_at"] is None for run in runs)


def twice(registry: FakeRegistry) -> dict[str, int]:
    """Manifests that were put more than once, and how often."""
    puts = Counter(entry.path for entry in registry.find("PUT", "/manifests/", status=201))
    return {path: count for path, count in puts.items() if count > 1}


def fleet(folder: Path, database: Database, hub: FakeRegistry, fra: FakeRegistry, *, slow: str = "") -> Crew:
    limits = f'limits = {{ bytes_per_second = "{slow}" }}\n' if slow else ""
    return Crew(
        folder, database, {"hub": f'url = "{hub.url}"\n{limits}', "fra": f'url = "{fra.url}"\n'}, RULE
    )


async def test_the_work_of_an_agent_that_is_killed_is_taken_over(
    tmp_path: Path, database: Database, hub: FakeRegistry, fra: FakeRegistry
) -> None:
    async with crew(fleet(tmp_path, database, hub, fra, slow="400kB")) as agents:
        for name in ("a", "b"):
            await agents.start(name)
        await until(lambda: copied(fra) >= 5, agents)
        await agents.agents["a"].end(signal.SIGKILL)
        await until(lambda: copied(fra) == IMAGES, agents)
        listed = await agents.ask("b", "fleet")
    assert twice(fra) == {}
    assert re.search(r"^a .* (lost|working) .*\nb ", listed.stdout, re.MULTILINE), listed.stdout


async def test_a_frozen_agent_that_wakes_up_sets_no_tag_back(
    tmp_path: Path, database: Database, hub: FakeRegistry, fra: FakeRegistry
) -> None:
    """Its work is taken over while its connections stand; what it had in hand then is older."""
    held = Held()
    hub.fault("GET", "/blobs/", held)
    async with crew(fleet(tmp_path, database, hub, fra)) as agents:
        frozen = await agents.start("frozen")
        await asyncio.wait_for(held.reached.wait(), 60)
        frozen.send(signal.SIGSTOP)
        newer = image("newer", [layer("newer", 1_000)])
        put(hub.store, held.repository, "v1", newer)
        held.release.set()
        await agents.start("other")
        await until(lambda: copied(fra) == IMAGES, agents)
        tag = fra.store.repositories[held.repository].tags
        assert tag["v1"] == newer.digest
        puts = fra.count("PUT", "/manifests/")
        frozen.send(signal.SIGCONT)
        await until(lambda: "connected to the database again" in frozen.log, agents)
        await become(agents, lambda: idle(agents, "frozen"))
        assert fra.count("PUT", "/manifests/") == puts
        assert tag["v1"] == newer.digest
        assert "taken over by another agent" in frozen.log


async def test_an_agent_that_is_cut_off_from_the_database_alone_stops_tagging(
    tmp_path: Path, database: Database, hub: FakeRegistry, fra: FakeRegistry
) -> None:
    """The others end its sessions, also those in which it has locked rows of the state, and do its work."""

    def by_cut() -> int:
        puts = fra.find("PUT", "/manifests/")
        return sum(entry.headers["Host"].startswith("localhost") for entry in puts)

    async with (
        way_to(database.port) as way,
        crew(fleet(tmp_path, database, hub, fra, slow="300kB")) as agents,
    ):
        elsewhere = agents.sites | {"fra": agents.sites["fra"].replace("127.0.0.1", "localhost")}
        await agents.start("cut", port=way.port, sites=elsewhere)
        await agents.start("b")
        await until(lambda: by_cut() >= 3, agents)
        way.cut()
        cut = agents.agents["cut"]
        await until(lambda: "the database is away" in cut.log, agents)
        puts = by_cut()
        async with aiohttp.ClientSession() as session, session.get(f"{agents.urls['cut']}/readyz") as ready:
            assert ready.status == 503
            assert "the database is away" in await ready.text()
        await until(lambda: copied(fra) == IMAGES, agents)
        assert by_cut() == puts
        assert "ending 2 sessions of agents that are silent: cut" in agents.agents["b"].log
        way.mend()
        await until(lambda: "connected to the database again" in cut.log, agents)
        await become(agents, lambda: idle(agents, "cut"))
        assert by_cut() == puts
    assert twice(fra) == {}


async def test_a_restart_of_the_database_costs_nothing_but_time(
    tmp_path: Path, postgres: Postgres, database: Database, hub: FakeRegistry, fra: FakeRegistry
) -> None:
    async with crew(fleet(tmp_path, database, hub, fra, slow="500kB")) as agents:
        for name in ("a", "b"):
            await agents.start(name)
        await until(lambda: copied(fra) >= 5, agents)
        postgres.restart()  # not in a thread: the server would end with it
        await until(lambda: copied(fra) == IMAGES, agents)
        await until(lambda: "connected to the database again" in agents.agents["a"].log, agents)
        for name in ("a", "b"):
            assert await agents.agents[name].end(signal.SIGTERM) == 0
    assert twice(fra) == {}


async def said(agents: Crew, name: str) -> tuple[bool, list[object]]:
    """Whether an agent is draining, and what it does, by the list that agent b gives."""
    listed = (await agents.ask("b", "fleet", "--json")).json
    (found,) = [each for each in listed["agents"] if each["agent"] == name]
    return found["state"] == "draining", found["doing"]


async def test_a_drained_agent_leaves_everything_to_the_others(
    tmp_path: Path, database: Database, hub: FakeRegistry, fra: FakeRegistry
) -> None:
    async with crew(fleet(tmp_path, database, hub, fra, slow="500kB")) as agents:
        for name in ("a", "b"):
            await agents.start(name)
        await until(lambda: copied(fra) >= 3, agents)
        drained = await agents.ask("b", "fleet", "drain", "a")
        assert drained.code == 0, drained.stderr
        wrong = await agents.ask("b", "fleet", "drain", "c")
        assert wrong.code == 2
        assert "unknown agent 'c'; the fleet has a, b" in wrong.stderr
        await until(lambda: copied(fra) == IMAGES, agents)
        async with asyncio.timeout(20):  # an agent says with its next heartbeat that it has ended its work
            while await said(agents, "a") != (True, []):
                pass
    assert twice(fra) == {}


async def test_an_agent_stops_in_time_while_the_database_hangs(
    tmp_path: Path, database: Database, hub: FakeRegistry, fra: FakeRegistry
) -> None:
    """It waits for the answer to a statement, which no time bounds."""
    (tmp_path / "sitecustomize.py").write_text("from replicator.cli import run\nrun.STOP_SECONDS = 1.0\n")
    async with (
        way_to(database.port) as way,
        crew(fleet(tmp_path, database, hub, fra)) as agents,
    ):
        agent = await agents.start("a", port=way.port, environ={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
        await until(lambda: copied(fra) == IMAGES, agents)
        way.cut()
        assert await agent.end(signal.SIGTERM) == 128 + signal.SIGTERM
        assert "not stopped within 1 s of the signal" in agent.log
