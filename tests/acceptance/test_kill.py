"""`kill -9` of a real process between two real registries, at any moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from replicator.demo.images import AMD64, ARM64, BuiltImage, image, index, layer
from replicator.engine.transfer.delivery import SMALL_BLOB_BYTES
from tests.acceptance.program import Program, rule
from tests.acceptance.walker import Images, expected, fill, walk
from tests.cross.witness import skopeo_copy_to_layout
from tests.fakes.distribution import Server, distribution

BASE = layer("base", 2_000_000)
BYTES_PER_SECOND = "12MB"
RUN_SECONDS = 1.2
"""About half of what an undisturbed run takes at that pace."""
START_SECONDS = 0.6
EARLY = 0.25
"""How many of the kills fall into the start."""


def _images() -> Images:
    images: dict[tuple[str, str], BuiltImage] = {}
    for name in ("app", "web", "db", "cache"):
        for tag in ("v1", "v2", "v3"):
            own = f"{name}:{tag}"
            one = image(own, [BASE, layer(own, 700_000)], platform=AMD64)
            other = image(f"{own} on arm", [BASE, layer(f"{own} on arm", 300_000)], platform=ARM64)
            images[f"platform/{name}", tag] = index([one, other]) if tag == "v3" else one
    return images


IMAGES = _images()


@pytest.fixture
async def hub(docker_registry: Server) -> Server:
    """The source, whose pace is such that a run takes some seconds."""
    await fill(docker_registry.settings(), IMAGES)
    return docker_registry


@contextmanager
def destination(folder: Path, hub: Server) -> Iterator[tuple[Server, Program]]:
    """A new, empty registry, and the program with a config that leads there."""
    for name in ("registry", "program"):
        (folder / name).mkdir(parents=True)
    with distribution(folder / "registry") as server:
        program = Program(folder / "program")
        config = program.write_config({"hub": hub.url, "fra": server.url}, rule())
        slow = f'limits = {{ bytes_per_second = "{BYTES_PER_SECOND}" }}'
        config.write_text(config.read_text().replace(f'url = "{hub.url}"', f'url = "{hub.url}"\n{slow}'))
        yield server, program


async def kill_at_random(program: Program, dice: random.Random) -> bool:
    """Starts a run and kills it, now and then while it still starts; False where it was through before."""
    async with program.started("sync") as running:
        if dice.random() < EARLY:
            seconds = dice.uniform(0.0, START_SECONDS)
        else:
            await running.says("run started")
            seconds = dice.uniform(0.0, RUN_SECONDS)
        ended = asyncio.create_task(running.process.communicate())
        done, _ = await asyncio.wait({ended}, timeout=seconds)
        if not done:
            running.process.kill()
        await ended
        if done:
            assert running.process.returncode == 0
        return not done


def half_made(server: Server, name: str, tag: str) -> bool:
    """Whether docker-registry lists the tag and has not written yet what it is: it makes the folder first."""
    root = server.storage / "docker" / "registry" / "v2" / "repositories"
    return not (root / name / "_manifests" / "tags" / tag / "current" / "link").exists()


def missing_bytes(server: Server) -> int:
    """The bytes of blobs that some repository lacks, each blob once, and of all manifests.

    Blobs so small that they are sent to an untagged repository unasked count as lacking.
    """
    root = server.storage / "docker" / "registry" / "v2" / "repositories"
    lacking: dict[str, int] = {}
    manifests = 0
    for (name, _), built in IMAGES.items():
        for one in built.walk():
            manifests += len(one.manifest.body)
            for digest, data in one.blobs.items():
                link = root / name / "_layers" / "sha256" / digest.partition(":")[2] / "link"
                if not link.exists() or len(data) <= SMALL_BLOB_BYTES:
                    lacking[digest] = len(data)
    return sum(lacking.values()) + manifests


async def killed(folder: Path, hub: Server, dice: random.Random, most: int) -> int:
    """Kills runs to a new destination until one gets through, or `most` were killed; returns how many were."""
    count = 0
    with destination(folder, hub) as (server, program):
        while count < most and await kill_at_random(program, dice):
            count += 1
            found = walk(server.url, partial(half_made, server))
            assert found.items() <= expected(IMAGES).items()
        missing = missing_bytes(server)
        ended = await program("sync", "--json")
        assert ended.code == 0, ended.stderr
        assert ended.json["totals"]["bytes"]["written"] <= missing
        assert walk(server.url) == expected(IMAGES)
        again = await program("sync", "--json")
        assert again.json["totals"]["tags"]["unchanged"] == len(IMAGES)
        assert again.json["totals"]["bytes"] == {"read": 0, "written": 0, "saved": 0}
        for name, tag in IMAGES:
            skopeo_copy_to_layout(f"{server.host}/{name}:{tag}", folder / "layout", f"{name[9:]}-{tag}")
    return count


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.soak)])
async def test_killed_runs_leave_no_broken_tag_and_the_next_one_carries_on(
    hub: Server, tmp_path: Path, kills: int
) -> None:
    dice = random.Random(kills)  # the moments differ all the same: no machine takes the same time twice
    count = rounds = 0
    while count < kills:
        rounds += 1
        count += await killed(tmp_path / str(rounds), hub, dice, min(5, kills - count))
