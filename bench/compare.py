"""One setting, every program: clean destinations, turns in rotating order, results checked on disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import corpus as images
from bench import measure, servers
from bench.corpus import Corpus, Shape
from bench.measure import CommandFailed, Usage
from bench.peers import OURS, Program, Task
from bench.rows import Row
from bench.servers import Endpoint


@dataclass(frozen=True, slots=True)
class Bench:
    """How a bench is run: where its files lie, who takes part, how often, and where progress is told."""

    folder: Path
    programs: Sequence[Program]
    tell: Callable[[str], None]
    repeat: int | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """What is copied and how.

    `reach` is what we aim at, as a share of the best peer's wall time; `again` the same for a second run that finds
    nothing to do (None: there is no second run). With several destinations a peer runs once for each, one after
    the other, and we run once for all.
    """

    name: str
    shape: Shape
    reach: float
    again: float | None = None
    tls: bool = False
    destinations: int = 1
    repeat: int = 3


@dataclass(slots=True)
class _Results:
    cold: dict[str, list[Usage]] = field(default_factory=lambda: defaultdict(list))
    again: dict[str, list[Usage]] = field(default_factory=lambda: defaultdict(list))
    served: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    failures: dict[str, str] = field(default_factory=dict)


async def compare(bench: Bench, setting: Setting) -> list[Row]:
    """Measures every program of the bench in one setting. One that fails has a row that says so."""
    results = _Results()
    folder = bench.folder / setting.name
    folder.mkdir()
    storage = folder / "storage"
    held = await asyncio.to_thread(images.fill, storage, setting.shape)
    authority = servers.make_authority(folder) if setting.tls else None
    bench.tell(f"{setting.name}: {held.tags} tags, {len(held.blobs)} blobs, {held.unique_bytes / 1e6:.0f} MB")
    programs = [one for one in bench.programs if setting.tls or one.plain_http]
    async with servers.registry(folder / "source", storage, authority) as source:
        for turn in range(bench.repeat or setting.repeat):
            shift = turn % len(programs)
            for program in [*programs[shift:], *programs[:shift]]:
                if program.name in results.failures:
                    continue
                home = folder / f"{program.name}-{turn}"
                try:
                    await _turn(bench, setting, program, _Turn(home, source, held), results)
                except CommandFailed as error:
                    results.failures[program.name] = str(error)
                    bench.tell(f"  {program.name} failed: {error}")
    shutil.rmtree(folder)
    return _rows(programs, setting, held, results)


@dataclass(frozen=True, slots=True)
class _Turn:
    """Where one turn takes place."""

    home: Path
    source: Endpoint
    held: Corpus


async def _turn(bench: Bench, setting: Setting, program: Program, place: _Turn, results: _Results) -> None:
    async with contextlib.AsyncExitStack() as stack:
        destinations = [
            await stack.enter_async_context(servers.fresh(place.home / f"to{number}", place.source.authority))
            for number in range(setting.destinations)
        ]
        together = [destinations] if program.name == OURS else [[one] for one in destinations]
        read_before = place.source.access_log.stat().st_size
        cold = await _run(program, place, together, "cold")
        results.served[program.name].append(servers.blob_bytes_served(place.source, read_before))
        for destination in destinations:
            lacking = await asyncio.to_thread(images.shortcomings, destination.storage, place.held)
            if lacking:
                raise CommandFailed(f"{len(lacking)} things are not as at the source, first: {lacking[0]}")
        results.cold[program.name].append(cold)
        said = f"  {program.name}: {cold.seconds:.2f} s, CPU {cold.cpu_seconds:.2f} s"
        if setting.again is not None:
            again = await _run(program, place, together, "again")
            results.again[program.name].append(again)
            said += f"; again {again.seconds:.2f} s, CPU {again.cpu_seconds:.2f} s"
        bench.tell(f"{said} (load {os.getloadavg()[0]:.1f})")
    shutil.rmtree(place.home)


async def _run(program: Program, place: _Turn, groups: Sequence[Sequence[Endpoint]], label: str) -> Usage:
    """One run for each group of destinations, one after the other, as if they were one."""
    usages = []
    for number, group in enumerate(groups):
        folder = place.home / f"own{number}"
        folder.mkdir(exist_ok=True)
        commands = program.commands(Task(place.source, group, sorted(place.held.images), folder))
        await asyncio.to_thread(os.sync)  # what earlier runs wrote is not written back during this one
        usages.append(await measure.run(commands, folder / label, program.width))
    return Usage(
        sum(usage.seconds for usage in usages),
        sum(usage.cpu_seconds for usage in usages),
        max(usage.peak_bytes for usage in usages),
        sum(usage.servers_cpu_seconds for usage in usages),
    )


def _rows(programs: Sequence[Program], setting: Setting, held: Corpus, results: _Results) -> list[Row]:
    rows = []
    for program in programs:
        name = program.name
        served = results.served[name]
        notes = {"source bytes / unique": max(served) / held.unique_bytes} if served else {}
        payload = held.unique_bytes * setting.destinations
        failure = results.failures.get(name)
        rows.append(Row(setting.name, name, results.cold[name], setting.reach, payload, notes, failure))
    if setting.again is not None:
        label = f"{setting.name}, nothing to do"
        rows += [Row(label, one.name, results.again[one.name], setting.again) for one in programs]
    return rows
