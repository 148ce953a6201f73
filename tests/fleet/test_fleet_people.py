"""What people ask of a fleet, at whichever agent they ask it: agents as processes on PostgreSQL."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from replicator.demo.images import image
from replicator.demo.images import load as put
from tests.acceptance.agent import NotifySocket
from tests.fakes.registry import FakeRegistry
from tests.fleet.processes import Crew, become, crew, until
from tests.fleet.proxy import way_to
from tests.postgres import Database

TOKEN = "correct-horse"
AWAY = "the database is away"


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        for number in range(6):
            put(registry.store, f"app{number}", "v1", image(f"{number}"))
        yield registry


@pytest.fixture
async def fra() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        yield registry


def fleet(folder: Path, database: Database, hub: FakeRegistry, fra: FakeRegistry) -> Crew:
    (folder / "token").write_text(TOKEN)
    rules = f"""
[http]
token = {{ file = "{folder}/token" }}
[webhook.hub]
site = "hub"
token = {{ file = "{folder}/token" }}
[[rule]]
name = "apps"
source = "hub"
destinations = ["fra"]
repositories = ["app*"]
interval = "30d"
"""
    sites = {"hub": f'url = "{hub.url}"\n', "fra": f'url = "{fra.url}"\n'}
    return Crew(folder, database, sites, rules, fleet='shards = 4\njobs = 2\nheartbeat = "1s"')


def copied(registry: FakeRegistry) -> int:
    return sum(len(repository.tags) for repository in registry.store.repositories.values())


async def post(agents: Crew, name: str, path: str, body: Any) -> int:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(agents.urls[name] + path, json=body) as answer,
    ):
        return answer.status


@asynccontextmanager
async def two_at_work(
    folder: Path, database: Database, hub: FakeRegistry, fra: FakeRegistry
) -> AsyncIterator[Crew]:
    """Agents a and b, which have copied everything."""
    async with crew(fleet(folder, database, hub, fra)) as agents:
        for name in ("a", "b"):
            await agents.start(name)
        await until(lambda: copied(fra) == 6, agents)
        yield agents


@pytest.mark.timeout(240)
async def test_requests_and_pauses_count_whichever_agent_they_reach(
    tmp_path: Path, database: Database, hub: FakeRegistry, fra: FakeRegistry
) -> None:
    async with two_at_work(tmp_path, database, hub, fra) as agents:
        pushed = image("pushed")
        put(hub.store, "app3", "v2", pushed)
        event = {
            "action": "push",
            "target": {"repository": "app3", "tag": "v2", "digest": str(pushed.digest)},
        }
        event["target"] |= {"mediaType": "application/vnd.oci.image.manifest.v1+json"}  # type: ignore[operator]
        event |= {"id": "1", "request": {"host": hub.url.removeprefix("http://")}}
        assert await post(agents, "a", "/webhooks/hub", {"events": [event]}) in {200, 202, 204}
        await until(lambda: copied(fra) == 7, agents)
        for name in ("a", "b"):

            async def has_the_run(name: str = name) -> bool:
                runs = (await agents.get(name, "/api/v1/runs"))["runs"]
                return any(
                    (each["cause"], each["repositories"], each["outcome"]) == ("webhook", ["app3"], "ok")
                    for each in runs
                )

            await become(agents, has_the_run)

        assert await post(agents, "a", "/api/v1/rules/apps/pause", {}) == 200

        async def paused(name: str) -> bool:
            return bool((await agents.get(name, "/api/v1/rules/apps"))["paused"])

        await become(agents, lambda: paused("b"))
        assert await post(agents, "b", "/api/v1/rules/apps/sync", {}) == 409
        assert await post(agents, "b", "/api/v1/rules/apps/resume", {}) == 200

        async def resumed() -> bool:
            return not await paused("a")

        await become(agents, resumed)

        put(hub.store, "app4", "v2", image("later"))
        synced = await agents.ask("a", "sync", "--remote", agents.urls["b"], "--json")
        assert synced.code == 0, synced.stderr + agents.log
        assert copied(fra) == 8, "the whole rule, whoever did its shards"
        (rule,) = synced.json["rules"]
        tags = rule["destinations"][0]["totals"]["tags"]
        assert tags["copied"] + tags["unchanged"] == 8


@pytest.mark.timeout(180)
async def test_a_reload_is_of_one_agent(
    tmp_path: Path, database: Database, hub: FakeRegistry, fra: FakeRegistry
) -> None:
    async with two_at_work(tmp_path, database, hub, fra) as agents:
        put(hub.store, "more", "v1", image("more"))
        more = """[[rule]]
name = "more"
source = "hub"
destinations = ["fra"]
repositories = ["more"]
interval = "5s"
"""
        for name in ("a", "b"):
            with (tmp_path / name / "replicator.toml").open("a") as config:
                config.write(more)
        agents.agents["a"].send(signal.SIGHUP)

        async def names(name: str) -> list[str]:
            return [each["rule"] for each in (await agents.get(name, "/api/v1/rules"))["rules"]]

        async def knows_both(name: str) -> bool:
            return await names(name) == ["apps", "more"]

        await become(agents, lambda: knows_both("a"))
        assert await names("b") == ["apps"], "the config is a file of each machine"
        await until(lambda: copied(fra) == 7, agents)  # by a, at one of the next ticks
        agents.agents["b"].send(signal.SIGHUP)
        await become(agents, lambda: knows_both("b"))


@pytest.mark.timeout(180)
async def test_all_that_watch_an_agent_are_told_that_its_database_is_away_and_back(
    tmp_path: Path, database: Database, hub: FakeRegistry, fra: FakeRegistry
) -> None:
    manager = NotifySocket(f"@replicator-fleet-{tmp_path}")
    try:
        async with way_to(database.port) as way, crew(fleet(tmp_path, database, hub, fra)) as agents:
            await agents.start("a", port=way.port, environ={"NOTIFY_SOCKET": manager.path})
            await until(lambda: copied(fra) == 6, agents)
            assert await seen(agents) == (200, "1.0", False)
            way.cut()
            await becomes_seen(agents, (503, "0.0", True))
            while AWAY not in (await manager.receives()).get("STATUS", ""):
                pass
            way.mend()
            await becomes_seen(agents, (200, "1.0", False))
            while AWAY in (await manager.receives()).get("STATUS", AWAY):
                pass
    finally:
        manager.close()


async def seen(agents: Crew) -> tuple[int, str, bool]:
    """What `/readyz` answers, what the metric says, and whether the page says that the database is away."""
    async with aiohttp.ClientSession(agents.urls["a"]) as session:
        async with session.get("/readyz") as ready:
            assert (AWAY in await ready.text()) == (ready.status == 503)
        async with session.get("/metrics") as metrics:
            (up,) = [
                line.split()[1]
                for line in (await metrics.text()).splitlines()
                if line.startswith("replicator_fleet_database_up ")
            ]
        async with session.get("/") as page:
            return ready.status, up, AWAY in await page.text()


async def becomes_seen(agents: Crew, wanted: tuple[int, str, bool]) -> None:
    async def is_seen() -> bool:
        return await seen(agents) == wanted

    await become(agents, is_seen)
