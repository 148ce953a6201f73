"""One, two and four agents that divide a copy; what a scan with nothing to do costs; how soon a lost agent's work goes on.

`python -m bench.agents [--agents N,N...] [--images N]` prints what docs/scaling.md quotes: `replicator run` as processes, registries
in memory, and PostgreSQL.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import secrets
import signal
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import pushing, servers
from bench.corpus import FAR, MEGABYTE, Corpus, Shape
from bench.inmemory import registry
from bench.measure import cpu_seconds
from bench.servers import Endpoint
from tests.acceptance.daemon import Daemon
from tests.acceptance.program import Program
from tests.fleet.processes import Crew, crew
from tests.postgres import Postgres, running_postgres

SHARDS, JOBS = 32, 8
RULE = """
[[rule]]
name = "apps"
source = "hub"
destinations = ["fra"]
repositories = ["**"]
"""
TOKEN = secrets.token_hex(16)
LARGE = Shape("large", 5, 2, (2 * MEGABYTE,) * 3, (3 * MEGABYTE,) * 2)
"""10 images; three layers that all share, two of each image's own: 66 MB."""
TICK_SECONDS = 5
TICKS = 6
PATIENCE_SECONDS = 400


async def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", default="1,2,4")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    print(f"cores: {os.cpu_count()}, load: {os.getloadavg()[0]:.1f}")
    with running_postgres() as server, tempfile.TemporaryDirectory() as folder:
        small = replace(FAR, tags=options.images // FAR.repositories)
        for load in (Load(small, 0.0), Load(small, 0.08), Load(LARGE, 0.0)):
            for count in (0, *map(int, options.agents.split(","))):
                if options.only in {"", "copy", load.name}:
                    place = Path(folder) / f"{load.name}-{count}"
                    place.mkdir()
                    await copied(server, place, count, load)
        for count in (0, 1, 3) if options.only in {"", "tick"} else ():
            place = Path(folder) / f"tick-{count}"
            place.mkdir()
            await ticks(server, place, count, small)


@dataclass(frozen=True, slots=True)
class Load:
    """What is copied, and how far away both registries are."""

    shape: Shape
    round_trip_seconds: float

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.shape.name}-{self.round_trip_seconds * 1000:.0f}ms"


@dataclass(frozen=True, slots=True)
class Counts:
    """What some agents have done: requests, bytes written, and bytes written twice."""

    requests: int
    written: int
    twice: int


async def copied(server: Postgres, folder: Path, agents: int, load: Load) -> None:
    """From the word to copy until the destination has everything; `agents` 0 is one alone, on SQLite."""
    async with _pair(folder, load.round_trip_seconds) as (source, destination, seen):
        async with _running(server, folder, agents, seen, RULE) as running:
            held = await pushing.push(source, load.shape)
            await asyncio.sleep(1)
            before = _counts(running.urls.values())
            began = time.monotonic()
            _post(next(iter(running.urls.values())) + "/api/v1/rules/apps/sync")
            await _until_there(destination, held)
            seconds = time.monotonic() - began
            after = _counts(running.urls.values())
        lacking = await pushing.shortcomings(destination, held)
        assert not lacking, lacking[0]
    print(
        f"{load.name}, {_name(agents)}: {held.tags} images in {seconds:.1f} s,"
        f" {(after.requests - before.requests) / held.tags:.2f} requests an image,"
        f" {(after.written - before.written) / 1e6:.1f} MB, twice {after.twice - before.twice} B"
        f" (load {os.getloadavg()[0]:.1f})"
    )


async def ticks(server: Postgres, folder: Path, agents: int, shape: Shape) -> None:
    """What a scan costs that finds nothing to do."""
    rule = f'{RULE}interval = "{TICK_SECONDS}s"\n'
    async with _pair(folder, 0.0) as (source, destination, seen):
        held = await pushing.push(source, shape)
        async with _running(server, folder, agents, seen, rule) as running:
            await _until_there(destination, held)
            await asyncio.sleep(3 * TICK_SECONDS)
            pids = [agent._running.pid for agent in running.agents.values()]  # noqa: SLF001
            requests, cpu = _counts(running.urls.values()).requests, sum(map(cpu_seconds, pids))
            await asyncio.sleep(TICKS * TICK_SECONDS)
            requests = _counts(running.urls.values()).requests - requests
            cpu = sum(map(cpu_seconds, pids)) - cpu
    print(
        f"{_name(agents)}: a tick of {held.tags} images in {shape.repositories} repositories with nothing to do:"
        f" {requests / TICKS:.0f} requests, {cpu / TICKS:.2f} s of CPU (load {os.getloadavg()[0]:.1f})"
    )


