"""The index of images with 100,000 tags at three destinations: what queries cost, and what a tag costs on disk.

Ours alone, in a process of its own: `python -m bench.search FOLDER [TAGS]` prints the figures as JSON.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench import measure
from bench.compare import Bench
from bench.peers import OURS
from bench.rows import Row
from replicator.discovery.query import parse_query
from replicator.flow.clock import SystemClock
from replicator.model.digest import Digest, digest_of
from replicator.ports import ImageSeen, Placed, TagBelief, Unit, UnitSeen
from replicator.ports.search import ImageFacts
from replicator.state.store import StoredState, open_state

NAME: Final = "search-100k"
TAGS: Final = 100_000
REPOSITORIES: Final = 500
DESTINATIONS: Final = ("fra", "sin", "nyc")
LAYERS: Final = 8
LIMIT: Final = 501
REPEAT: Final = 5
QUERIES: Final = {
    "word": "app-0042",
    "all": "app",
    "nothing": "nowhere",
    "text": "invoices",
    "name_tag": "app-0042:v1",
    "digest": digest_of(b"image 77")[:16],
    "layer": f"layer:{digest_of(b'layer 5')[7:20]}",
    "platform": "platform:linux/arm64",
    "label": "label:team=team-7",
    "annotation": "annotation:org.opencontainers.image.revision=7*",
    "created": "after:2026-01-01 before:2026-02-01",
    "combined": "app tag:v1* platform:linux/arm64 label:team=team-1* after:2026-01-01",
}
_DAY: Final = 86_400.0
_2026: Final = 1_767_225_600.0


async def search(bench: Bench) -> list[Row]:
    """The row; its notes are milliseconds of CPU for each query, the worst of wall time, and bytes a tag."""
    folder = bench.folder / NAME
    folder.mkdir()
    usage = await measure.run(
        [measure.Command([sys.executable, "-m", "bench.search", str(folder)])], folder / "log"
    )
    notes = json.loads((folder / "figures.json").read_text())
    bench.tell(f"  {notes}")
    return [Row(NAME, OURS, [usage], notes=notes)]


async def figures(folder: Path, tags: int) -> dict[str, float]:
    """What is measured: medians of some runs of each query, with the facts of what it finds."""
    state = await open_state(folder / "state.db", clock=SystemClock())
    await _fill(state, tags)
    await state.aclose()
    size = _size(folder)
    state = await open_state(folder / "state.db", clock=SystemClock(), read_only=True)
    found: dict[str, float] = {}
    worst = 0.0
    queries = {name: parse_query([text]) for name, text in QUERIES.items()}
    some = queries["all"]
    queries["missing"] = type(some)(missing_at="sin")
    queries["behind"] = type(some)(behind=True)
    for name, query in queries.items():
        cpu, wall = [], []
        for _ in range(REPEAT):
            began, at = time.perf_counter(), time.process_time()
            holdings = await state.search(query, LIMIT)
            await state.facts(list({each.digest for each in holdings if each.digest}))
            cpu.append(time.process_time() - at)
            wall.append(time.perf_counter() - began)
        found[f"{name}_cpu_ms"] = round(statistics.median(cpu) * 1000, 1)
        worst = max(worst, statistics.median(wall))
    await state.aclose()
    return {**found, "worst_wall_ms": round(worst * 1000, 1), "bytes_per_tag": round(size / tags)}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("state.db*"))


async def _fill(state: StoredState, tags: int) -> None:
    now = SystemClock().now()
    for number, (repository, tag, facts) in enumerate(_images(tags)):
        for destination in DESTINATIONS:
            if destination != "sin" or number % 10_000:  # which sin lacks
                belief = TagBelief(tag, facts.digest, facts.digest, "bench", now, now)
                state.record(Placed("bench", destination, belief, repository))
        state.record(ImageSeen(facts))
        if number % 2_000 == 0:
            await state.flush()
    for number in range(REPOSITORIES):
        for destination in DESTINATIONS:
            name = _repository(number)
            state.record(UnitSeen(Unit("bench", destination, name, name, now, now, 1, asked_at=now)))
    await state.flush()


def _repository(number: int) -> str:
    return f"team-{number % 20}/app-{number:04}"


def _images(tags: int) -> Iterator[tuple[str, str, ImageFacts]]:
    """Shaped as CI builds them: two platforms, base layers in common, labels and annotations of the OCI spec."""
    for number in range(tags):
        labels = {
            "org.opencontainers.image.title": f"app {number % REPOSITORIES}",
            "org.opencontainers.image.description": f"Serves {'invoices' if number % 97 == 0 else 'orders'} to team {number % 20}",
            "org.opencontainers.image.source": f"https://git.example.com/team-{number % 20}/app-{number % REPOSITORIES:04}",
            "team": f"team-{number % 20}",
        }
        revision = digest_of(f"{number}".encode())[7:47]
        layers: list[tuple[Digest, int]] = [
            (digest_of(f"layer {number % 40 if layer < 3 else f'{number}.{layer}'}".encode()), 1_000_000)
            for layer in range(LAYERS)
        ]
        yield (
            _repository(number % REPOSITORIES),
            f"v{number // REPOSITORIES}.{number % 7}",
            ImageFacts(
                digest_of(f"image {number}".encode()),
                _2026 + (number % 330) * _DAY,
                "",
                ("linux/amd64", "linux/arm64"),
                labels,
                tuple(dict(layers).items()),
                {
                    "org.opencontainers.image.revision": revision,
                    "org.opencontainers.image.version": f"1.{number}",
                },
            ),
        )


def main() -> None:
    """The figures of this process."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    tags = int(sys.argv[2]) if len(sys.argv) > 2 else TAGS
    text = json.dumps(asyncio.run(figures(folder, tags)))
    (folder / "figures.json").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
