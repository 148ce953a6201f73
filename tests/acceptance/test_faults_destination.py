"""What can go wrong at a destination, end to end: right in the end, or an error that says so, and never a wrong tag."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from replicator.demo.images import image, layer
from replicator.model.digest import digest_of
from tests.acceptance.wired import BLOB_BYTES, CHUNK_BYTES, Wired, only_app_failed, wired
from tests.fakes import faults, habits
from tests.fakes.registry import Action, FakeRegistry
from tests.fakes.watched import WatchedStore

UPLOADS = "/app/blobs/uploads/"
MANIFEST = "/app/manifests/"
MOUNT = "/blobs/uploads/.mount="
OTHER = digest_of(b"something else")
POSITIONS = [0, 1, CHUNK_BYTES, BLOB_BYTES // 2, BLOB_BYTES - 1, BLOB_BYTES]


@pytest.mark.parametrize("at", POSITIONS)
@pytest.mark.usefixtures("moved")
async def test_upload_that_breaks_off_goes_on_or_begins_again(at: int) -> None:
    async with wired() as w:
        w.target.fault("PUT|PATCH", f"{UPLOADS}.*{w.blob.partition(':')[2]}", faults.reset_upload(at))
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole
        # What came before the break is not sent again, unless there is no telling how much that was.
        most = sum(map(len, w.app.blobs.values())) + sum(map(len, w.web.blobs.values()))
        assert w.target.uploaded_bytes <= most + (1 if at == 1 else BLOB_BYTES if at == BLOB_BYTES else 0)


WRITES = {"start": ("POST", UPLOADS), "upload": ("PUT", UPLOADS), "manifest": ("PUT", MANIFEST)}
ONCE = {
    "reset": faults.reset_unanswered(),
    "500": faults.answer(500),
    "502 as HTML": faults.answer(502, "<html><title>Bad Gateway</title></html>", html=True),
    "503": faults.answer(503),
}
LATE = {"lost answer": faults.lose_answer(), "500 though it was done": faults.answer_late(500)}


@pytest.mark.parametrize("action", ONCE.values(), ids=ONCE)
@pytest.mark.parametrize(("method", "target"), WRITES.values(), ids=WRITES)
async def test_write_that_fails_once_is_done_again(method: str, target: str, action: Action) -> None:
    async with wired() as w:
        w.target.fault(method, target, action)
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole


@pytest.mark.parametrize("action", LATE.values(), ids=LATE)
@pytest.mark.parametrize("target", [UPLOADS, MANIFEST], ids=["upload", "manifest"])
async def test_write_that_was_done_unknown_to_us_is_not_missed(target: str, action: Action) -> None:
    async with wired() as w:
        w.target.fault("PUT", target, action)
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole


@pytest.mark.parametrize("action", LATE.values(), ids=LATE)
async def test_session_whose_opening_was_not_told_is_not_missed(action: Action) -> None:
    target = FakeRegistry(habits.no_single_post(), store=WatchedStore(refuses_dangling=False))
    async with wired(target=target) as w:
        w.target.fault("POST", UPLOADS, action)
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole
        assert len(w.target.store.uploads) == 1  # nobody told where it is: the registry's own to purge
        w.target.store.uploads.clear()


NEVER = {
    "reset": (faults.reset_unanswered(), "unavailable"),
    "500": (faults.answer(500, "broken"), "unavailable"),
    "403": (faults.refuse(403, "DENIED"), "denied"),
    "400": (faults.refuse(400, "NAME_INVALID"), "rejected"),
    "413": (faults.answer(413), "rejected"),
    "507": (faults.answer(507, "disk full"), "unavailable"),
    "HTML": (faults.answer(200, "<html>Welcome</html>", html=True), ""),
}


@pytest.mark.parametrize(("action", "reason"), NEVER.values(), ids=NEVER)
@pytest.mark.parametrize(("method", "target"), WRITES.values(), ids=WRITES)
async def test_write_that_never_succeeds_is_a_failure_of_its_image_alone(
    method: str, target: str, action: Action, reason: str
) -> None:
    async with wired() as w:
        w.target.fault(method, target, action, times=None)
        assert only_app_failed(w, await w.sync_one(), "target").startswith(reason)
        await w.must_heal()


@pytest.mark.parametrize(
    "value", [OTHER, "sha256:short", "", None], ids=["other", "no digest", "empty", "none"]
)
async def test_digest_told_of_an_upload_is_checked_where_it_is_one(value: str | None) -> None:
    async with wired() as w:
        w.target.fault("PUT", UPLOADS, faults.header("Docker-Content-Digest", value), times=None)
        result = await w.sync_one()
        if value == OTHER:
            assert only_app_failed(w, result, "target") == "corrupt: it stored the blob under another digest"
        else:
            assert result.outcome == "ok", result.failures
        await w.must_heal()


@pytest.mark.parametrize("value", ["sha256:short", "", None], ids=["no digest", "empty", "none"])
async def test_manifest_whose_digest_is_not_told_is_asked_for(value: str | None) -> None:
    async with wired() as w:
        w.target.fault("PUT", MANIFEST, faults.header("Docker-Content-Digest", value), times=None)
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.target.count("HEAD", f"{MANIFEST}v1") == 1


async def test_destination_that_says_it_stored_another_manifest_is_a_failure() -> None:
    async with wired() as w:
        w.target.fault("PUT", MANIFEST, faults.header("Docker-Content-Digest", OTHER), times=None)
        result = await w.sync_one()
        [failure] = result.failures
        assert (failure.site, failure.repository, failure.operation) == ("target", "app", "verify manifest")
        assert OTHER in failure.cause
        await w.must_heal()


@pytest.mark.parametrize("after", [0, 1])
async def test_session_that_is_lost_is_begun_again(after: int) -> None:
    async with wired() as w:
        w.target.fault("PUT", UPLOADS, faults.lose_session(), after=after)
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole


async def test_session_that_is_always_lost_is_a_failure() -> None:
    async with wired() as w:
        w.target.fault("PUT|PATCH", UPLOADS, faults.lose_session(), times=None)
        assert "the upload session was lost" in only_app_failed(w, await w.sync_one(), "target")
        await w.must_heal()


def shared(w: Wired) -> None:
    """A third image, in a repository of its own, with the large blob of `app`."""
    w.put("more", "v1", image("more", [layer("app", BLOB_BYTES)]))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 422, 500, 501, 503])
async def test_refused_mount_is_an_upload(status: int) -> None:
    async with wired() as w:
        assert (await w.sync_one()).outcome == "ok"
        shared(w)
        w.target.fault("POST", MOUNT, faults.answer(status), times=None)
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole
        assert w.target.count("POST", MOUNT) >= 1


async def test_ignored_mount_goes_on_with_the_session_it_got() -> None:
    async with wired() as w:
        assert (await w.sync_one()).outcome == "ok"
        shared(w)
        w.target.requests.clear()
        w.target.fault("POST", MOUNT, faults.ignore_mount(), times=None)
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole
        assert w.target.count("POST", f"/more{MOUNT}{w.blob}") == 1
        assert w.target.count("PUT", "/more/blobs/uploads/") == w.target.count("POST", f"/more{MOUNT}")


async def test_mount_from_where_the_blob_is_no_more_is_an_upload() -> None:
    async with wired(target=FakeRegistry(store=WatchedStore())) as w:
        assert (await w.sync_one()).outcome == "ok"
        w.source.store.delete_tag("app", "v1")
        w.target.store.delete_tag("app", "v1")
        w.target.store.delete_manifest("app", w.app.digest)
        w.target.store.delete_blob("app", w.blob)
        shared(w)
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole


async def test_blob_that_garbage_collection_takes_before_its_manifest_is_sent_again() -> None:
    async with wired(target=FakeRegistry(store=WatchedStore())) as w:
        w.target.fault("PUT", MANIFEST, faults.lose_blob("app", w.blob))
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole
        assert w.source.blob_gets(w.blob) == 2


async def test_blob_that_garbage_collection_takes_each_time_is_a_failure() -> None:
    async with wired(target=FakeRegistry(store=WatchedStore())) as w:
        w.target.fault("PUT", MANIFEST, faults.lose_blob("app", w.blob), times=None)
        assert only_app_failed(w, await w.sync_one(), "target").startswith("missing_reference: ")
        await w.must_heal()


REDIRECTS = {"circle": "", "nowhere": "http://127.0.0.1:1/", "no URL": "http://"}


@pytest.mark.parametrize("location", REDIRECTS.values(), ids=REDIRECTS)
@pytest.mark.parametrize(("method", "target"), WRITES.values(), ids=WRITES)
async def test_write_is_never_redirected(method: str, target: str, location: str) -> None:
    async with wired() as w:
        w.target.fault(method, target, faults.redirect(location), times=None)
        assert "307" in only_app_failed(w, await w.sync_one(), "target")
        await w.must_heal()


def full(*_: object) -> None:
    """What a full disk makes of any write."""
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_full_disk_under_the_spool_makes_a_run_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", full)
    async with wired(others=["second"]) as w:
        results = await w.sync(spool=tmp_path)
        for name, result in results.items():
            assert result.outcome == "ok", result.failures
            assert w.tags(w.targets[name]) == w.whole
        [warning] = {text for result in results.values() for text in result.warnings}
        assert "No space left" in warning
        assert "streaming instead" in warning


async def test_disk_that_fills_up_in_mid_blob_makes_a_run_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = os.pwrite, 0

    def filling(descriptor: int, data: memoryview, at: int) -> int:
        nonlocal written
        written += len(data)
        if written > BLOB_BYTES // 2:
            full()
        return write(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", filling)
    async with wired(others=["second"]) as w:
        for name, result in (await w.sync(spool=tmp_path)).items():
            assert result.outcome == "ok", result.failures
            assert w.tags(w.targets[name]) == w.whole


async def test_dead_destination_costs_the_other_nothing(tmp_path: Path) -> None:
    async with wired(others=["second"]) as w:
        w.target.fault(".*", "", faults.reset_unanswered(), times=None)
        results = await w.sync(spool=tmp_path)
        assert results["target"].outcome == "failed"
        assert {failure.site for failure in results["target"].failures} == {"target"}
        assert results["second"].outcome == "ok"
        assert w.tags(w.targets["second"]) == w.whole
        await w.must_heal()