def _name(agents: int) -> str:
    return f"{agents} of a fleet" if agents else "1 alone"


@contextlib.asynccontextmanager
async def _pair(folder: Path, round_trip: float) -> AsyncIterator[tuple[Endpoint, Endpoint, list[Endpoint]]]:
    """Source, destination, and both as agents see them."""
    async with contextlib.AsyncExitStack() as stack:
        ends, seen = [], []
        for name in ("source", "destination"):
            end = await stack.enter_async_context(registry(folder / name, "distribution"))
            ends.append(end)
            if round_trip:
                link = servers.Link(delay_seconds=round_trip / 2)
                end = await stack.enter_async_context(servers.through(link, end, folder / f"{name}.log"))
            seen.append(end)
        yield ends[0], ends[1], seen


@contextlib.asynccontextmanager
async def _running(
    server: Postgres, folder: Path, agents: int, seen: Sequence[Endpoint], rule: str
) -> AsyncIterator[Crew]:
    database = server.create()
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)
    rule += f'[http]\ntoken = {{ file = "{token}" }}\nmetrics_open = true\n'
    sites = {name: f'url = "{end.url}"' for name, end in zip(("hub", "fra"), seen, strict=True)}
    fleet = Crew(folder, database, sites, rule, f"shards = {SHARDS}\njobs = {JOBS}")
    async with crew(fleet) as running:
        if agents:
            for number in range(agents):
                await running.start(f"agent-{number}")
            await asyncio.sleep(6)  # everyone has heard of everyone
        else:
            await _alone(running)
        yield running
        for agent in running.agents.values():
            with contextlib.suppress(TimeoutError):
                await agent.end(signal.SIGTERM)
    server.drop(database)


async def _alone(running: Crew) -> None:
    folder, port = running.folder / "alone", servers.free_port()
    folder.mkdir()
    text = f'[agent]\nname = "alone"\nlisten = "127.0.0.1:{port}"\nstate = "sqlite:///{folder}/state.db"\n'
    text += "".join(f"[site.{site}]\n{keys}\n" for site, keys in running.sites.items())
    (folder / "replicator.toml").write_text(text + running.rules)
    running.urls["alone"] = f"http://127.0.0.1:{port}"
    running.agents["alone"] = Daemon(Program(folder), folder / "log", running.urls["alone"])
    await running.agents["alone"].start()


async def _until_there(destination: Endpoint, held: Corpus) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while _tags(destination, held) < held.tags:  # noqa: ASYNC110
            await asyncio.sleep(0.2)  # what it waits for is in other processes


def _tags(endpoint: Endpoint, held: Corpus) -> int:
    found = 0
    for name in held.images:
        with contextlib.suppress(OSError):
            found += _get(f"{endpoint.url}/v2/{name}/tags/list").count('"') // 2 - 3
    return found


def _counts(urls: Iterable[str]) -> Counts:
    text = "\n".join(_get(f"{url}/metrics") for url in urls)

    def total(metric: str) -> int:
        return int(sum(map(float, re.findall(rf"^{metric}(?:{{.*}})? (\S+)$", text, re.MULTILINE))))

    return Counts(
        total("replicator_requests_total"),
        total("replicator_bytes_total"),
        total("replicator_duplicate_bytes_total"),
    )


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310  # our own loopback URLs
        return str(answer.read().decode())


def _post(url: str) -> None:
    request = urllib.request.Request(  # noqa: S310
        url,
        data=b"{}",
        method="POST",
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310
        pass


if __name__ == "__main__":
    asyncio.run(main())
