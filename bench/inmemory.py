"""Small images between registries that keep everything in memory, near and far: what a program itself costs.

docker-registry on a disk takes 23 ms for a small image, whoever asks; these take one or two.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bench import measure, pushing, servers
from bench.compare import Bench
from bench.corpus import FAR, Corpus, Shape
from bench.measure import CommandFailed, Usage
from bench.peers import Program, Task, find
from bench.rows import Row
from bench.servers import Endpoint

Software = Literal["distribution", "olareg"]

RESET_EVERY = 1_000
REPEAT = 3


@dataclass(frozen=True, slots=True)
class Distance:
    """A scenario: which registries, how far away both are, and what we aim at, cold and with nothing to do.

    Args:
        name: the scenario's name.
        round_trip_seconds: to each of the two.
        software: of both.
        reset_every: of so many answers one is lost with its connection; 0 is none.
        reach: share of the best peer's wall time.
        again: the same for a second run that finds nothing to do.
    """

    name: str
    round_trip_seconds: float
    software: Software = "distribution"
    reset_every: int = 0
    shape: Shape = FAR
    reach: float = 0.6
    again: float = 0.5


DISTANCES = (
    Distance("far", 0.05),
    Distance("small-near", 0.0),
    Distance("small-20ms", 0.02),
    Distance("small-80ms", 0.08),
    Distance("small-resets", 0.02, reset_every=RESET_EVERY),
    Distance("small-olareg", 0.0, "olareg"),
    Distance("small-olareg-80ms", 0.08, "olareg"),
)


@dataclass(slots=True)
class _Results:
    cold: dict[str, list[Usage]] = field(default_factory=lambda: defaultdict(list))
    again: dict[str, list[Usage]] = field(default_factory=lambda: defaultdict(list))
    failures: dict[str, str] = field(default_factory=dict)


async def distant(bench: Bench, distance: Distance) -> list[Row]:
    """Measures every program of the bench at one distance; each turn has a fresh destination, checked afterwards."""
    folder = bench.folder / distance.name
    folder.mkdir()
    results = _Results()
    programs = [one for one in bench.programs if one.plain_http]
    async with registry(folder / "source", distance.software) as source, _far(source, distance) as seen:
        held = await pushing.push(source, distance.shape)
        bench.tell(f"{distance.name}: {held.tags} tags, {len(held.blobs)} blobs")
        for turn in range(bench.repeat or REPEAT):
            shift = turn % len(programs)
            for program in [*programs[shift:], *programs[:shift]]:
                if program.name in results.failures:
                    continue
                home = folder / f"{program.name}-{turn}"
                try:
                    await _turn(bench, distance, program, _Place(home, seen, held), results)
                except CommandFailed as error:
                    results.failures[program.name] = str(error)
                    bench.tell(f"  {program.name} failed: {error}")
    return _rows(distance, programs, results)


@dataclass(frozen=True, slots=True)
class _Place:
    home: Path
    source: Endpoint
    held: Corpus


async def _turn(bench: Bench, distance: Distance, program: Program, place: _Place, results: _Results) -> None:
    to = place.home / "to"
    async with registry(to, distance.software) as destination, _far(destination, distance) as seen:
        task = Task(place.source, [seen], sorted(place.held.images), place.home)
        cold = await measure.run(program.commands(task), place.home / "cold", program.width)
        lacking = await pushing.shortcomings(destination, place.held)
        if lacking:
            raise CommandFailed(f"{len(lacking)} things are not as at the source, first: {lacking[0]}")
        again = await measure.run(program.commands(task), place.home / "again", program.width)
    results.cold[program.name].append(cold)
    results.again[program.name].append(again)
    bench.tell(
        f"  {program.name}: {cold.seconds:.2f} s, CPU {cold.cpu_seconds:.2f} s; again {again.seconds:.2f} s, "
        f"CPU {again.cpu_seconds:.2f} s (load {os.getloadavg()[0]:.1f})"
    )


@contextlib.asynccontextmanager
async def _far(endpoint: Endpoint, distance: Distance) -> AsyncIterator[Endpoint]:
    """The endpoint as seen from the distance; itself if there is none."""
    if not distance.round_trip_seconds and not distance.reset_every:
        yield endpoint
        return
    link = servers.Link(delay_seconds=distance.round_trip_seconds / 2, reset_every=distance.reset_every)
    async with servers.through(link, endpoint, endpoint.storage / "link.log") as seen:
        yield seen


@contextlib.asynccontextmanager
async def registry(folder: Path, software: Software) -> AsyncIterator[Endpoint]:
    """An empty registry that keeps everything in memory, on a port of its own, until the end of the block."""
    folder.mkdir(parents=True)  # noqa: ASYNC240  # nothing else runs
    endpoint = Endpoint(servers.free_port(), folder, folder / "access.log")
    command = _distribution(folder, endpoint) if software == "distribution" else _olareg(endpoint)
    with servers.process(command, endpoint.access_log, folder / "errors.log") as running:
        await servers.reachable(endpoint.port, running)
        yield endpoint


def _distribution(folder: Path, endpoint: Endpoint) -> Sequence[str]:
    settings = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"inmemory": {}, "cache": {"blobdescriptor": "inmemory"}},
        "http": {"addr": endpoint.host},
    }
    config = folder / "config.yml"
    config.write_text(json.dumps(settings))  # JSON is YAML
    return [find("registry"), "serve", str(config)]


def _olareg(endpoint: Endpoint) -> Sequence[str]:
    port = ["--addr", servers.HOST, "--port", str(endpoint.port)]
    return [find("olareg"), "serve", *port, "--store-type", "mem", "--gc-frequency", "-1s"]


def _rows(distance: Distance, programs: Sequence[Program], results: _Results) -> list[Row]:
    label = f"{distance.name}, nothing to do"
    cold = [
        Row(
            distance.name,
            one.name,
            results.cold[one.name],
            distance.reach,
            failure=results.failures.get(one.name),
        )
        for one in programs
    ]
    return cold + [Row(label, one.name, results.again[one.name], distance.again) for one in programs]
