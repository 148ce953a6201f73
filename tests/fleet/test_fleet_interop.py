"""Three agents as processes between two docker-registry: killed, stopped, joined; counted by the registries' own logs."""

from __future__ import annotations

import asyncio
import re
import signal
import urllib.request
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import psycopg
import pytest

from bench.corpus import ROOT, Corpus, Shape, fill, put_blobs, put_manifest, shortcomings
from replicator.demo.images import image, layer
from replicator.engine.transfer.claims import CLAIMED_BLOB_BYTES
from replicator.model.digest import Digest
from replicator.model.shards import Shard, shard_of
from tests.fakes.distribution import Server, distribution
from tests.fleet.processes import Crew, crew, until
from tests.postgres import Database

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

REPOSITORIES = 20
LARGE_BYTES = 6_000_000
SHARDS = 16
RULE = """
[[rule]]
name = "apps"
source = "hub"
destinations = ["fra"]
repositories = ["**"]
interval = "1h"
[http]
metrics_open = true
"""


def filled(storage: Path, images: int) -> Corpus:
    """So many small images, and one with a large blob.

    Those of a repository share their layer: a config, a manifest and a tag are left for each.
    """
    small = Shape("small", REPOSITORIES, images // REPOSITORIES, (2_000,), (), sharing="repository")
    corpus = fill(storage, small)
    large = image("large", [layer("large", LARGE_BYTES)])
    put_blobs(storage, "large", large.blobs)
    put_manifest(storage, "large", large.manifest, "v1")
    corpus.images["large"] = {"v1": large.digest}
    corpus.blobs.update({digest: len(data) for digest, data in large.blobs.items()})
    return corpus


def tags(registry: Server, corpus: Corpus) -> int:
    """How many of the corpus there are."""
    folders = [registry.storage / ROOT / "repositories" / name / "_manifests/tags" for name in corpus.images]
    return sum(len(list(folder.iterdir())) for folder in folders if folder.exists())


def is_in_mid_blob(registry: Server) -> bool:
    """Whether some of the large blob has arrived, and not all of it."""
    parts = registry.storage.glob(f"{ROOT}/repositories/large/_uploads/*/data")
    try:
        return any(0 < part.stat().st_size < LARGE_BYTES for part in parts)
    except FileNotFoundError:  # it is through
        return False


def who_has_the_large_one(database: Database) -> str | None:
    """The agent that says that it works on its shard."""
    shard = Shard(shard_of("large", SHARDS), SHARDS)
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        query = "SELECT name FROM fleet_agents WHERE doing @> jsonb_build_array(jsonb_build_object('shard', %s::text))"
        row = connection.execute(query, (str(shard),)).fetchone()
    return None if row is None else str(row[0])


def puts(registry: Server) -> Counter[str]:
    """How often each blob and manifest was taken, by the registry's log, each named by its path."""
    said = (registry.storage.parent / "log").read_text()
    taken = re.findall(r'"PUT (\S+) HTTP/1\.1" 201 ', said)
    return Counter(re.sub(r"uploads/.*digest=([^&]+).*", r"\1", unquote(path)) for path in taken)


def duplicate_bytes(agents: Crew) -> float:
    """What living agents sent in spite of others."""
    total = 0.0
    for name in agents.agents:
        with urllib.request.urlopen(f"{agents.urls[name]}/metrics", timeout=30) as answer:  # noqa: S310  # loopback
            found = re.findall(rb"^replicator_duplicate_bytes_total\S* (\S+)$", answer.read(), re.MULTILINE)
        total += sum(map(float, found))
    return total


@pytest.mark.parametrize("images", [500, pytest.param(2_000, marks=pytest.mark.soak)])
async def test_three_agents_copy_everything_once_whoever_comes_and_goes(
    tmp_path: Path, database: Database, images: int
) -> None:
    for name in ("hub", "fra"):
        (tmp_path / name).mkdir()
    corpus = filled(tmp_path / "hub" / "storage", images)
    with (
        distribution(tmp_path / "hub") as hub,
        distribution(tmp_path / "fra", writes_requests=True) as fra,
    ):
        sites = {
            "hub": f'url = "{hub.url}"\nlimits = {{ bytes_per_second = "1MB" }}',
            "fra": f'url = "{fra.url}"',
        }
        fleet = Crew(tmp_path, database, sites, RULE, f'shards = {SHARDS}\njobs = 4\nheartbeat = "1s"')
        async with crew(fleet) as agents:
            async with asyncio.TaskGroup() as tasks:
                for name in ("a", "b", "c"):
                    tasks.create_task(agents.start(name))
            killed: list[str | None] = []

            def is_one_in_mid_blob() -> bool:
                killed[:] = [who_has_the_large_one(database)]
                return killed != [None] and is_in_mid_blob(fra)

            await until(is_one_in_mid_blob, agents)
            await agents.agents.pop(killed[0] or "").end(signal.SIGKILL)
            await until(lambda: tags(fra, corpus) >= corpus.tags // 3, agents)
            stopped = min(agents.agents)
            assert await agents.agents.pop(stopped).end(signal.SIGTERM) == 0
            await agents.start("d")
            await until(lambda: tags(fra, corpus) == corpus.tags, agents)
            duplicates = duplicate_bytes(agents)
        assert shortcomings(fra.storage, corpus) == []
        assert duplicates == 0
    seen = puts(fra)
    assert sum("/manifests/" in path for path in seen) == corpus.tags
    repeated = {path.rpartition("/")[2]: count - 1 for path, count in seen.items() if count > 1}
    assert repeated.keys() <= corpus.blobs.keys(), "no manifest was written twice"
    # Small blobs of images that the killed agent had in hand, of which it could tell nobody any more.
    sizes = [corpus.blobs[Digest(name)] * count for name, count in repeated.items()]
    assert max(sizes, default=0) < CLAIMED_BLOB_BYTES
    assert sum(sizes) < 100_000
