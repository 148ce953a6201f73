"""What the state costs to write: SQLite beside PostgreSQL, microseconds a tag.

`python -m bench.writes [--tags N] [--only sqlite|postgresql]` prints what docs/scaling.md quotes. CPU is the figure to compare:
that of the agent and of the server. The server of the tests does not wait for the disk; SQLite does where it has to.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from bench import measure
from replicator.flow.clock import SystemClock
from replicator.model.digest import Digest, digest_of
from replicator.ports import (
    Entry,
    ImageSeen,
    Listed,
    Noted,
    Placed,
    Placement,
    RunRow,
    Seen,
    TagBelief,
    Unit,
    UnitSeen,
)
from replicator.ports.search import ImageFacts
from replicator.state.place import Place, PostgresPlace
from replicator.state.store import open_state
from tests.postgres import Postgres, running_postgres

TAGS_EACH: Final = 100
"""Of a repository."""
LAYERS: Final = 8
BATCH: Final = 500
RULE, SITE = "bench", "fra"


async def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tags", type=int, default=20_000)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    print(f"cores: {os.cpu_count()}, load: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "postgresql":
            await measured("sqlite", Path(folder) / "state.db", options.tags, lambda: 0.0)
        if options.only != "sqlite":
            with running_postgres() as server:
                database = server.create()
                place = PostgresPlace(database.url, lambda: database.password)
                await measured("postgresql", place, options.tags, lambda: _server_seconds(server))


def _server_seconds(server: Postgres) -> float:
    """CPU time of all processes of a server that live."""
    assert server.process is not None
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return sum(measure.cpu_seconds(pid) for pid in (server.process.pid, *map(int, children)))


async def measured(name: str, place: Place, tags: int, server: Callable[[], float]) -> None:
    """Writes images that were copied, and then that all tags are in step still."""
    state = await open_state(place, clock=SystemClock())
    for what in ("copied", "in step"):
        now = SystemClock().now()
        began, cpu, served = time.monotonic(), time.process_time(), server()
        for number in range(tags):
            for entry in _copied(number, now) if what == "copied" else _in_step(number, now):
                state.record(entry)
            if number % BATCH == BATCH - 1:
                await state.flush()
        await state.close_run(RunRow(RULE, SITE, now, now + 1, "ok", True, tags, 0, 0))
        wall, cpu, served = time.monotonic() - began, time.process_time() - cpu, server() - served
        figures = ", ".join(f"{each / tags * 1e6:.0f}" for each in (cpu, served, wall))
        print(f"{name}, {what}: us a tag of CPU here, of the server's CPU, of wall time: {figures}")
    await state.aclose()


def _copied(number: int, now: float) -> Iterable[Entry]:
    """What a run says of an image that it has copied; base layers are shared."""
    repository = _repository(number)
    digest = digest_of(f"image {number}".encode())
    layers = [_layer(number, index) for index in range(LAYERS)]
    yield _placed(number, digest, now)
    for layer in layers[LAYERS // 2 :]:
        yield Seen(SITE, repository, layer)
    labels = {"org.opencontainers.image.description": f"Serves invoices {number}", "team": f"t{number % 9}"}
    yield ImageSeen(
        ImageFacts(digest, now, "", ("linux/amd64",), labels, tuple((each, 1000) for each in layers))
    )
    yield Noted("hub", repository, Listed(f"v{number % TAGS_EACH}", digest, str(number)))
    yield _unit(repository, now)


def _in_step(number: int, now: float) -> Iterable[Entry]:
    yield _placed(number, digest_of(f"image {number}".encode()), now)
    yield _unit(_repository(number), now)


def _placed(number: int, digest: Digest, now: float) -> Placed:
    belief = TagBelief(f"v{number % TAGS_EACH}", digest, digest, RULE, now, now)
    return Placed(RULE, SITE, belief, _repository(number), Placement(digest, f"{number:032}", now, now))


def _unit(repository: str, now: float) -> UnitSeen:
    return UnitSeen(Unit(RULE, SITE, repository, repository, now, now, TAGS_EACH, asked_at=now))


def _repository(number: int) -> str:
    return f"team-{number // TAGS_EACH % 20}/app-{number // TAGS_EACH:04}"


def _layer(number: int, index: int) -> Digest:
    return digest_of(f"layer {index if index < LAYERS // 2 else (number, index)}".encode())


if __name__ == "__main__":
    asyncio.run(main())
