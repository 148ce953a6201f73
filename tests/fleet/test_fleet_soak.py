"""The long tests of a fleet: many images, many agents, many kills."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from replicator.demo.images import image, layer
from replicator.demo.images import load as put
from replicator.fleet.work import Work
from tests.fakes.registry import FakeRegistry
from tests.fleet import light
from tests.fleet.agents import LightAgent, joined
from tests.fleet.processes import become, crew, until
from tests.fleet.test_fleet_processes import Held, copied, fleet, idle, twice
from tests.postgres import Database

pytestmark = pytest.mark.soak

REPOSITORIES, TAGS = 100, 20
SHARDS = 64
SCHEDULES = 50
PATIENCE_SECONDS = 120.0


async def test_2000_images_are_copied_once_whoever_comes_and_goes(tmp_path: Path, database: Database) -> None:
    async with FakeRegistry() as hub, FakeRegistry() as fra:
        for number in range(REPOSITORIES):
            for tag in range(TAGS):
                name = f"{number} {tag}"
                put(hub.store, f"app{number}", f"v{tag}", image(name, [layer(name, 20_000)]))
        async with crew(fleet(tmp_path, database, hub, fra, slow="4MB")) as agents:
            for name in ("a", "b", "c"):
                await agents.start(name)
            await until(lambda: copied(fra) >= 300, agents, 600)
            await agents.agents["a"].end(signal.SIGKILL)
            await until(lambda: copied(fra) >= 800, agents, 600)
            assert await agents.agents["b"].end(signal.SIGTERM) == 0
            await agents.start("d")
            await until(lambda: copied(fra) == REPOSITORIES * TAGS, agents, 600)
    assert twice(fra) == {}


async def test_an_agent_that_was_frozen_for_40_s_sets_no_tag_back(tmp_path: Path, database: Database) -> None:
    """With the intervals that are the default."""
    held = Held()
    async with FakeRegistry() as hub, FakeRegistry() as fra:
        for number in range(40):
            put(hub.store, f"app{number}", "v1", image(f"{number}", [layer(f"{number}", 100_000)]))
        hub.fault("GET", "/blobs/", held)
        agents = fleet(tmp_path, database, hub, fra)
        agents.fleet = "shards = 16\njobs = 4"
        async with crew(agents):
            frozen = await agents.start("frozen")
            await asyncio.wait_for(held.reached.wait(), 60)
            frozen.send(signal.SIGSTOP)
            newer = image("newer", [layer("newer", 1_000)])
            put(hub.store, held.repository, "v1", newer)
            held.release.set()
            await agents.start("other")
            await asyncio.sleep(40.0)
            await until(lambda: copied(fra) == 40, agents)
            puts = fra.count("PUT", "/manifests/")
            frozen.send(signal.SIGCONT)
            await until(lambda: "connected to the database again" in frozen.log, agents)
            await become(agents, lambda: idle(agents, "frozen"))
            assert fra.count("PUT", "/manifests/") == puts
            assert fra.store.repositories[held.repository].tags["v1"] == newer.digest


class Fleet:
    """Light agents as processes."""

    def __init__(self, dsn: str, dice: random.Random, *, fencing: bool) -> None:
        self.dsn = dsn
        self.dice = dice
        self.fencing = fencing
        self.agents: dict[str, asyncio.subprocess.Process] = {}
        self.started = 0

    async def start(self) -> None:
        """One more, with a name of its own."""
        self.started += 1
        name = f"agent{self.started}"
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "tests.fleet.light",
                self.dsn,
                name,
                str(self.dice.random()),
                str(int(self.fencing)),
            ),
            stdout=asyncio.subprocess.PIPE,
        )
        self.agents[name] = process
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.stdout.readline() == b"ready\n"

    async def end(self, name: str) -> None:
        """Kills it."""
        process = self.agents.pop(name)
        process.kill()
        await process.communicate()

    async def disturb(self) -> None:
        """Kills one, freezes one for a while, or starts one."""
        name = self.dice.choice(sorted(self.agents))
        match self.dice.choice(("kill", "freeze", "nothing")):
            case "kill":
                await self.end(name)
                await self.start()
            case "freeze":
                self.agents[name].send_signal(signal.SIGSTOP)
                await asyncio.sleep(self.dice.uniform(0.1, 3.0))
                self.agents[name].send_signal(signal.SIGCONT)
            case _:
                await asyncio.sleep(self.dice.uniform(0.0, 0.5))


@asynccontextmanager
async def processes(dsn: str, count: int, dice: random.Random, *, fencing: bool) -> AsyncIterator[Fleet]:
    """Some agents at work, killed at the end."""
    fleet = Fleet(dsn, dice, fencing=fencing)
    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(fleet.start())
        yield fleet
    finally:
        for name in list(fleet.agents):
            await fleet.end(name)


def prepared(dsn: str) -> psycopg.Connection[tuple[int, ...]]:
    """Tags that are behind."""
    connection = psycopg.connect(dsn, autocommit=True)
    connection.execute("DROP TABLE IF EXISTS source, destination, written")
    connection.execute(light.TABLES.encode())
    connection.execute("INSERT INTO source SELECT i, 1 FROM generate_series(0, %s) i", (SHARDS - 1,))
    connection.execute("INSERT INTO destination SELECT shard, 0 FROM source")
    return connection


async def all_in_step(registry: psycopg.Connection[tuple[int, ...]]) -> None:
    """Returns when each tag is what it is at the source."""
    behind = "SELECT count(*) FROM source JOIN destination USING (shard) WHERE source.version <> destination.version"
    async with asyncio.timeout(PATIENCE_SECONDS):
        while registry.execute(behind.encode()).fetchone() != (0,):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def looks() -> list[Work]:
    return [Work("apps", ("fra",), "interval", shard=shard, of=SHARDS) for shard in range(SHARDS)]


async def test_16_processes_on_one_queue_do_each_piece_of_work_once(shared: str) -> None:
    with prepared(shared) as registry:
        async with (
            processes(shared, 16, random.Random(1), fencing=False),
            joined(shared, LightAgent("asks"), works=False) as asks,
        ):
            for version in range(2, 7):
                registry.execute("UPDATE source SET version = %s", (version,))
                await asks.fleet.defer(looks())
                await all_in_step(registry)
        twice = "SELECT count(*) FROM written GROUP BY shard, version HAVING count(*) > 1"
        assert registry.execute(twice.encode()).fetchall() == []
        busy = registry.execute("SELECT count(DISTINCT agent) FROM written").fetchone()
        assert busy is not None
        assert busy[0] > 8


@pytest.mark.parametrize("seed", range(SCHEDULES))
async def test_kills_and_freezes_at_random_moments_end_right(shared: str, seed: int) -> None:
    dice = random.Random(seed)
    with prepared(shared) as registry:
        async with (
            processes(shared, 3, dice, fencing=True) as fleet,
            joined(shared, LightAgent("asks"), works=False) as asks,
        ):
            for version in range(2, 6):
                registry.execute("UPDATE source SET version = %s", (version,))
                await asks.fleet.defer(looks())
                await fleet.disturb()
            await all_in_step(registry)
        back = registry.execute("SELECT * FROM written WHERE version < before").fetchall()
        assert back == [], "no tag was set back"
