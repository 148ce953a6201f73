"""An OCI layout of 50,000 tags in a directory: one lookup, one tag written, and how long the event loop stood still.

Ours alone, in a process of its own: `python -m bench.largeindex FOLDER [TAGS]` prints the figures as JSON.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from bench import measure
from bench.compare import Bench
from bench.peers import OURS
from bench.rows import Row
from replicator.demo.images import image
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.model.digest import digest_of
from replicator.sites.layouts.settings import LayoutSettings
from replicator.sites.objects.settings import LocalSettings
from replicator.sites.open import open_site

NAME = "oci-index-50k"
TAGS = 50_000
REPEAT = 40
AT_ONCE = 16
_PROBE_SECONDS = 0.001


async def large_index(bench: Bench) -> list[Row]:
    """The row; its notes are milliseconds."""
    folder = bench.folder / NAME
    folder.mkdir()
    command = [sys.executable, "-m", "bench.largeindex", str(folder / "site")]
    usage = await measure.run([measure.Command(command)], folder / "run")
    notes = json.loads((folder / "site.json").read_text())
    bench.tell(f"  {OURS}: {notes}")
    return [Row(NAME, OURS, [usage], notes=notes)]


async def figures(folder: Path, tags: int) -> dict[str, float]:
    """Milliseconds: medians of single operations, each tag of several at once, and the longest stall of the loop."""
    built = image("a")
    _fill(folder / "app", built.manifest.digest, len(built.manifest.body), tags)
    for data in (*built.blobs.values(), built.manifest.body):
        path = folder / "app/blobs" / digest_of(data).replace(":", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    settings = LayoutSettings(LocalSettings("shelf", folder), "oci")
    site = open_site(settings, events=Events(), clock=SystemClock())
    repository = site.repository("app")
    probe = asyncio.create_task(_stalls())
    found: dict[str, float] = {}

    async def timed(name: str, calls: Sequence[Callable[[], Awaitable[object]]]) -> None:
        taken = []
        for call in calls:
            began = time.perf_counter()
            await call()
            taken.append(time.perf_counter() - began)
        found[name] = round(statistics.median(taken) * 1e3, 2)

    await timed("first write ms", [lambda: repository.write_manifest(built.manifest, "first")])
    await timed("resolve ms", [lambda: repository.resolve(f"v{tags // 2}")] * REPEAT)
    tagging = [partial(repository.write_manifest, built.manifest, f"n{number}") for number in range(REPEAT)]
    await timed("write ms", tagging)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(AT_ONCE):
            tasks.create_task(repository.write_manifest(built.manifest, f"m{number}"))
    found[f"write ms a tag, {AT_ONCE} at once"] = round((time.perf_counter() - began) / (AT_ONCE) * 1e3, 2)
    probe.cancel()
    found["stall ms"] = round(max(_longest) * 1e3, 2)
    await site.aclose()
    return found


_longest = [0.0]


async def _stalls() -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(_PROBE_SECONDS)
        _longest[0] = max(_longest[0], time.perf_counter() - began - _PROBE_SECONDS)


def _fill(folder: Path, digest: str, size: int, tags: int) -> None:
    """A layout as another tool writes it: all on one line."""
    folder.mkdir(parents=True)
    entries = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": f"sha256:{number:064x}",
            "size": size,
            "annotations": {"org.opencontainers.image.ref.name": f"v{number}"},
        }
        for number in range(tags)
    ]
    entries[tags // 2]["digest"] = digest
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.with_suffix(".json").write_text(
        json.dumps(asyncio.run(figures(place, int(sys.argv[2]) if len(sys.argv) > 2 else TAGS)))
    )
