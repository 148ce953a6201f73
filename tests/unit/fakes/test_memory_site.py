"""The fake itself: what the engine's tests rest on."""

from __future__ import annotations

import asyncio

import pytest

from replicator.demo.images import AMD64, ARM64, image, index, load
from replicator.errors import Corrupt, MissingReference, NotFound, Unavailable
from replicator.model.digest import digest_of
from tests.fakes.memory import MemorySite
from tests.fakes.watched import WatchedStore


def test_same_seed_gives_the_same_bytes() -> None:
    assert image("a").digest == image("a").digest
    assert image("a").digest != image("b").digest


def test_every_edge_of_a_built_index_is_kept() -> None:
    built = index([image("x", platform=AMD64), image("y", platform=ARM64)])
    store = WatchedStore()
    load(store, "app", "v1", built)
    assert store.dangling() == []
    assert [str(child.platform) for child in built.manifest.children] == ["linux/amd64", "linux/arm64"]
    store.delete_blob("app", built.children[1].manifest.blobs[0].digest)
    assert len(store.dangling()) == 1


async def test_blob_moves_whole_and_verified() -> None:
    source, destination = MemorySite("source", chunk_bytes=500), MemorySite("destination")
    built = image("a")
    load(source.store, "app", "v1", built)
    for blob in built.manifest.blobs:
        outcome = await destination.repository("app").write_blob(source.repository("app").blob(blob))
        assert outcome == "copied"
    await destination.repository("app").write_manifest(built.manifest, "v1")
    assert (await destination.repository("app").resolve("v1")).digest == built.digest
    assert source.idle
    assert destination.idle


async def test_failure_of_the_source_is_the_sources() -> None:
    source, destination = MemorySite("source", chunk_bytes=500), MemorySite("destination")
    built = image("a")
    load(source.store, "app", "v1", built)
    broken = Unavailable("source", "read blob", "reset", repository="app")
    source.fail("open_blob", broken, at=1_000)
    blob = source.repository("app").blob(built.manifest.blobs[1])
    with pytest.raises(Unavailable) as caught:
        await destination.repository("app").write_blob(blob)
    assert caught.value is broken
    assert blob.failure is broken
    assert source.operations[-1].bytes == 1_000
    assert destination.store.repositories == {}
    assert destination.idle


async def test_failure_of_the_destination_is_not_blamed_on_the_source() -> None:
    source, destination = MemorySite("source", chunk_bytes=500), MemorySite("destination")
    built = image("a")
    load(source.store, "app", "v1", built)
    destination.fail("write_blob", Unavailable("destination", "write blob", "reset"), at=600)
    blob = source.repository("app").blob(built.manifest.blobs[1])
    with pytest.raises(Unavailable):
        await destination.repository("app").write_blob(blob)
    assert blob.failure is None
    assert destination.idle


async def test_corrupt_bytes_never_become_visible() -> None:
    source, destination = MemorySite("source"), MemorySite("destination")
    built = image("a")
    load(source.store, "app", "v1", built)
    source.corrupt(built.manifest.blobs[0].digest)
    with pytest.raises(Corrupt):
        await destination.repository("app").write_blob(source.repository("app").blob(built.manifest.blobs[0]))
    assert destination.store.repositories == {}
    await destination.repository("app").write_blob(source.repository("app").blob(built.manifest.blobs[0]))


async def test_missing_references_are_named() -> None:
    site, built = MemorySite(), image("a")
    with pytest.raises(MissingReference) as caught:
        await site.repository("app").write_manifest(built.manifest, "v1")
    assert set(caught.value.digests) == set(built.blobs)


async def test_fault_queue_counts_and_is_late_where_asked() -> None:
    site, built = MemorySite(), image("a")
    load(site.store, "app", "v1", built)
    site.fail("resolve", Unavailable("memory", "resolve", "x"), times=1, after=1)
    repository = site.repository("app")
    await repository.resolve("v1")
    with pytest.raises(Unavailable):
        await repository.resolve("v1")
    await repository.resolve("v1")
    site.fail("write_manifest", Unavailable("memory", "write manifest", "lost"), late=True)
    with pytest.raises(Unavailable):
        await repository.write_manifest(built.manifest, "v2")
    assert (await repository.resolve("v2")).digest == built.digest
    assert site.count("resolve") == 4
    assert site.count("resolve", outcome="Unavailable") == 1


async def test_paused_call_goes_on_only_when_released_and_cancelled_leaves_nothing() -> None:
    source, destination = MemorySite("source", chunk_bytes=500), MemorySite("destination")
    built = image("a")
    load(source.store, "app", "v1", built)
    pause = source.pause("open_blob", at=500)
    blob = source.repository("app").blob(built.manifest.blobs[1])
    writing = asyncio.create_task(destination.repository("app").write_blob(blob))
    await pause.reached.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert source.idle
    assert destination.idle
    pause.release()
    assert await destination.repository("app").write_blob(blob) == "copied"


async def test_refused_mount_falls_back_to_the_source() -> None:
    site, built = MemorySite(mount=False), image("a")
    load(site.store, "one", "v1", built)
    blob = site.repository("one").blob(built.manifest.blobs[0])
    assert await site.repository("two").write_blob(blob, origin="one") == "copied"
    assert site.count("mount", outcome="refused") == 1
    accepting = MemorySite(store=site.store)
    assert await accepting.repository("three").write_blob(blob, origin="one") == "mounted"


async def test_missing_repository_is_not_an_empty_one() -> None:
    site = MemorySite()
    with pytest.raises(NotFound):
        _ = [page async for page in site.repository("none").tags()]
    site.store.put_blob("blobs", b"x")
    assert [page async for page in site.repository("blobs").tags()] == []
    assert not await site.repository("blobs").has_blob(digest_of(b"y"))
