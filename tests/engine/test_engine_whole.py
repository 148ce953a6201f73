"""Invariants 1 to 3: the tag moves last, bytes are never changed, the root is read by digest."""

from __future__ import annotations

import asyncio
import re

import pytest

from replicator.demo.images import AMD64, ARM64, image, index, load
from replicator.errors import MissingReference, Unavailable
from replicator.policy.rule import Rename, Replacement
from tests.engine.world import only, rule, until, world
from tests.fakes.content import (
    artifact,
    docker_list,
    nested_index,
    schema1,
    sparse_index,
    unknown_type,
    with_attestation,
    with_foreign_layer,
    with_repeated_layer,
    without_media_type,
)
from tests.fakes.watched import WatchedStore


async def test_tag_moves_only_after_every_child_exists() -> None:
    # This destination refuses nothing, so only the order of writes keeps the tag whole.
    async with world(refuses_dangling=False) as w:
        built = w.put("app", "v1", nested_index("deep"))
        result = await w.sync_one()
        assert result.outcome == "ok"
        assert w.tags() == {"app": {"v1": built.digest}}
        writes = [one.subject for one in w.left.operations if one.method == "write_manifest"]
        assert writes[-1] == "v1"
        assert sorted(writes[:-1]) == sorted(one.digest for one in built.walk() if one is not built)


async def test_blobs_come_before_the_manifest_that_names_them() -> None:
    async with world(refuses_dangling=False) as w:
        built = w.put("app", "v1")
        holes: list[str] = []

        def watch(store: WatchedStore, repository: str) -> None:
            content = store.repositories[repository]
            for manifest in content.manifests.values():
                holes.extend(blob.digest for blob in manifest.blobs if blob.digest not in content.blobs)

        w.left.store.watchers.append(watch)
        await w.sync_one()
        assert w.tags()["app"]["v1"] == built.digest
        assert holes == []


@pytest.mark.parametrize("tells_digest", [True, False])
async def test_root_and_tag_are_one_put(*, tells_digest: bool) -> None:
    async with world(tells_digest=tells_digest) as w:
        w.put("app", "v1")
        assert (await w.sync_one()).outcome == "ok"
        assert w.left.count("write_manifest") == 1
        # Verified by the PUT's own answer, else by asking what the tag is now.
        assert w.left.count("resolve", "v1") == (0 if tells_digest else 1)


async def test_image_with_a_blob_missing_at_the_source_is_not_tagged_and_the_next_one_is() -> None:
    async with world(refuses_dangling=False) as w:
        broken, whole = w.put("app", "broken"), w.put("app", "whole")
        hole = broken.manifest.blobs[1].digest
        w.source.store.delete_blob("app", hole)
        result = await w.sync_one()
        assert w.tags() == {"app": {"whole": whole.digest}}
        assert result.outcome == "partial"
        assert [action.tag for action in only(result, "failed")] == ["broken"]
        assert (result.failures[0].site, result.failures[0].repository) == ("source", "app")
        assert hole in result.failures[0].cause


async def test_moved_tag_keeps_its_old_image_until_the_new_one_is_whole() -> None:
    async with world(refuses_dangling=False) as w:
        old = w.put("app", "v1", image("old"))
        await w.sync_one()
        new = w.put("app", "v1", image("new"))
        pause = w.left.pause("write_blob")
        run = asyncio.create_task(w.sync_one())
        await pause.reached.wait()
        assert w.tags()["app"]["v1"] == old.digest
        pause.release()
        await run
        assert w.tags()["app"]["v1"] == new.digest


async def test_bytes_of_a_manifest_are_kept() -> None:
    images = [
        without_media_type("plain"),
        with_foreign_layer("windows"),
        with_repeated_layer("twice"),
        with_attestation("buildkit"),
        docker_list(image("docker", platform=AMD64), image("docker", platform=ARM64)),
        artifact("thing"),
        index([image("x")], {"note": "\u00e9"}),
    ]
    async with world() as w:
        for number, built in enumerate(images):
            w.put("app", f"v{number}", built)
        assert (await w.sync_one()).outcome == "ok"
        theirs, ours = (site.store.repositories["app"].manifests for site in (w.source, w.left))
        assert {digest: one.body for digest, one in ours.items()} == {
            digest: one.body for digest, one in theirs.items()
        }


async def test_foreign_layer_is_named_but_not_copied() -> None:
    async with world() as w:
        built = w.put("app", "v1", with_foreign_layer("windows"))
        assert (await w.sync_one()).outcome == "ok"
        assert w.left.store.repositories["app"].blobs == {blob.digest for blob in built.manifest.blobs}


async def test_truncated_blob_never_becomes_visible() -> None:
    async with world(refuses_dangling=False) as w:
        built = w.put("app", "v1")
        digest = built.manifest.blobs[1].digest
        blob = w.source.store.blobs[digest]
        blob.data = blob.data[:-1]
        result = await w.sync_one()
        assert result.outcome == "failed"
        assert result.failures[0].reason == "corrupt"
        assert w.tags() == {}
        assert digest not in w.left.store.blobs


async def test_lying_blob_never_becomes_visible_not_even_at_a_site_that_believes_everything() -> None:
    async with world(refuses_dangling=False, chunk_bytes=500) as w:
        built = w.put("app", "v1")
        digest = built.manifest.blobs[1].digest
        blob = w.source.store.blobs[digest]
        blob.data = blob.data[:-1] + b"!"
        repository = w.left.repository("app")
        await w.sync_one()
        offered = [
            one.bytes for one in w.left.operations if one.method == "write_blob" and one.subject == digest
        ]
        assert offered
        assert all(count < len(blob.data) for count in offered)  # the last chunk was held back
        assert not await repository.has_blob(digest)
        assert w.tags() == {}


