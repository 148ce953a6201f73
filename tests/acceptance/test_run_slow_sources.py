"""An agent whose source is slow in one place, or dark for a while: nothing else waits, and nothing is lost."""

from __future__ import annotations

import asyncio
import io
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp
import pytest
from aiohttp import web

from replicator.demo.images import BuiltImage, image, layer, load
from replicator.flow import limits
from replicator.flow.settings import LimitSettings
from tests.acceptance.agent import PATIENCE_SECONDS, TURN_SECONDS
from tests.acceptance.daemon import Daemon
from tests.acceptance.program import Program, rule
from tests.acceptance.wired import wired
from tests.fakes.faults import Hold, drip, reset_unanswered
from tests.fakes.process import free_port
from tests.fakes.registry import Exchange, FakeRegistry
from tests.protocol.daemon.test_daemon_http_webhooks import V1, envelope, event

HOOK_TOKEN = "hook-token"
SLOW_RATE = 20_000
SLOW_BYTES = 4_000_000
"""More than three minutes at `SLOW_RATE`."""
LARGE_BYTES = 100_000
PAIR = '{destination="fra",rule="platform"'


@dataclass
class World:
    daemon: Daemon
    hub: FakeRegistry
    fra: FakeRegistry
    session: aiohttp.ClientSession
    url: str
    folder: Path

    def push(self, repository: str, tag: str = "v1", built: BuiltImage | None = None) -> BuiltImage:
        built = built or image(repository, 1)
        load(self.hub.store, f"platform/{repository}", tag, built)
        return built

    def slow(self, repository: str) -> None:
        """Pushes an image whose layer the source gives out at `SLOW_RATE`."""
        built = self.push(repository, built=image(repository, [layer(repository, SLOW_BYTES)]))
        self.hub.fault("GET", f"/blobs/{built.manifest.blobs[1].digest}", drip(SLOW_RATE), times=None)

    async def tell(self, *repositories: str, tag: str = "v1") -> None:
        """Has the source tell the agent of a push."""
        told = []
        for name in repositories:
            digest = self.hub.store.repositories[f"platform/{name}"].tags[tag]
            told.append(event(repository=f"platform/{name}", tag=tag, digest=digest))
        headers = {"Content-Type": V1, "Authorization": f"Bearer {HOOK_TOKEN}"}
        url, body = f"{self.url}/webhooks/hub", io.BytesIO(envelope(*told))
        async with self.session.post(url, data=body, headers=headers) as answer:
            assert answer.status == 202

    def has(self, repository: str, tag: str = "v1") -> bool:
        held = self.fra.store.repositories.get(f"platform/{repository}")
        return held is not None and tag in held.tags

    async def until(self, *repositories: str, tag: str = "v1") -> None:
        """Returns once the destination has the tag in all of these."""
        for _ in range(int(PATIENCE_SECONDS / TURN_SECONDS)):
            if all(self.has(name, tag) for name in repositories):
                return
            await asyncio.sleep(TURN_SECONDS)
        raise AssertionError(self.daemon.log)

    async def dripping(self, count: int) -> None:
        """Returns once so many slow blobs are being read."""
        for _ in range(int(PATIENCE_SECONDS / TURN_SECONDS)):
            if len(self.unfinished) == count:
                return
            await asyncio.sleep(TURN_SECONDS)
        raise AssertionError(self.daemon.log)

    @property
    def unfinished(self) -> Sequence[str]:
        """Repositories with a layer of which some came and some did not."""
        found = (entry for entry in self.hub.find("GET", "/blobs/") if 0 < entry.bytes_out < SLOW_BYTES)
        return [entry.path for entry in found if entry.bytes_out > 10_000]

    def scans(self, repository: str) -> int:
        """How often the source was asked for the tags of a repository."""
        return self.hub.count("GET", f"/v2/platform/{repository}/tags/list")

    async def metrics(self) -> dict[str, float]:
        async with self.session.get(f"{self.url}/metrics") as response:
            lines = (await response.text()).splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    async def failed_runs(self, count: int) -> None:
        """Returns once so many runs were in vain."""
        name = 'replicator_runs_total{destination="fra",outcome="failed",rule="platform"}'
        found = 0.0
        for _ in range(int(PATIENCE_SECONDS / TURN_SECONDS)):
            found = (await self.metrics())[name]
            if found >= count:
                return
            await asyncio.sleep(TURN_SECONDS)
        raise AssertionError(f"{found} runs failed: {self.daemon.log}")

    async def settled(self) -> None:
        """Returns once nothing is pending, and no event is kept."""
        states = ("pending", "failed", "unknown")
        names = [f'replicator_tags{PAIR},state="{state}"}}' for state in states]
        names.append(f"replicator_lag_seconds{PAIR}}}")
        found: dict[str, float] = {}
        for _ in range(int(PATIENCE_SECONDS / TURN_SECONDS)):
            samples = await self.metrics()
            found = {name: samples[name] for name in names} | {"events": self.events_kept}
            if not any(found.values()):
                return
            await asyncio.sleep(TURN_SECONDS)
        raise AssertionError(found)

    @property
    def events_kept(self) -> int:
        """Events in the state."""
        with closing(sqlite3.connect(f"file:{self.folder}/state.db?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])


class Start(Protocol):
    """Starts an agent with this interval, and has these repositories in step."""

    def __call__(self, interval: str, *repositories: str) -> Awaitable[World]: ...


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def started(interval: str, *repositories: str) -> World:
            """An agent that has these in step."""
            hub, fra = [await stack.enter_async_context(FakeRegistry()) for _ in range(2)]
            session = await stack.enter_async_context(aiohttp.ClientSession())
            url = f"http://127.0.0.1:{free_port()}"
            program = Program(tmp_path)
            hook = f'[webhook.hub]\nsite = "hub"\ntoken = "{HOOK_TOKEN}"\n'
            text = rule(more=f'interval = "{interval}"') + hook
            path = program.write_config({"hub": hub.url, "fra": fra.url}, text)
            listen = f'[agent]\nlisten = "{url.removeprefix("http://")}"\n'
            path.write_text(path.read_text().replace("[agent]\n", listen, 1))
            daemon = Daemon(program, tmp_path / "log", url)
            world = World(daemon, hub, fra, session, url, tmp_path)
            for name in repositories:
                world.push(name, "v0")
            stack.push_async_callback(daemon.kill)
            await daemon.start()
            await world.until(*repositories, tag="v0")
            return world

        yield started


async def test_tags_of_free_repositories_are_visible_within_two_intervals_of_a_slow_blob(make: Start) -> None:
    world = await make("1s", "one", "two")
    world.slow("slow")
    await world.dripping(1)
    for number in (1, 2):
        seen = {name: world.scans(name) for name in ("one", "two")}
        for name in seen:
            world.push(name, f"v{number}")
        await world.until("one", "two", tag=f"v{number}")
        for name, before in seen.items():
            assert world.scans(name) - before <= 2
    assert not world.has("slow")
    assert len(world.unfinished) == 1, "the slow blob is read once, and goes on"


async def test_fifth_event_is_not_starved_by_four_repositories_in_hand(make: Start) -> None:
    world = await make("1h", "first")
    slow = [f"slow{number}" for number in range(4)]
    for name in slow:
        world.slow(name)
    await world.tell(*slow)
    await world.dripping(4)
    for name in slow:
        world.push(name, "v2")
    await world.tell(*slow, tag="v2")
    world.push("free")
    await world.tell("free")
    await world.until("free")
    assert not any(world.has(name) for name in slow)
    assert len(world.unfinished) == 4
    world.hub.released.set()
    await world.until(*slow)
    await world.until(*slow, tag="v2")


@pytest.mark.parametrize("killed", [None, signal.SIGTERM, signal.SIGKILL])
async def test_event_outlives_a_dark_source(make: Start, killed: signal.Signals | None) -> None:
    """By the interval the tag would be there in an hour."""
    world = await make("1h", "app")
    world.hub.fault(".*", "", reset_unanswered(), times=None)
    world.push("app", "late")
    await world.tell("app", tag="late")
    await world.failed_runs(1 if killed else 2)
    if killed is not None:
        await world.daemon.end(killed)
        assert world.events_kept == 1
        await world.daemon.start()
    assert not world.has("app", "late")
    world.hub.clear_faults()
    await world.until("app", tag="late")
    await world.settled()
    assert world.scans("app") < 20, "an event is not looked at in a loop"


@pytest.mark.parametrize("slow", ["source", "target"])
async def test_small_images_do_not_wait_for_the_large_ones_that_fill_the_gate(
    monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """Four may be read, and four written, at once; six large ones are in progress."""
    monkeypatch.setattr(limits, "LARGE_BLOB_BYTES", LARGE_BYTES)
    async with wired() as w, w.engine(limits=LimitSettings(concurrency=4)) as engine:
        await engine.sync([w.rule])
        hold = Hold()

        async def hold_large(exchange: Exchange) -> web.StreamResponse:
            large = int(exchange.request.headers.get("Content-Length", 0)) > LARGE_BYTES
            return await (hold(exchange) if large else exchange.proceed())

        for number in range(6):
            name = f"large{number}"
            digest = w.put(name, "v1", image(name, [layer(name, LARGE_BYTES + 1)])).manifest.blobs[1].digest
            if slow == "source":
                w.source.fault("GET", f"/blobs/{digest}", hold, times=None)
        if slow == "target":
            w.target.fault("PUT|PATCH|POST", "/large./blobs/uploads/", hold_large, times=None)
        first = asyncio.create_task(engine.sync([w.rule], unattended=True))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await hold.reached.wait()
        for number in range(9):
            w.put("app", f"small{number}")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await engine.sync([w.rule], unattended=True)
        assert len(w.tags()["app"]) == 10
        assert not any(name.startswith("large") for name in w.tags())
        hold.release()
        [result] = await first
        assert result.destinations[0].outcome == "ok"
        assert w.tags() == w.whole
