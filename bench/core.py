"""The engine over sites in memory and a state on disk: an event among many tags, what a tag costs, and closure checks.

And an agent with one slow blob: how many intervals pass before what is pushed elsewhere is visible.

Ours alone, in a process of its own: `python -m bench.core FOLDER [TAGS]` prints the figures as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import tracemalloc
from pathlib import Path

import msgspec

from bench import measure
from bench.compare import Bench
from bench.peers import OURS
from bench.rows import Row
from replicator.demo.images import image, layer, load
from replicator.demo.store import Blob
from replicator.engine.context import RunScope
from replicator.engine.engine import Engine
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.model.descriptor import Descriptor
from replicator.model.digest import digest_of
from replicator.model.manifest import Manifest, parse_manifest
from replicator.model.mediatypes import OCI_MANIFEST
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule
from replicator.state.store import open_state
from tests.acceptance.daemon import Daemon
from tests.acceptance.program import Program, rule
from tests.fakes.faults import drip
from tests.fakes.memory import MemorySite
from tests.fakes.process import free_port
from tests.fakes.registry import FakeRegistry
from tests.fakes.streaming import SyntheticBlob

NAME = "core-100k"
TAGS = 100_000
CLOSURES = 2_000
LAYERS = 10
SLOW_BYTES = 1_000_000_000
SLOW_RATE = 20_000
INTERVAL_SECONDS = 3
PUSHES = 4
RULE = Rule("bench", "source", ("destination",), RepositorySelection((Glob.parse("**"),)))


async def core(bench: Bench) -> list[Row]:
    """The row; its notes are the figures."""
    folder = bench.folder / NAME
    folder.mkdir()
    command = [sys.executable, "-m", "bench.core", str(folder)]
    usage = await measure.run([measure.Command(command)], folder / "log")
    notes = json.loads((folder / "figures.json").read_text())
    bench.tell(f"  {notes}")
    return [Row(NAME, OURS, [usage], notes=notes)]


def _sites(tags: int, repository: str) -> dict[str, MemorySite]:
    sites = {name: MemorySite(name) for name in ("source", "destination")}
    built = image("one")
    load(sites["source"].store, repository, "v0", built)
    known = sites["source"].store.repositories[repository].tags
    known.update({f"v{number}": built.digest for number in range(tags)})
    for site in sites.values():
        site.page = 1_000
    return sites


async def figures(folder: Path, tags: int) -> dict[str, float]:
    """What is measured: CPU seconds, bytes, requests."""
    return {**await _many_tags(folder, tags), **await _closures(folder), **await _slow_blob(folder)}


async def _many_tags(folder: Path, tags: int) -> dict[str, float]:
    sites, clock = _sites(tags, "app"), SystemClock()
    state = await open_state(folder / "tags.db", clock=clock)
    engine = Engine(sites=sites, state=state, events=Events(), clock=clock, spool=None, rules=[RULE])
    await engine.sync([RULE])
    for site in sites.values():
        site.operations.clear()
    gc.collect()
    began = time.process_time()
    await engine.sync([RULE])
    idle = time.process_time() - began
    load(sites["source"].store, "app", "new", image("two"))
    began = time.process_time()
    await engine.sync([RULE], scope=RunScope({"app": frozenset({"new"})}), unattended=True)
    event = time.process_time() - began
    await state.aclose()
    return {"event_cpu_s": event, "idle_cpu_s": idle, "bytes_per_cold_tag": await _cold_bytes(folder)}


async def _cold_bytes(folder: Path, tags: int = 20_000) -> float:
    """Bytes of our own that are held for each copied tag when a run ends, its report included."""
    sites, clock = _sites(tags, "app"), SystemClock()
    state = await open_state(folder / "cold.db", clock=clock)
    engine = Engine(sites=sites, state=state, events=Events(), clock=clock, spool=None, rules=[RULE])
    tracemalloc.start()
    try:
        results = await engine.sync([RULE])
        gc.collect()
        taken = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    await state.aclose()
    held = sum(
        each.size
        for each in taken.statistics("filename")
        if "/replicator/" in each.traceback[0].filename and "/demo/" not in each.traceback[0].filename
    )
    return held / results[0].destinations[0].totals.tags.copied


async def _closures(folder: Path) -> dict[str, float]:
    """A check of everything below `CLOSURES` images of `LAYERS` layers, half of them shared."""
    sites, clock = {name: MemorySite(name) for name in ("source", "destination")}, SystemClock()
    shared = [layer(f"shared/{number}", 200) for number in range(LAYERS // 2)]
    for number in range(CLOSURES):
        own = [layer(f"{number}/{each}", 200) for each in range(LAYERS - len(shared))]
        load(sites["source"].store, f"app{number % 20}", f"v{number}", image(f"{number}", [*shared, *own]))
    state = await open_state(folder / "closures.db", clock=clock)
    engine = Engine(sites=sites, state=state, events=Events(), clock=clock, spool=None, rules=[RULE])
    await engine.sync([RULE])
    for site in sites.values():
        site.operations.clear()
    began = time.process_time()
    await engine.sync([RULE], recheck=True)
    spent = time.process_time() - began
    await state.aclose()
    return {"closures_cpu_s": spent, "closures_requests": len(sites["destination"].operations)}


async def _slow_blob(folder: Path) -> dict[str, float]:
    """The most scans of a free repository from a push into it until the tag is there, a blob of another one dripping."""
    async with FakeRegistry() as hub, FakeRegistry() as fra:
        load(hub.store, "platform/free", "v0", image("free", 0))
        blob = SyntheticBlob(1, SLOW_BYTES)
        hub.store.add_blob("platform/slow", blob.digest, blob)
        hub.store.put_manifest("platform/slow", _manifest_of(hub, blob), "v1")
        hub.fault("GET", f"/blobs/{blob.digest}", drip(SLOW_RATE), times=None)
        program, url = Program(folder), f"http://127.0.0.1:{free_port()}"
        path = program.write_config(
            {"hub": hub.url, "fra": fra.url}, rule(more=f'interval = "{INTERVAL_SECONDS}s"')
        )
        listen = f'[agent]\nlisten = "{url.removeprefix("http://")}"\n'
        path.write_text(path.read_text().replace("[agent]\n", listen, 1))
        daemon = Daemon(program, folder / "agent.log", url)
        try:
            await daemon.start()
            await _visible(fra, "v0")
            while not hub.blob_bytes_out > SLOW_RATE:  # noqa: ASYNC110 - the other side is a process
                await asyncio.sleep(0.1)
            most = 0
            for number in range(1, PUSHES + 1):
                before = hub.count("GET", "/free/tags/list")
                load(hub.store, "platform/free", f"v{number}", image("free", number))
                await _visible(fra, f"v{number}")
                most = max(most, hub.count("GET", "/free/tags/list") - before)
            if "platform/slow" in fra.store.repositories and fra.store.repositories["platform/slow"].tags:
                raise AssertionError("the slow image was not slow")
        finally:
            await daemon.kill()
            hub.released.set()
    return {"slow_blob_intervals": most}


def _manifest_of(hub: FakeRegistry, blob: SyntheticBlob) -> Manifest:
    config = b'{"architecture":"amd64","os":"linux"}'
    hub.store.add_blob("platform/slow", digest_of(config), Blob(config))
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor("application/vnd.oci.image.config.v1+json", digest_of(config), len(config)),
        "layers": [Descriptor("application/vnd.oci.image.layer.v1.tar", blob.digest, blob.size)],
    }
    return parse_manifest(msgspec.json.encode(body), OCI_MANIFEST)


async def _visible(fra: FakeRegistry, tag: str) -> None:
    async with asyncio.timeout(60):
        while tag not in getattr(fra.store.repositories.get("platform/free"), "tags", ()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def main(folder: Path, tags: int) -> None:
    """Measures, and writes what was found."""
    found = asyncio.run(figures(folder, tags))
    text = json.dumps({name: round(value, 4) for name, value in found.items()})
    (folder / "figures.json").write_text(text)
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else TAGS)