async def test_blob_corrupt_on_the_wire_once_is_read_again() -> None:
    async with world() as w:
        built = w.put("app", "v1")
        w.source.corrupt(built.manifest.blobs[1].digest)
        result = await w.sync_one()
        assert result.outcome == "ok"
        assert w.tags()["app"]["v1"] == built.digest


async def test_manifest_that_is_not_its_digest_is_refused() -> None:
    async with world() as w:
        built = w.put("app", "v1")
        w.source.corrupt(built.digest, times=9)
        result = await w.sync_one()
        assert (result.outcome, result.failures[0].reason) == ("failed", "corrupt")
        assert w.tags() == {}


async def test_destination_that_stored_something_else_is_a_failure() -> None:
    async with world() as w:
        built = w.put("app", "v1")
        other = image("another pusher's")
        load(w.left.store, "app", None, other)

        def overwrite(store: WatchedStore, repository: str) -> None:
            if store.repositories[repository].tags.get("v1") == built.digest:
                store.repositories[repository].tags["v1"] = other.digest

        w.left.tells_digest = False
        w.left.store.watchers.append(overwrite)
        result = await w.sync_one()
        assert result.outcome == "failed"
        assert result.failures[0].operation == "verify manifest"
        assert other.digest in result.failures[0].cause


async def test_tag_that_moves_under_a_run_is_copied_as_it_was_and_picked_up_by_the_next_run() -> None:
    async with world() as w:
        old = w.put("app", "v1", index([image("old")]))
        pause = w.source.pause("read_manifest", subject=old.digest)
        run = asyncio.create_task(w.sync_one())
        await pause.reached.wait()
        new = w.put("app", "v1", index([image("new")]))
        pause.release()
        assert (await run).outcome == "ok"
        assert w.tags()["app"]["v1"] == old.digest
        assert w.source.count("read_manifest", "v1") == 0
        await w.sync_one()
        assert w.tags()["app"]["v1"] == new.digest


async def test_schema_1_image_is_copied_with_its_layers_and_signatures() -> None:
    async with world() as w:
        built = w.put("app", "old", schema1("old"))
        assert (await w.sync_one()).outcome == "ok"
        assert w.tags() == {"app": {"old": built.digest}}
        there = w.left.store.repositories["app"]
        assert there.manifests[built.digest].body == built.manifest.body
        assert there.blobs == set(built.blobs)
        assert (await w.sync_one(recheck=True)).actions == []


async def test_unknown_kind_of_manifest_is_a_failure_of_that_tag_alone() -> None:
    async with world() as w:
        w.put("app", "odd", unknown_type("odd"))
        w.put("app", "good")
        result = await w.sync_one()
        assert result.outcome == "partial"
        assert [action.tag for action in only(result, "failed")] == ["odd"]
        assert set(w.tags()["app"]) == {"good"}


async def test_index_with_a_missing_child_is_a_failure_of_that_tag_alone() -> None:
    async with world(refuses_dangling=False) as w:
        w.source.store.refuses_dangling = False
        w.put("app", "sparse", sparse_index("sparse"))
        w.put("app", "good")
        result = await w.sync_one()
        assert [action.tag for action in only(result, "failed")] == ["sparse"]
        assert set(w.tags()["app"]) == {"good"}


async def test_what_the_destination_lost_during_the_run_is_sent_again_once() -> None:
    """A garbage collection took a blob between its upload and the manifest: the refusal tells, and all is asked anew."""
    async with world() as w:
        built = w.put("app", "v1")
        lost = built.manifest.blobs[1].digest

        def collect(operation: object) -> BaseException:
            w.left.store.delete_blob("app", lost)
            return MissingReference(
                "left", "write manifest", "blob unknown", repository="app", digests=[lost]
            )

        w.left.fail("write_manifest", collect)
        result = await w.sync_one()
        assert result.outcome == "ok"
        assert w.tags()["app"]["v1"] == built.digest
        assert w.left.count("write_blob", lost) == 2
        assert w.left.count("write_blob") == len(built.blobs) + 1


async def test_child_that_the_destination_lost_during_the_run_is_put_again() -> None:
    """The first index was written whole; then a collection took its child; the second index names the same child."""
    async with world() as w:
        child = image("child")
        first, second = index([child]), index([child, image("other")])
        w.put("one", "v1", first)
        w.put("two", "v2", second)
        pause = w.source.pause("resolve", subject="v2")
        merge = Rename(replacements=(Replacement(re.compile(".+"), "app"),))
        run = asyncio.create_task(w.sync_one(rule(rename=merge)))
        await pause.reached.wait()
        await until(w.tags)
        w.left.store.delete_tag("app", "v1")
        w.left.store.delete_manifest("app", child.digest)
        pause.release()
        assert (await run).outcome == "ok"
        assert w.tags() == {"app": {"v2": second.digest}}


async def test_manifest_refused_for_ever_ends_as_a_failure() -> None:
    async with world() as w:
        w.put("app", "v1")
        refusal = MissingReference("left", "write manifest", "blob unknown", repository="app")
        w.left.fail("write_manifest", refusal, times=99)
        result = await w.sync_one()
        assert (result.outcome, result.failures[0].reason) == ("failed", "missing_reference")
        assert w.left.count("write_manifest") == 2


async def test_failed_tag_put_leaves_the_tag_as_it_was() -> None:
    async with world() as w:
        old = w.put("app", "v1", image("old"))
        await w.sync_one()
        w.put("app", "v1", image("new"))
        w.left.fail(
            "write_manifest", Unavailable("left", "write manifest", "reset", repository="app"), subject="v1"
        )
        result = await w.sync_one(rule())
        assert result.outcome == "failed"
        assert w.tags()["app"]["v1"] == old.digest
