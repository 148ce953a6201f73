"""100,000 tags and nothing to do: how much memory, and how many requests."""

from __future__ import annotations

import contextlib
import json
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

from bench import measure, servers
from bench.compare import Bench
from bench.peers import OURS, Task
from bench.rows import Row
from bench.servers import Endpoint

NAME = "tags-100k"
TAGS = 100_000
REPOSITORY = "bench/tags"


async def many_tags(bench: Bench) -> list[Row]:
    """Ours alone: the first run learns that nothing differs, the second, measured, has the state to rely on."""
    folder = bench.folder / NAME
    folder.mkdir()
    rows = []
    async with _fake(folder, "source") as source, _fake(folder, "destination") as destination:
        for program in (one for one in bench.programs if one.name == OURS):
            task = Task(source, [destination], [REPOSITORY], folder)
            first = await measure.run(program.commands(task), folder / "first")
            bench.tell(f"  {program.name}, first run: {first.seconds:.1f} s, {first.peak_bytes / 1e6:.0f} MB")
            before = {"source": _counts(source), "destination": _counts(destination)}
            usage = await measure.run(program.commands(task), folder / "second")
            asked = {
                f"{side} {what}": float(count - before[side].get(what, 0))
                for side, end in (("source", source), ("destination", destination))
                for what, count in _counts(end).items()
                if count > before[side].get(what, 0)
            }
            bench.tell(f"  {program.name}: {usage.seconds:.1f} s, {usage.peak_bytes / 1e6:.0f} MB, {asked}")
            notes = {"first run's peak MB": round(first.peak_bytes / 1e6), **asked}
            rows.append(Row(NAME, program.name, [usage], notes=notes))
    return rows


@contextlib.asynccontextmanager
async def _fake(folder: Path, name: str) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint(servers.free_port(), folder, folder / f"{name}.log")
    command = [sys.executable, "-m", "bench.fake", str(endpoint.port), REPOSITORY, str(TAGS)]
    with servers.process(command, endpoint.access_log, endpoint.access_log) as running:
        await servers.reachable(endpoint.port, running)
        yield endpoint


def _counts(endpoint: Endpoint) -> dict[str, int]:
    with urllib.request.urlopen(f"{endpoint.url}/counts", timeout=10) as answer:  # noqa: S310  # our own loopback URL
        counts: dict[str, int] = json.load(answer)
    return counts
