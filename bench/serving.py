"""`serve` and docker-registry over the same directory: GETs of large and of small blobs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import corpus, measure, servers
from bench.compare import Bench
from bench.corpus import MEGABYTE, Shape
from bench.measure import CommandFailed, Usage
from bench.peers import OURS
from bench.rows import Row

PEER = "docker-registry"
REPEAT = 3
WIDTH = 8
LIMIT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Load:
    """GETs of blobs of one size, `count` in all."""

    name: str
    shape: Shape
    least_bytes: int
    count: int


LOADS = (
    Load("serve-large", Shape("serve-large", 1, 4, (), (20 * MEGABYTE,)), MEGABYTE, 200),
    Load("serve-small", Shape("serve-small", 4, 25, (), (2_000,), sharing="repository"), 1_000, 6_000),
)


async def serving(bench: Bench) -> list[Row]:
    """Every server under every load, taking turns."""
    rows = []
    for load in LOADS:
        folder = bench.folder / load.name
        folder.mkdir()
        paths = await asyncio.to_thread(_fill, folder, load)
        runs: dict[str, list[Usage]] = {OURS: [], PEER: []}
        moved = 0
        for turn in range(bench.repeat or REPEAT):
            for program in [OURS, PEER] if turn % 2 else [PEER, OURS]:
                moved, usage = await asyncio.to_thread(_turn, program, folder, load, paths)
                runs[program].append(usage)
        for program, usages in runs.items():
            row = Row(load.name, program, usages, payload_bytes=moved)
            rates = {"requests/s": load.count / row.seconds, "MB/s": moved / row.seconds / 1e6}
            rows.append(Row(load.name, program, usages, payload_bytes=moved, notes=rates))
            bench.tell(f"  {program}: {rates['requests/s']:.0f} requests/s, {rates['MB/s']:.0f} MB/s")
        shutil.rmtree(folder)
    return rows


def _fill(folder: Path, load: Load) -> Path:
    """Fills the storage; a file with the paths of the blobs that are asked for."""
    corpus.fill(folder / "storage", load.shape)
    paths = [
        f"/v2/{repository}/blobs/{digest}"
        for repository, _, built in corpus.build(load.shape)
        for digest, data in built.blobs.items()
        if len(data) >= load.least_bytes
    ]
    (folder / "paths").write_text("\n".join(paths))
    return folder / "paths"


def _turn(program: str, folder: Path, load: Load, paths: Path) -> tuple[int, Usage]:
    """One server, warmed up by asking for every blob once, then the load. Bytes and what it cost the server."""
    with _server(program, folder) as (port, running):
        _load(port, len(paths.read_text().split()), paths)
        before = measure.cpu_seconds(running.pid)
        result = _load(port, load.count, paths)
        cpu = measure.cpu_seconds(running.pid) - before
        peak = measure.peak_bytes(running.pid)
    return int(result["bytes"]), Usage(result["seconds"], cpu, peak)


def _load(port: int, count: int, paths: Path) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "bench.load",
        servers.HOST,
        str(port),
        str(WIDTH),
        str(count),
        str(paths),
    ]
    done = subprocess.run(command, capture_output=True, check=False, timeout=LIMIT_SECONDS)
    if done.returncode:
        raise CommandFailed(f"load: {done.stderr.decode()[-500:]}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


@contextlib.contextmanager
def _server(program: str, folder: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The server, listening."""
    port, storage = servers.free_port(), folder / "storage"
    address = f"{servers.HOST}:{port}"
    command = [sys.executable, "-m", "replicator", "serve", str(storage), "--listen", address]
    if program == PEER:
        config = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": False}},
            "storage": {
                "filesystem": {"rootdirectory": str(storage)},
                "cache": {"blobdescriptor": "inmemory"},
            },
            "http": {"addr": address},
        }
        (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        command = [PEER, "serve", str(folder / "config.yml")]
    log = folder / f"{program}.log"  # both write an access log
    with servers.process(command, log, log) as running:
        asyncio.run(servers.reachable(port, running))
        yield port, running
