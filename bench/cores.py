"""What a second core is worth, and from which size on a thread is worth it: between a source and a destination that cost nothing."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench import measure, servers
from bench.compare import Bench
from bench.measure import Command, Usage
from bench.memory import endpoint, first_line
from bench.peers import OURS, Task
from bench.rows import Row
from replicator.cli.program import run
from replicator.sites.registry import call

NAME = "cores"
THRESHOLD = "threshold"
REPEAT = 3
BLOBS, BLOB_BYTES = 8, 250_000_000
CORES = ("0", "0,1")
REACH = 1.7
KIB = 1024
SIZES = (16 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, 1024 * KIB, 2048 * KIB, 4096 * KIB)
MOVED_BYTES, MOST_BLOBS = 400_000_000, 1_000
REPOSITORY, TAG = "bench/cores", "v1.0.0"

Commands = Callable[[Task], Sequence[Command]]


async def cores(bench: Bench) -> list[Row]:
    """GB a second of each program with one core and with two, beyond its start-up; the last row of each has the ratio."""
    rows = []
    for program in (one for one in bench.programs if one.plain_http):
        rates: list[float] = []
        commands = program.commands
        for allowed in CORES:
            pinned = ["taskset", "--cpu-list", allowed]

            async def once(
                blobs: int, size: int, pinned: Sequence[str] = pinned, commands: Commands = commands
            ) -> Usage:
                return await _copied(bench, blobs, size, commands, pinned)

            start = [await once(1, 1_000) for _ in range(bench.repeat or REPEAT)]
            runs = [await once(BLOBS, BLOB_BYTES) for _ in range(bench.repeat or REPEAT)]
            seconds = min(run.seconds for run in runs) - min(run.seconds for run in start)
            rates.append(BLOBS * BLOB_BYTES / seconds / 1e9)
            notes = {"GB/s": rates[-1], "of one core's": rates[-1] / rates[0]}
            name = f"{program.name}, {len(rates)}"
            reach = REACH if program.name == OURS else None
            rows.append(Row(NAME, name, runs, reach, BLOBS * BLOB_BYTES, notes))
            bench.tell(f"  {name} cores: {rates[-1]:.2f} GB/s")
    return rows


async def threshold(bench: Bench) -> list[Row]:
    """Blobs of one size by the event loop alone, and by threads: milliseconds of CPU and wall for each, beyond the start-up."""
    (program,) = (one for one in bench.programs if one.name == OURS)
    rows = []
    for size in SIZES:
        blobs = min(MOST_BLOBS, MOVED_BYTES // size)
        for way, least in (("loop", sys.maxsize), ("threads", 1)):

            def commands(task: Task, least: int = least) -> list[Command]:
                return [_with_threshold(command, least) for command in program.commands(task)]

            start = [await _copied(bench, 1, 1_000, commands) for _ in range(bench.repeat or REPEAT)]
            runs = [await _copied(bench, blobs, size, commands) for _ in range(bench.repeat or REPEAT)]
            wall = min(run.seconds for run in runs) - min(run.seconds for run in start)
            cpu = min(run.cpu_seconds for run in runs) - min(run.cpu_seconds for run in start)
            notes = {"CPU ms a blob": cpu / blobs * 1e3, "wall ms a blob": wall / blobs * 1e3}
            rows.append(
                Row(f"{THRESHOLD} {size // KIB} KiB", f"{OURS}, {way}", runs, None, blobs * size, notes)
            )
            bench.tell(f"  {size // KIB} KiB, {way}: {notes}")
    return rows


def _with_threshold(command: Command, least: int) -> Command:
    """The same command, where blobs of `least` bytes and more are moved by threads."""
    _, *arguments = command.arguments
    return replace(command, arguments=[sys.executable, "-m", "bench.cores", str(least), *arguments])


async def _copied(
    bench: Bench, blobs: int, size: int, commands: Commands, pinned: Sequence[str] = ()
) -> Usage:
    """One copy of an image of `blobs` blobs, each of `size` bytes, between a new source and a new destination."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        home, said = Path(folder), Path(folder) / "sink"
        command = [sys.executable, "-m", "bench.sink", REPOSITORY, TAG, str(blobs), str(size)]
        with servers.process(command, said, home / "sink.log"):
            source, destination, _ = await first_line(said)
            task = Task(endpoint(source, home), [endpoint(destination, home)], [REPOSITORY], home)
            made = [replace(one, arguments=[*pinned, *one.arguments]) for one in commands(task)]
            return await measure.run(made, home / "log")


if __name__ == "__main__":
    call.PAYLOAD_BYTES = int(sys.argv.pop(1))  # type: ignore[misc]
    sys.exit(run(sys.argv[1:]))
