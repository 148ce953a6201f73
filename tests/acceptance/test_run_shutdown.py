"""How an agent ends: with 0, soon, and with nothing left open that Python would warn of."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from replicator.demo.images import image, load
from replicator.model.digest import Digest
from tests.acceptance.agent import PATIENCE_SECONDS, TURN_SECONDS
from tests.acceptance.daemon import Daemon
from tests.acceptance.program import Program, rule
from tests.acceptance.test_cli_signals import Held
from tests.fakes.process import free_port
from tests.fakes.registry import FakeRegistry

DEVELOPMENT = {"PYTHONDEVMODE": "1"}
"""Python tells of what was not closed or awaited, and asyncio of what it was left with."""
COMPLAINTS = re.compile(
    r".*(?:Warning|Traceback|was destroyed|never awaited|never retrieved|Unclosed|Exception ignored).*"
)


def tags(fake: FakeRegistry) -> dict[str, dict[str, Digest]]:
    return {name: content.tags for name, content in fake.store.repositories.items()}


async def until(is_so: Callable[[], bool]) -> None:
    for _ in range(int(PATIENCE_SECONDS / TURN_SECONDS)):
        if is_so():
            return
        await asyncio.sleep(TURN_SECONDS)
    raise AssertionError("it never came")


@dataclass
class World:
    daemon: Daemon
    hub: FakeRegistry
    fra: FakeRegistry
    sin: FakeRegistry
    url: str

    async def in_step(self, *fakes: FakeRegistry) -> None:
        """Returns once these have it all, both destinations where none is named."""
        await until(lambda: all(tags(fake) == tags(self.hub) for fake in fakes or (self.fra, self.sin)))

    async def ends_cleanly(self) -> None:
        assert await self.daemon.end(signal.SIGTERM) == 0
        assert self.daemon.log.endswith(" stopped\n")
        assert COMPLAINTS.findall(self.daemon.log) == []


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with FakeRegistry() as hub, FakeRegistry() as fra, FakeRegistry() as sin:
        for number in range(4):
            load(hub.store, f"platform/app{number}", "v1", image("app", number + 1))
        url = f"http://127.0.0.1:{free_port()}"
        program = Program(tmp_path)
        path = program.write_config(
            {"hub": hub.url, "fra": fra.url, "sin": sin.url},
            rule(destinations=("fra", "sin"), more='interval = "1s"'),
        )
        path.write_text(path.read_text().replace("[agent]\n", f'[agent]\nlisten = "{url[7:]}"\n', 1))
        daemon = Daemon(program, tmp_path / "agent.log", url, DEVELOPMENT)
        await daemon.start()
        try:
            yield World(daemon, hub, fra, sin, url)
        finally:
            await daemon.kill()


async def test_agent_leaves_nothing_open_when_clients_are_connected(world: World, tmp_path: Path) -> None:
    async with aiohttp.ClientSession(world.url) as session:
        async with session.get("/metrics") as answer:
            await answer.read()
        async with session.get("/api/v1/events") as events:
            await events.content.readany()
            await world.in_step()
            world.daemon.send(signal.SIGHUP)
            await world.ends_cleanly()
    assert not list((tmp_path / "cache").rglob("*"))


async def test_agent_leaves_nothing_open_when_it_ends_in_mid_blob(world: World, tmp_path: Path) -> None:
    held = Held()
    world.hub.fault("GET", "/blobs/", held, times=None)
    load(world.hub.store, "platform/late", "v1", image("late"))
    await held.begun.wait()
    ending = asyncio.create_task(world.ends_cleanly())
    await until(lambda: "SIGTERM" in world.daemon.log)
    held.let_go.set()
    await ending
    assert not list((tmp_path / "cache").rglob("*"))


async def test_agent_leaves_nothing_open_at_a_dead_destination(world: World) -> None:
    await world.in_step()
    await world.sin.__aexit__()
    load(world.hub.store, "platform/late", "v1", image("late"))
    await world.in_step(world.fra)
    await world.ends_cleanly()
