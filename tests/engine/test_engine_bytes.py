"""Invariant 8: bytes move once, and are counted."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from replicator.demo.images import AMD64, ARM64, BuiltImage, image, index, layer, load
from replicator.engine.content.spool import SpoolFull
from replicator.engine.referrers import ReferrersAPIs
from replicator.engine.result import Totals
from replicator.engine.shared import Shared
from replicator.engine.transfer.blob import WantedBlob
from replicator.errors import Denied, MissingReference, Rejected, Unavailable
from replicator.events import BytesRead, BytesSaved, BytesWritten, Reread
from replicator.flow.patience import MOUNT_REFUSALS
from replicator.model.digest import digest_of
from replicator.ports import BlobOutcome, BlobSource, VerifiesItself
from tests.engine.world import World, big, rule, settled, until, world
from tests.fakes.memory import MemoryRepository

THREE = ("left", "right", "third")


def _graph(w: World) -> int:
    """Images that share layers across tags, platforms and repositories; returns the unique blob bytes."""
    base = [layer("base", 200_000), layer("runtime", 120_000)]
    built: list[BuiltImage] = []
    for name in ("a", "b"):
        for tag in ("v1", "v2"):
            children = [
                image(
                    f"{name}{tag}{platform}", [*base, layer(f"{name}{platform}", 70_000)], platform=platform
                )
                for platform in (AMD64, ARM64)
            ]
            built.append(w.put(name, tag, index(children)))
    blobs = {digest: data for root in built for one in root.walk() for digest, data in one.blobs.items()}
    return sum(len(data) for data in blobs.values())


def _read(w: World, site: str = "source") -> int:
    return sum(one.bytes for one in w.sites[site].operations if one.method == "open_blob")


def _spent(w: World, kind: type[BytesRead | BytesWritten | BytesSaved]) -> int:
    return sum(event.count for event in w.seen if isinstance(event, kind))


async def test_one_destination_reads_each_blob_once() -> None:
    async with world() as w:
        unique = _graph(w)
        results = await w.sync(rule("a", repositories=["a"]), rule("b", repositories=["b"]))
        assert {one.destinations[0].outcome for one in results} == {"ok"}
        assert _read(w) == unique
        assert not any(isinstance(event, Reread) for event in w.seen)


async def test_three_destinations_read_each_blob_once(tmp_path: Path) -> None:
    async with world(tmp_path, destinations=THREE) as w:
        unique = _graph(w)
        results = await w.sync(rule(destinations=THREE))
        assert [one.outcome for one in results[0].destinations] == ["ok"] * 3
        assert _read(w) == unique
        assert w.tags("left") == w.tags("right") == w.tags("third") == w.tags("source")
        saved = [
            event.count for event in w.seen if isinstance(event, BytesSaved) and event.reason == "shared_read"
        ]
        assert sum(saved) == 2 * unique


async def test_destination_that_comes_later_finds_the_read_that_was_done(tmp_path: Path) -> None:
    async with world(tmp_path, destinations=["left", "right"]) as w:
        unique = _graph(w)
        pause = w.right.pause("tags")
        run = asyncio.create_task(w.sync(rule(destinations=["left", "right"])))
        await until(lambda: w.tags("left") == w.tags("source"))
        pause.release()
        await run
        assert _read(w) == unique
        assert w.source.count("read_manifest") == len(w.source.store.repositories["a"].manifests) * 2


async def test_counts_of_a_run_are_what_really_moved(tmp_path: Path) -> None:
    async with world(tmp_path, destinations=["left", "right"]) as w:
        _graph(w)
        results = (await w.sync(rule(destinations=["left", "right"])))[0].destinations
        manifests = sum(one.bytes for one in w.source.operations if one.method == "read_manifest")
        assert sum(one.totals.bytes.read for one in results) == _read(w) + manifests == _spent(w, BytesRead)
        for one in results:
            wrote = [done for done in w.sites[one.destination].operations if done.method != "mount"]
            written = sum(done.bytes for done in wrote if done.method in {"write_blob", "write_manifest"})
            assert one.totals.bytes.written == written
            assert sum(action.bytes for action in one.actions) == written
        assert sum(one.totals.bytes.written for one in results) == _spent(w, BytesWritten)
        assert sum(one.totals.bytes.saved for one in results) == _spent(w, BytesSaved)


async def test_blob_totals_are_one_for_each_repository_that_wants_it() -> None:
    async with world() as w:
        shared = layer("shared", 200_000)
        for name in ("a", "b", "c"):
            w.put(name, "v1", image(name, [shared]))
        totals = (await w.sync_one()).totals
        # Each config once; the layer once, then mounted.
        assert (totals.blobs.copied, totals.blobs.mounted, totals.blobs.present) == (4, 2, 0)
        assert totals.bytes.saved == 2 * len(shared.data)


async def test_blob_of_a_second_tag_is_neither_asked_for_nor_sent() -> None:
    async with world() as w:
        shared = layer("shared", 200_000)
        first = w.put("app", "v1", image("one", [shared]))
        w.put("app", "v2", image("two", [shared]))
        digest = first.manifest.blobs[1].digest
        await w.sync_one()
        assert w.left.count("has_blob", digest) == 1
        assert w.left.count("write_blob", digest) == 1


async def test_new_tag_for_a_known_image_moves_no_blob() -> None:
    async with world() as w:
        built = w.put("app", "v1", big("large"))
        await w.sync_one()
        w.put("app", "v2", built)
        w.clear_log()
        result = await w.sync_one()
        assert result.totals.bytes.written == len(built.manifest.body)
        assert w.left.count("write_blob") == 0


async def test_refused_mount_reads_from_the_destinations_own_repository() -> None:
    async with world() as w:
        shared = layer("shared", 200_000)
        first = w.put("a", "v1", image("one", [shared]))
        digest = first.manifest.blobs[1].digest
        await w.sync_one()
        w.put("b", "v1", image("two", [shared]))
        w.clear_log()
        w.left.store.mount = lambda *_: False  # type: ignore[method-assign]
        result = await w.sync_one()
        assert result.outcome == "ok"
        assert w.left.count("mount", digest, "refused") == 1
        assert w.source.count("open_blob", digest) == 0
        assert w.left.count("open_blob", digest) == 1
        assert result.totals.blobs.mounted == 0
        assert BytesRead("left", len(shared.data)) in _merged(w)


def _merged(w: World) -> list[BytesRead]:
    sites = {event.source for event in w.seen if isinstance(event, BytesRead)}
    return [
        BytesRead(site, sum(e.count for e in w.seen if isinstance(e, BytesRead) and e.source == site))
        for site in sites
    ]


async def test_site_that_refuses_mounts_is_not_asked_for_ever() -> None:
    async with world() as w:
        shared = Shared(w.sites, w.state, w.events, w.clock, None, ReferrersAPIs(w.clock))
        shared.enter()
        transfers, _ = shared.writers("source", "left")
        w.left.store.mount = lambda *_: False  # type: ignore[method-assign]
        outcomes = []
        for number in range(6):
            built = w.put("app", f"v{number}", big(f"{number}"))
            descriptor = built.manifest.blobs[1]
            for name in ("a", "b"):
                blob = WantedBlob(
                    descriptor, "app", (), shared.content("source"), fresh=False, totals=Totals()
                )
                outcomes.append(await transfers.ensure(w.left.repository(name), blob))
        assert outcomes == ["copied"] * 12
        assert w.left.count("mount") == MOUNT_REFUSALS
        assert w.source.count("open_blob") == 6  # the second came from the destination itself
        await shared.leave()


async def test_what_one_source_brought_is_mounted_for_another() -> None:
    async with world(mirrors=["second"]) as w:
        shared = Shared(w.sites, w.state, w.events, w.clock, None, ReferrersAPIs(w.clock))
        shared.enter()
        built = w.put("app", "v1", image("too small to look it up in the state"))
        load(w.sites["second"].store, "app", "v1", built)
        outcomes = []
        for source, name in (("source", "a"), ("second", "b")):
            transfers, _ = shared.writers(source, "left")
            blob = WantedBlob(
                built.manifest.blobs[1], "app", (), shared.content(source), fresh=False, totals=Totals()
            )
            outcomes.append(await transfers.ensure(w.left.repository(name), blob))
        assert outcomes == ["copied", "mounted"]
        await shared.leave()


async def test_reading_again_is_counted() -> None:
    async with world(chunk_bytes=50_000) as w:
        built = w.put("app", "v1", big("large"))
        w.source.corrupt(built.manifest.blobs[1].digest)
        await w.sync_one()
        assert [event.digest for event in w.seen if isinstance(event, Reread)] == [
            built.manifest.blobs[1].digest
        ]


async def test_broken_read_goes_on_where_it_broke() -> None:
    async with world(chunk_bytes=50_000) as w:
        built = w.put("app", "v1", big("large"))
        digest = built.manifest.blobs[1].digest
        reset = Unavailable("source", "read blob", "reset", repository="app")
        w.source.fail("open_blob", reset, subject=digest, at=100_000, times=2)
        result = await w.sync_one()
        assert result.outcome == "ok"
        offsets = [one.offset for one in w.source.operations if one.subject == digest]
        assert offsets == [0, 100_000, 200_000]
        assert _read(w) == sum(len(data) for data in built.blobs.values())


@pytest.mark.parametrize("how", ["no folder", "too small", "disk full"])
async def test_without_a_spool_each_destination_streams_and_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    if how == "disk full":
        monkeypatch.setattr(os, "pwrite", full)
    folder = None if how == "no folder" else tmp_path
    both = ("left", "right")
    async with world(folder, destinations=both, spool_bytes=10 if how == "too small" else 1 << 30) as w:
        _graph(w)
        results = (await w.sync(rule(destinations=both)))[0].destinations
        assert [one.outcome for one in results] == ["ok", "ok"]
        assert w.tags("left") == w.tags("right") == w.tags("source")
        for one in results:
            [warning] = one.warnings
            assert "streaming instead" in warning


async def test_one_destination_needs_no_spool_and_none_is_missed(tmp_path: Path) -> None:
    async with world() as w:
        _graph(w)
        assert (await w.sync_one()).warnings == []
    async with world(tmp_path) as w:
        _graph(w)
        await w.sync_one()
        assert w.spool is not None
        assert not w.spool._entries


async def test_slow_destination_delays_neither_the_read_nor_the_other_one(tmp_path: Path) -> None:
    async with world(tmp_path, destinations=["left", "right"], chunk_bytes=50_000) as w:
        built = w.put("app", "v1", big("large", 3_000_000))
        digest = built.manifest.blobs[1].digest
        pause = w.left.pause("write_blob", subject=digest, at=0)
        run = asyncio.create_task(w.sync(rule(destinations=["left", "right"])))
        await pause.reached.wait()
        await until(lambda: w.tags("right") == w.tags("source"))
        pause.release()
        assert [one.outcome for one in (await run)[0].destinations] == ["ok", "ok"]
        assert w.source.count("open_blob", digest) == 1


async def test_destination_that_dies_in_the_middle_leaves_the_read_to_the_other(tmp_path: Path) -> None:
    async with world(tmp_path, destinations=["left", "right"], chunk_bytes=50_000) as w:
        built = w.put("app", "v1", big("large", 3_000_000))
        digest = built.manifest.blobs[1].digest
        refused = Rejected("left", "write blob", "quota", repository="app")
        w.left.fail("write_blob", refused, subject=digest, at=1_000_000)
        left, right = (await w.sync(rule(destinations=["left", "right"])))[0].destinations
        assert (left.outcome, right.outcome) == ("failed", "ok")
        assert left.failures[0].site == "left"
        assert w.source.count("open_blob", digest) == 1


async def test_dead_source_is_the_sources_failure_at_each_destination(tmp_path: Path) -> None:
    async with world(tmp_path, destinations=["left", "right"]) as w:
        built = w.put("app", "v1")
        gone = Denied("source", "read blob", "forbidden", repository="app")
        w.source.fail("open_blob", gone, subject=built.manifest.blobs[1].digest, times=99)
        results = (await w.sync(rule(destinations=["left", "right"])))[0].destinations
        assert [one.failures[0].site for one in results] == ["source", "source"]


async def test_corrupt_reading_through_the_spool_is_read_again_for_all(tmp_path: Path) -> None:
    async with world(tmp_path, destinations=["left", "right"]) as w:
        built = w.put("app", "v1", big("large"))
        w.source.corrupt(built.manifest.blobs[1].digest)
        results = (await w.sync(rule(destinations=["left", "right"])))[0].destinations
        assert [one.outcome for one in results] == ["ok", "ok"]
        assert w.source.count("open_blob", built.manifest.blobs[1].digest) == 2


async def test_manifest_is_read_once_for_all_destinations(tmp_path: Path) -> None:
    async with world(tmp_path, destinations=THREE) as w:
        w.put("app", "v1", index([image("x"), image("y")]))
        await w.sync(rule(destinations=THREE))
        assert w.source.count("read_manifest") == 3


async def test_blob_that_arrives_in_one_repository_while_another_is_asked_is_mounted_not_sent() -> None:
    """The question was under way while the first transfer ended: its answer must not be the last word.

    Seen against olareg: a layer of two repositories went over twice where the second one's HEAD was slow.
    """
    async with world() as w:
        shared = layer("shared", 200_000)
        for name in ("a", "b"):
            w.put(name, "v1", image(name, [shared]))
        digest = digest_of(shared.data)
        engine = w.engine()
        writing = w.left.pause("write_blob", subject=digest)
        first = asyncio.create_task(engine.sync([rule("one", repositories=["a"])]))
        await writing.reached.wait()
        asking = w.left.pause("has_blob", subject=digest)
        second = asyncio.create_task(engine.sync([rule("two", repositories=["b"])]))
        await asking.reached.wait()
        writing.release()
        assert (await first)[0].destinations[0].outcome == "ok"
        asking.release()
        assert (await second)[0].destinations[0].totals.blobs.mounted == 1
        assert w.source.count("open_blob", digest) == 1


async def test_index_waits_for_a_child_that_is_on_its_way_as_the_image_of_a_tag() -> None:
    """Only the blobs of that child are shared with the tag's writing, not the child itself.

    Seen against crane's registry: the index was refused for want of the child, and then, mounts being refused too, the
    blobs went over once more.
    """
    async with world(refuses_dangling=False) as w:
        child = w.put("app", "v1", image("child"))
        root = w.put("app", "all", index([child, image("other")]))
        writing = w.left.pause("write_manifest", subject="v1")
        run = asyncio.create_task(w.sync_one())
        await writing.reached.wait()
        await until(lambda: root.digest in w.left.store.repositories["app"].manifests)
        assert child.digest in w.left.store.repositories["app"].manifests
        writing.release()
        assert (await run).outcome == "ok"


async def test_blob_that_is_there_is_not_sent_after_a_refused_mount() -> None:
    """A mount is asked for unasked: what it would have told must be asked for where it is refused."""
    async with world() as w:
        shared = layer("shared", 200_000)
        for name in ("a", "b"):
            w.put(name, "v1", image(name, [shared]))
        w.left.refuses_mounts = True
        lost = MissingReference("left", "write manifest", "gone, it says", repository="b")
        w.left.fail("write_manifest", lost, repository="b", subject="v1")
        result = await w.sync_one()
        assert result.outcome == "ok"
        assert w.left.count("write_blob", digest_of(shared.data), "done") == 2
        assert result.totals.bytes.written < 3 * len(shared.data)


async def test_wrong_memory_does_not_read_the_source_beside_the_first_transfer() -> None:
    async with world() as w:
        shared = layer("shared", 200_000)
        digest = digest_of(shared.data)
        w.put("a", "v1", image("a", [shared]))
        await w.sync_one()
        w.left.store.repositories["a"].tags.clear()
        w.left.store.delete_blob("a", digest)
        w.put("b", "v1", image("b", [shared]))
        w.clear_log()
        engine = w.engine()
        writing = w.left.pause("write_blob", subject=digest)
        first = asyncio.create_task(engine.sync([rule("one", repositories=["a"])], recheck=True))
        await writing.reached.wait()
        second = asyncio.create_task(engine.sync([rule("two", repositories=["b"])]))
        await until(lambda: w.left.count("has_blob", digest, "done") == 2)
        await settled()
        writing.release()
        results = [(await run)[0].destinations[0] for run in (first, second)]
        assert [one.outcome for one in results] == ["ok", "ok"]
        assert results[1].totals.blobs.mounted == 1
        assert w.source.count("open_blob", digest) == 1


async def test_spool_that_fails_leaves_the_destinations_own_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a mount is refused: from the spool, else from there, and only then from the source again."""

    def full(*_: object) -> None:
        raise SpoolFull("no room, it says")

    async with world(tmp_path, destinations=["left", "right"]) as w:
        shared = layer("shared", 200_000)
        digest = digest_of(shared.data)
        both = rule(destinations=["left", "right"])
        w.put("a", "v1", image("a", [shared]))
        await w.sync(both)
        w.put("b", "v1", image("b", [shared]))
        w.left.refuses_mounts = w.right.refuses_mounts = True
        w.clear_log()
        assert w.spool is not None
        assert w.spool.has(digest)
        monkeypatch.setattr(w.spool, "join", full)
        assert [one.outcome for one in (await w.sync(both))[0].destinations] == ["ok", "ok"]
        assert w.source.count("open_blob", digest) == 0
        assert w.left.count("open_blob", digest) == w.right.count("open_blob", digest) == 1


async def test_destination_is_told_what_is_verified_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Straight from the source the bytes were hashed in this very moment; what lay on the spool's disk was not."""
    for destinations, verified in ((["left"], True), (["left", "right"], False)):
        told: list[bool] = []
        async with world(tmp_path, destinations=destinations) as w:
            write_blob = MemoryRepository.write_blob

            async def watched(
                self: MemoryRepository, source: BlobSource, *, origin: str | None = None
            ) -> BlobOutcome:
                told.append(isinstance(source, VerifiesItself) and source.is_verified)  # noqa: B023
                return await write_blob(self, source, origin=origin)  # noqa: B023

            monkeypatch.setattr(MemoryRepository, "write_blob", watched)
            w.put("app", "v1", big("large"))
            await w.sync(rule(destinations=destinations))
            monkeypatch.undo()
        assert set(told) == {verified}
