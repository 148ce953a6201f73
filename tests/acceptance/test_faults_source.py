"""What can go wrong at a source, end to end: right in the end, or an error that says so, and never a wrong tag."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.engine.content import parted, source
from replicator.engine.content.parted import PartSizes
from replicator.engine.result import DestinationResult
from replicator.model.digest import digest_of
from tests.acceptance.wired import BLOB_BYTES, CHUNK_BYTES, Wired, only_app_failed, wired
from tests.fakes import faults
from tests.fakes.registry import Action

BLOB = "/app/blobs/"
MANIFEST = "/app/manifests/sha256"
POSITIONS = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, BLOB_BYTES // 2, BLOB_BYTES - 1]
Cut = Callable[[int], Action]
OTHER = digest_of(b"something else")


@pytest.mark.parametrize("at", POSITIONS)
@pytest.mark.parametrize("cut", [faults.reset, faults.truncate])
@pytest.mark.usefixtures("moved")
async def test_blob_that_breaks_off_goes_on_where_it_broke(cut: Cut, at: int) -> None:
    async with wired() as w:
        w.source.fault("GET", f"{BLOB}{w.blob}", cut(at))
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole
        readings = w.source.find("GET", f"{BLOB}{w.blob}")
        assert len(readings) == 2
        # a reset may overtake bytes that were sent, an orderly end may not
        again = readings[1].headers.get("Range")
        expected = re.compile(rf"bytes={at}-\d+" if at else "")
    assert cut is faults.reset or expected.fullmatch(again or "")


@pytest.mark.parametrize("cut", [faults.reset, faults.truncate])
async def test_blob_of_which_no_byte_ever_comes_is_a_failure_of_its_image_alone(cut: Cut) -> None:
    async with wired() as w:
        w.source.fault("GET", f"{BLOB}{w.blob}", cut(0), times=None)
        assert only_app_failed(w, await w.sync_one(), "source").startswith("unavailable: ")
        await w.must_heal()


@pytest.mark.parametrize("at", [70_000, CHUNK_BYTES, BLOB_BYTES - 1])
@pytest.mark.usefixtures("moved")
async def test_wire_that_breaks_after_so_many_bytes_each_time_gets_a_blob_through(at: int) -> None:
    async with wired() as w:
        w.source.fault("GET", f"{BLOB}{w.blob}", faults.truncate(at), times=None)
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole
        assert w.source.count("GET", f"{BLOB}{w.blob}") == -(-BLOB_BYTES // at)
        assert result.totals.bytes.read == result.totals.bytes.written


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("cut", [faults.reset, faults.truncate])
async def test_manifest_that_breaks_off_is_read_again(cut: Cut, part: float) -> None:
    async with wired() as w:
        w.source.fault("GET", MANIFEST, cut(int(len(w.app.manifest.body) * part)))
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole
        assert w.source.count("GET", MANIFEST) == 2


@pytest.mark.parametrize("cut", [faults.reset, faults.truncate])
async def test_manifest_that_never_comes_whole_is_a_failure_of_its_image_alone(cut: Cut) -> None:
    async with wired() as w:
        w.source.fault("GET", MANIFEST, cut(len(w.app.manifest.body) - 1), times=None)
        assert only_app_failed(w, await w.sync_one(), "source").startswith("unavailable: ")
        await w.must_heal()


@pytest.mark.parametrize("action", [faults.corrupt(), faults.corrupt(BLOB_BYTES - 1)], ids=["first", "last"])
@pytest.mark.usefixtures("moved")
async def test_blob_with_a_wrong_byte_is_read_once_more(action: Action) -> None:
    async with wired() as w:
        w.source.fault("GET", f"{BLOB}{w.blob}", action)
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole


LIES = {
    "wrong first byte": faults.corrupt(),
    "wrong byte at a chunk's end": faults.corrupt(CHUNK_BYTES - 1),
    "wrong last byte": faults.corrupt(BLOB_BYTES - 1),
    "empty": faults.shorten(0),
    "a byte short": faults.shorten(BLOB_BYTES - 1),
    "a byte too many": faults.lengthen(),
    "a chunk too many": faults.lengthen(CHUNK_BYTES),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
@pytest.mark.usefixtures("moved")
async def test_blob_that_is_not_its_digest_never_gets_there(lie: Action) -> None:
    async with wired() as w:
        w.source.fault("GET", f"{BLOB}{w.blob}", lie, times=None)
        assert only_app_failed(w, await w.sync_one(), "source").startswith("corrupt: ")
        assert w.blob not in w.target.store.blobs
        await w.must_heal()


MANIFEST_LIES = {
    "wrong byte": faults.corrupt(20),
    "empty": faults.shorten(0),
    "short": faults.shorten(100),
    "long": faults.lengthen(),
}


@pytest.mark.parametrize("lie", MANIFEST_LIES.values(), ids=MANIFEST_LIES)
async def test_manifest_that_is_not_its_digest_is_a_failure_of_its_image_alone(lie: Action) -> None:
    async with wired() as w:
        w.source.fault("GET", MANIFEST, lie, times=None)
        assert only_app_failed(w, await w.sync_one(), "source").startswith("corrupt: ")
        await w.must_heal()


@pytest.mark.parametrize(
    "value", [OTHER, "sha256:short", "", None], ids=["other", "no digest", "empty", "none"]
)
async def test_digest_header_of_content_asked_for_by_digest_is_not_believed(value: str | None) -> None:
    async with wired() as w:
        for target in (MANIFEST, BLOB):
            w.source.fault("GET", target, faults.header("Docker-Content-Digest", value), times=None)
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole


async def test_tag_said_to_have_a_digest_that_is_nowhere_is_a_failure_of_that_tag_alone() -> None:
    async with wired() as w:
        lie = faults.header("Docker-Content-Digest", OTHER)
        w.source.fault("HEAD|GET", "/app/manifests/v1", lie, times=None)
        assert OTHER in only_app_failed(w, await w.sync_one(), "source")
        await w.must_heal()


@pytest.mark.parametrize("value", ["sha256:short", "", None], ids=["no digest", "empty", "none"])
async def test_tag_without_a_usable_digest_is_read_and_hashed(value: str | None) -> None:
    async with wired() as w:
        lie = faults.header("Docker-Content-Digest", value)
        w.source.fault("HEAD|GET", "/app/manifests/v1", lie, times=None)
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole


@pytest.mark.parametrize("value", ["0", "1", "99999999"])
async def test_length_that_a_tag_is_said_to_have_is_not_believed(value: str) -> None:
    async with wired() as w:
        w.source.fault("HEAD", "/app/manifests/v1", faults.header("Content-Length", value), times=None)
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole


@pytest.mark.parametrize("target", [BLOB, MANIFEST])
async def test_redirects_in_a_circle_are_left(target: str) -> None:
    async with wired() as w:
        w.source.fault("GET", target, faults.redirect(""), times=None)
        cause = only_app_failed(w, await w.sync_one(), "source")
        assert cause.startswith("rejected: redirects lead in a circle")
        await w.must_heal()


@pytest.mark.parametrize("target", [BLOB, MANIFEST])
async def test_redirects_without_end_are_left(target: str) -> None:
    async with wired() as w:
        for hop in range(20):
            w.source.fault("GET", target if hop == 0 else f"hop={hop}$", faults.redirect(f"?hop={hop + 1}"))
        assert "more than 5 redirects" in only_app_failed(w, await w.sync_one(), "source")
        await w.must_heal()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_to_storage_is_followed_with_its_signature_as_it_is(status: int) -> None:
    async with wired() as w:
        w.source.fault("GET", BLOB, faults.redirect_to_storage(status), times=None)
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole
        assert w.source.count("GET", BLOB, host="storage", status=200) == len(w.app.blobs)


async def test_signed_url_that_broke_off_is_asked_for_anew() -> None:
    async with wired() as w:
        w.source.fault("GET", BLOB, faults.redirect_to_storage(), times=None)
        w.source.fault("GET", str(w.blob), faults.truncate(CHUNK_BYTES), host="storage")
        w.source.fault("GET", str(w.blob), faults.answer(403, "expired"), host="storage")
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole
        assert w.source.count("GET", str(w.blob), host="registry") == 3


@pytest.mark.parametrize("location", ["http://127.0.0.1:1/blob", "ftp://example.invalid/", "http://"])
async def test_redirect_to_where_nothing_is_fails_and_says_where(location: str) -> None:
    async with wired() as w:
        w.source.fault("GET", BLOB, faults.redirect(location), times=None)
        cause = only_app_failed(w, await w.sync_one(), "source")
        assert "127.0.0.1" in cause or "sent to" in cause or "no URL" in cause
        await w.must_heal()


async def test_blob_that_the_source_has_lost_is_a_failure_of_its_image_alone() -> None:
    async with wired() as w:
        kept = w.source.store.blobs[w.blob]
        w.source.store.delete_blob("app", w.blob)
        cause = only_app_failed(w, await w.sync_one(), "source")
        assert cause.startswith("not_found: 404")
        w.source.store.add_blob("app", w.blob, kept)
        await w.must_heal()


async def test_manifest_that_the_source_has_lost_is_a_failure_of_its_image_alone() -> None:
    async with wired() as w:
        w.source.fault("GET", MANIFEST, faults.refuse(404, "MANIFEST_UNKNOWN"), times=None)
        assert only_app_failed(w, await w.sync_one(), "source").startswith("not_found: ")
        await w.must_heal()


async def _held_at_its_manifest(w: Wired) -> tuple[faults.Hold, asyncio.Task[DestinationResult]]:
    hold = faults.Hold()
    w.source.fault("GET", MANIFEST, hold, times=None)
    run = asyncio.create_task(w.sync_one())
    await hold.reached.wait()
    return hold, run


async def test_tag_moved_during_the_run_is_copied_as_it_was_seen_and_the_next_run_has_the_rest() -> None:
    async with wired() as w:
        before = w.app.digest
        hold, run = await _held_at_its_manifest(w)
        w.app = w.put("app", "v1", w.web)
        hold.release()
        await run
        assert w.tags()["app"] == {"v1": before}
        await w.must_heal()
        assert w.tags()["app"] == {"v1": w.app.digest}


async def test_tag_deleted_during_the_run_is_copied_as_it_was_seen() -> None:
    async with wired() as w:
        hold, run = await _held_at_its_manifest(w)
        w.source.store.delete_tag("app", "v1")
        hold.release()
        await run
        assert w.tags()["app"] == {"v1": w.app.digest}


async def test_image_deleted_during_the_run_is_a_failure_of_that_tag_alone() -> None:
    async with wired() as w:
        hold, run = await _held_at_its_manifest(w)
        w.source.store.delete_manifest("app", w.app.digest)
        hold.release()
        assert only_app_failed(w, await run, "source").startswith("not_found: ")


@pytest.mark.soak
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(["reset", "truncate", "corrupt", "shorten"]),
    at=st.integers(0, BLOB_BYTES - 1),
    times=st.sampled_from([1, 2, 3, None]),
    upload_cut=st.none() | st.integers(0, BLOB_BYTES),
)
def test_any_byte_of_a_blob_may_be_the_last(
    kind: str, at: int, times: int | None, upload_cut: int | None
) -> None:
    async def run() -> None:
        async with wired() as w:
            w.source.fault("GET", f"{BLOB}{w.blob}", getattr(faults, kind)(at), times=times)
            if upload_cut is not None:
                w.target.fault("PUT|PATCH", "/app/blobs/uploads/", faults.reset_upload(upload_cut))
            result = await w.sync_one()
            if result.outcome != "ok":
                assert times != 1 or kind == "shorten" or upload_cut is not None, result.failures
                only_app_failed(w, result, "source")
            await w.must_heal()

    asyncio.run(run())


@pytest.mark.usefixtures("moved")
async def test_large_blob_is_read_in_parts_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "PARTS", PartSizes(least=BLOB_BYTES, first=100_000, part=100_000))
    monkeypatch.setattr(parted, "width", lambda *_: 3)
    async with wired() as w:
        w.source.fault("GET", f"{BLOB}{w.blob}", faults.truncate(50_000))
        [result] = (await w.sync(spool=tmp_path)).values()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole
        assert w.source.count("GET", f"{BLOB}{w.blob}") == BLOB_BYTES // 100_000 + 1
        assert result.totals.bytes.read == result.totals.bytes.written
