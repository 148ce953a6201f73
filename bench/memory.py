"""16 blobs of 1 GB at once: how much memory."""

from __future__ import annotations

import asyncio
import sys
import urllib.request
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
REPOSITORY = "bench/huge"
TAG = "v1.0.0"
READY_SECONDS = 300.0


async def memory(bench: Bench) -> list[Row]:
    """Every program once, each with fakes of its own."""
    folder = bench.folder / NAME
    folder.mkdir()
    rows = []
    for program in (one for one in bench.programs if one.plain_http):
        said = folder / f"{program.name}-fakes"
        command = [sys.executable, "-m", "bench.streaming", REPOSITORY, TAG, str(BLOBS), str(BLOB_BYTES)]
        with servers.process(command, said, said.with_suffix(".log")):
            source_url, destination_url, digest = await _first_line(said)
            source, destination = (_endpoint(url, folder) for url in (source_url, destination_url))
            home = folder / program.name
            home.mkdir()
            try:
                commands = program.commands(Task(source, [destination], [REPOSITORY], home))
                usage = await measure.run(commands, home / "log")
                _check(destination, digest)
            except CommandFailed as error:
                bench.tell(f"  {program.name} failed: {error}")
                rows.append(Row(NAME, program.name, [], failure=str(error)))
                continue
        bench.tell(f"  {program.name}: {usage.peak_bytes / 1e6:.0f} MB, {usage.seconds:.1f} s")
        rows.append(Row(NAME, program.name, [usage], payload_bytes=BLOBS * BLOB_BYTES))
    return rows


async def _first_line(path: Path) -> list[str]:
    async with asyncio.timeout(READY_SECONDS):
        while True:
            line, newline, _ = await asyncio.to_thread(lambda: path.read_text().partition("\n"))
            if newline:
                return line.split()
            await asyncio.sleep(0.1)


def _endpoint(url: str, folder: Path) -> Endpoint:
    return Endpoint(int(urlsplit(url).port or 0), folder, folder / "access.log")


def _check(destination: Endpoint, digest: str) -> None:
    url = f"{destination.url}/v2/{REPOSITORY}/manifests/{TAG}"
    request = urllib.request.Request(url, headers={"Accept": "*/*"}, method="HEAD")  # noqa: S310  # our own loopback URL
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        if answer.headers["Docker-Content-Digest"] != digest:
            raise CommandFailed(f"the tag is {answer.headers['Docker-Content-Digest']}, not {digest}")
