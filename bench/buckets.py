"""Between two buckets of one store (moto): what passes through the agent, and what an unchanged bucket costs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench import corpus as images
from bench import measure, servers
from bench.compare import Bench
from bench.corpus import SMALL_SET, Corpus
from bench.measure import Command, CommandFailed, Usage
from bench.peers import OURS, replicate
from bench.rows import Row
from replicator.demo.images import image, layer
from replicator.model.manifest import parse_manifest
from replicator.model.mediatypes import OCI_MANIFEST

SERVER_SIDE = "s3-server-side"
UNCHANGED = "s3-10k"
TAGS = 10_000
REPOSITORY = "bench/tags"
REPEAT = 3
ENVIRONMENT = {"BENCH_KEY": "key", "BENCH_SECRET": "secret", "AWS_EC2_METADATA_DISABLED": "true"}
START_SECONDS = 120.0
"""Moto is filled before it listens."""


@dataclass(frozen=True, slots=True)
class Store:
    """A moto with its two buckets, and what it has counted when."""

    port: int

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://{servers.HOST}:{self.port}"

    def counts(self) -> Counter[str]:
        """Requests by kind so far, and the bytes of objects that went in or out."""
        with urllib.request.urlopen(f"{self.url}/counts", timeout=10) as answer:  # noqa: S310  # our own loopback URL
            return Counter(json.load(answer))

    def table(self, bucket: str) -> list[str]:
        """The lines of a bucket's table."""
        return [
            f'url = "s3://{bucket}"',
            'layout = "distribution"',
            f'endpoint = "{self.url}"',
            'region = "us-east-1"',
            'access_key = { env = "BENCH_KEY" }',
            'secret_key = { env = "BENCH_SECRET" }',
        ]


async def server_side(bench: Bench) -> list[Row]:
    """Ours alone: the images of `small-set` from one bucket to the other, and what of them the agent saw."""
    folder = bench.folder / SERVER_SIDE
    held = await asyncio.to_thread(images.fill, folder / "storage", SMALL_SET)
    manifests = _manifest_bytes(folder / "storage", held)
    usages, notes = [], {}
    for turn in range(bench.repeat or REPEAT if _takes_part(bench) else 0):
        home = folder / f"turn-{turn}"
        home.mkdir()
        async with store(home, folder / "storage") as moto:
            usage, report = await _sync(moto, home, sorted(held.images))
            if report["tags"]["copied"] != held.tags:
                raise CommandFailed(f"{report['tags']['copied']} of {held.tags} tags are copied")
            usages.append(usage)
            counted = moto.counts()
        moved = report["bytes"]
        notes = {
            "payload bytes read": float(moved["read"] - manifests),
            "payload bytes written": float(moved["written"] - manifests),
            **{name: float(count) for name, count in sorted(counted.items())},
        }
        bench.tell(
            f"  {usage.seconds:.2f} s, {report['bytes']}, {dict(counted)} (load {os.getloadavg()[0]:.1f})"
        )
        shutil.rmtree(home)
    shutil.rmtree(folder)
    return [Row(SERVER_SIDE, OURS, usages, payload_bytes=held.unique_bytes, notes=notes)] if usages else []


async def unchanged(bench: Bench) -> list[Row]:
    """Ours alone: two buckets with the same tags. The first run learns that, the second, measured, knows it."""
    folder = bench.folder / UNCHANGED
    await asyncio.to_thread(_fill_tags, folder / "storage")
    runs, notes = [], {}
    if _takes_part(bench):
        async with store(folder, folder / "storage", "--both") as moto:
            first, _ = await _sync(moto, folder, [REPOSITORY])
            bench.tell(f"  first run: {first.seconds:.2f} s, {dict(moto.counts())}")
            for _ in range(bench.repeat or REPEAT):
                before = moto.counts()
                usage, report = await _sync(moto, folder, [REPOSITORY])
                if report["tags"]["unchanged"] != TAGS:
                    raise CommandFailed(f"{report['tags']['unchanged']} of {TAGS} tags are unchanged")
                runs.append(usage)
                asked = moto.counts() - before
                notes = {name: float(count) for name, count in sorted(asked.items())}
                bench.tell(f"  {usage.seconds:.2f} s, {dict(asked)} (load {os.getloadavg()[0]:.1f})")
    shutil.rmtree(folder)
    return [Row(UNCHANGED, OURS, runs, notes=notes)] if runs else []


@contextlib.asynccontextmanager
async def store(folder: Path, content: Path, *options: str) -> AsyncIterator[Store]:
    """A moto with the content in its bucket `source`, on a port of its own, until the end of the block."""
    moto = Store(servers.free_port())
    command = [sys.executable, "-m", "bench.bucket", str(moto.port), str(content), *options]
    log = folder / "moto.log"
    with servers.process(command, log, log) as running:
        await servers.reachable(moto.port, running, START_SECONDS)
        yield moto


async def _sync(moto: Store, folder: Path, repositories: Sequence[str]) -> tuple[Usage, Mapping[str, Any]]:
    """One run from the bucket `source` to the bucket `destination`, and the totals of its report."""
    tables = {"source": moto.table("source"), "to": moto.table("destination")}
    command = replicate(folder, tables, repositories, "--json")
    report = folder / "report.json"
    aside = ["sh", "-c", 'report=$1; shift; exec "$@" >"$report"', "sh", str(report)]
    environment = {**command.environment, **ENVIRONMENT}
    usage = await measure.run([Command([*aside, *command.arguments], environment)], folder / "run")
    totals: Mapping[str, Any] = json.loads(report.read_bytes())["totals"]
    return usage, totals


def _takes_part(bench: Bench) -> bool:
    return any(one.name == OURS for one in bench.programs)


def _manifest_bytes(storage: Path, held: Corpus) -> int:
    """What the manifests take, each counted once for each tag."""
    return sum(
        images.blob_path(storage, digest).stat().st_size
        for tags in held.images.values()
        for digest in tags.values()
    )


def _fill_tags(storage: Path) -> None:
    """One repository of a great many tags: manifests that differ by an annotation, of one config and one layer."""
    built = image("tags", [layer("tags")])
    images.put_blobs(storage, REPOSITORY, built.blobs)
    body = msgspec.json.decode(built.manifest.body)
    for number in range(TAGS):
        body["annotations"] = {"number": str(number)}
        manifest = parse_manifest(msgspec.json.encode(body), OCI_MANIFEST)
        images.put_manifest(storage, REPOSITORY, manifest, f"v1.0.{number}")
