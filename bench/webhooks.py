"""How long a push to a registry that notifies an agent takes until it is at the destination."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench import corpus, measure, servers
from bench.compare import Bench
from bench.measure import CommandFailed, Usage
from bench.peers import OURS
from bench.rows import Row
from bench.servers import Endpoint, Hook
from replicator.demo.images import BuiltImage, image

NAME = "webhook"
REPEAT = 50
REPOSITORY = "bench/app"
LAYER_BYTES = 8_000
TOKEN = "hook-token"  # noqa: S105  # between two processes of one bench
LIMIT_SECONDS = 30.0
POLL_SECONDS = 0.005


async def webhooks(bench: Bench) -> list[Row]:
    """Ours alone, as a daemon that polls once an hour: one push after the other, each with a layer of its own."""
    if OURS not in {program.name for program in bench.programs}:
        return []
    folder = bench.folder / NAME
    folder.mkdir()
    port = servers.free_port()
    hook = Hook(f"http://{servers.HOST}:{port}/webhooks/source", TOKEN)
    async with (
        servers.registry(folder / "source", folder / "source/storage", hook=hook) as source,
        servers.fresh(folder / "destination") as destination,
        aiohttp.ClientSession() as session,
    ):
        pair = _Pair(source, destination, session)
        command = [sys.executable, "-m", "replicator", "run", "-c", str(_config(folder, port, pair))]
        log = folder / "agent.log"
        with servers.process(command, log, log) as agent:
            await servers.reachable(port, agent)
            await pair.push("start")  # what is measured is an agent that has begun, and not its first look
            before = measure.cpu_seconds(agent.pid)
            seconds = [await pair.push(f"v{number}") for number in range(bench.repeat or REPEAT)]
            cpu = (measure.cpu_seconds(agent.pid) - before) / len(seconds)
            peak = measure.peak_bytes(agent.pid)
    percentiles = (
        statistics.quantiles(seconds, n=20, method="inclusive") if len(seconds) > 1 else seconds * 19
    )
    notes = {"p50": percentiles[9], "p95": percentiles[18], "max": max(seconds)}
    bench.tell(f"  {OURS}: {', '.join(f'{name} {value:.3f} s' for name, value in notes.items())}")
    return [Row(NAME, OURS, [Usage(each, cpu, peak) for each in seconds], notes=notes)]


@dataclass(frozen=True, slots=True)
class _Pair:
    """A registry that is pushed to, and one that is to have the same."""

    source: Endpoint
    destination: Endpoint
    session: aiohttp.ClientSession

    async def push(self, tag: str) -> float:
        """Pushes an image of its own; seconds until it is seen at the destination.

        Raises:
            CommandFailed: it is not there after `LIMIT_SECONDS`.
        """
        built = image(tag, [corpus.layer(f"{NAME}/{tag}", LAYER_BYTES)])
        began = time.perf_counter()
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                await self._push(tag, built)
                while not await self._has(tag, built):  # noqa: ASYNC110  # it happens in other processes
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise CommandFailed(f"{tag} is not at the destination after {LIMIT_SECONDS:.0f} s") from error
        return time.perf_counter() - began

    async def _push(self, tag: str, built: BuiltImage) -> None:
        """As docker does: blobs, then the manifest by tag."""
        base = f"{self.source.url}/v2/{REPOSITORY}"
        for digest, content in built.blobs.items():
            async with self.session.post(f"{base}/blobs/uploads/", raise_for_status=True) as begun:
                location = begun.headers["Location"]
            async with self.session.put(f"{location}&digest={digest}", data=content, raise_for_status=True):
                pass
        headers = {"Content-Type": built.manifest.media_type}
        url = f"{base}/manifests/{tag}"
        async with self.session.put(url, data=built.manifest.body, headers=headers, raise_for_status=True):
            pass

    async def _has(self, tag: str, built: BuiltImage) -> bool:
        url = f"{self.destination.url}/v2/{REPOSITORY}/manifests/{tag}"
        async with self.session.head(url, headers={"Accept": built.manifest.media_type}) as answer:
            return answer.headers.get("Docker-Content-Digest") == built.digest


def _config(folder: Path, port: int, pair: _Pair) -> Path:
    path = folder / "replicator.toml"
    path.write_text(
        f"""\
[agent]
state = "sqlite:///{folder}/state.db"
cache = {{ path = "{folder}/cache" }}
listen = "{servers.HOST}:{port}"
[site.source]
url = "{pair.source.url}"
[site.destination]
url = "{pair.destination.url}"
[webhook.source]
site = "source"
token = "{TOKEN}"
[[rule]]
name = "bench"
source = "source"
destinations = ["destination"]
repositories = ["bench/**"]
interval = "1h"
"""
    )
    return path
