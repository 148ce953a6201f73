"""Blobs that no memory holds: how much memory 16 at once take, and how long one over a link that caps each connection."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from bench import measure, servers
from bench.compare import Bench
from bench.measure import CommandFailed
from bench.peers import Task
from bench.rows import Row
from bench.servers import Endpoint

NAME = "memory"
BLOBS = 16
BLOB_BYTES = 1_000_000_000
CAPPED = "capped"
CAPPED_BYTES = 2_000_000_000
CAP = servers.Link(rate=125e6, connection_rate=25e6)
"""1 Gbit/s, of which a connection gets 200 Mbit/s."""
CAPPED_REACH = 0.35
REPOSITORY = "bench/huge"
TAG = "v1.0.0"
READY_SECONDS = 300.0


async def memory(bench: Bench) -> list[Row]:
    """16 blobs of 1 GB at once."""
    return await _streamed(bench, NAME, [BLOB_BYTES] * BLOBS)


async def capped(bench: Bench) -> list[Row]:
    """One blob of 2 GB from behind a link that gives each connection a fifth of what it can."""
    return await _streamed(bench, CAPPED, [CAPPED_BYTES], CAP, CAPPED_REACH)


async def _streamed(
    bench: Bench,
    name: str,
    sizes: Sequence[int],
    link: servers.Link | None = None,
    reach: float | None = None,
) -> list[Row]:
    """Every program once, each with fakes of its own. All `sizes` are the same."""
    folder = bench.folder / name
    folder.mkdir()
    rows = []
    for program in (one for one in bench.programs if one.plain_http):
        said = folder / f"{program.name}-fakes"
        shape = [str(len(sizes)), str(sizes[0])]
        command = [sys.executable, "-m", "bench.streaming", REPOSITORY, TAG, *shape]
        home = folder / program.name
        home.mkdir()
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(servers.process(command, said, said.with_suffix(".log")))
            source_url, destination_url, digest = await first_line(said)
            source, destination = (endpoint(url, folder) for url in (source_url, destination_url))
            if link is not None:
                source = await stack.enter_async_context(servers.through(link, source, home / "link.log"))
            try:
                commands = program.commands(Task(source, [destination], [REPOSITORY], home))
                usage = await measure.run(commands, home / "log")
                _check(destination, digest)
            except CommandFailed as error:
                bench.tell(f"  {program.name} failed: {error}")
                rows.append(Row(name, program.name, [], failure=str(error)))
                continue
        bench.tell(f"  {program.name}: {usage.peak_bytes / 1e6:.0f} MB, {usage.seconds:.1f} s")
        rows.append(Row(name, program.name, [usage], reach=reach, payload_bytes=sum(sizes)))
    return rows


async def first_line(path: Path) -> list[str]:
    """The words of the first line that a process writes to a file, once it is whole."""
    async with asyncio.timeout(READY_SECONDS):
        while True:
            line, newline, _ = await asyncio.to_thread(lambda: path.read_text().partition("\n"))
            if newline:
                return line.split()
            await asyncio.sleep(0.1)


def endpoint(url: str, folder: Path) -> Endpoint:
    """A registry that keeps nothing on disk."""
    return Endpoint(int(urlsplit(url).port or 0), folder, folder / "access.log")


def _check(destination: Endpoint, digest: str) -> None:
    url = f"{destination.url}/v2/{REPOSITORY}/manifests/{TAG}"
    request = urllib.request.Request(url, headers={"Accept": "*/*"}, method="HEAD")  # noqa: S310  # our own loopback URL
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        if answer.headers["Docker-Content-Digest"] != digest:
            raise CommandFailed(f"the tag is {answer.headers['Docker-Content-Digest']}, not {digest}")
