"""Uploads that break: resumed where the registry says, else begun again, else reported; nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from replicator.errors import Corrupt, Denied, SiteError, Throttled, Unavailable
from replicator.events import Event, Events, RetryPlanned
from replicator.flow.clock import SystemClock
from replicator.flow.retry import Budget
from replicator.model.digest import digest_of
from replicator.sites.registry import context, uploads
from replicator.sites.registry.http import Reply, Transport
from replicator.sites.registry.site import RegistrySite
from replicator.sites.timeouts import Timeouts
from tests.fakes import faults, places
from tests.fakes.auth import Bearer
from tests.fakes.clients import CountedSource, registry_site
from tests.fakes.registry import Exchange, FakeRegistry
from tests.fakes.vendors import quay
from tests.fakes.vendors.nexus import Nexus

pytestmark = pytest.mark.usefixtures("moved")

DATA = random.Random(2).randbytes(1_500_000)
UPLOADS = "/v2/app/blobs/uploads/"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "ATTEMPTS", Budget(attempts=3, wait_initial=0.0, wait_max=0.0))


async def write(
    fake: FakeRegistry, source: CountedSource | None = None, **capabilities: bool | int | str
) -> CountedSource:
    source = source or CountedSource(DATA)
    async with registry_site(fake.url, capabilities) as site:
        assert await site.repository("app").write_blob(source) == "copied"
    assert b"".join(fake.store.blob("app", digest_of(DATA)).read()) == DATA
    assert not fake.store.uploads
    return source


async def fails(
    fake: FakeRegistry,
    error: type[SiteError],
    source: CountedSource | None = None,
    **capabilities: bool | int | str,
) -> SiteError:
    source = source or CountedSource(DATA)
    async with registry_site(fake.url, capabilities) as site:
        with pytest.raises(error) as raised:
            await site.repository("app").write_blob(source)
    assert not fake.store.uploads
    assert not fake.store.repositories
    assert source.open_now == 0
    return raised.value


# --- the registry's side breaks ---


@pytest.mark.parametrize("upload", ["put", "patch", "chunks"])
async def test_a_broken_upload_goes_on_where_the_registry_says(upload: str) -> None:
    async with FakeRegistry(places.stateful_locations()) as fake:
        fake.fault("PUT|PATCH", UPLOADS, faults.reset_upload(700_000))
        source = await write(fake, upload=upload, chunk_bytes=1_000_000)
        assert source.opened == [0, 700_000]
        assert fake.uploaded_bytes == len(DATA)
        assert fake.count("POST") == 1


async def test_a_status_that_counts_bytes_is_read_as_such() -> None:
    async with FakeRegistry(quay.habits()) as fake:
        fake.fault("PATCH", UPLOADS, faults.reset_upload(700_000))
        source = await write(fake, upload="patch", status_range="exclusive")
        assert source.opened == [0, 700_000]
        assert fake.uploaded_bytes == len(DATA)


async def test_a_wrongly_resumed_upload_begins_again() -> None:
    """Quay's off-by-one status, at a registry that nobody recognised as Quay."""
    async with FakeRegistry(quay.habits()) as fake:
        fake.fault("PATCH", UPLOADS, faults.reset_upload(700_000))
        source = await write(fake, upload="patch")
        assert source.opened == [0, 700_001, 0]


async def test_a_status_of_one_byte_or_none_begins_again() -> None:
    async with FakeRegistry() as fake:
        fake.fault("PUT", UPLOADS, faults.reset_upload(1))
        source = await write(fake)
        assert source.opened == [0, 0]
        assert fake.count("POST") == 2


async def test_a_status_of_more_than_there_is_begins_again() -> None:
    async with FakeRegistry() as fake:
        fake.fault("PUT", UPLOADS, faults.reset_upload(700_000))
        fake.fault("GET", UPLOADS, faults.header("Range", "0-1500000"))
        source = await write(fake)
        assert source.opened == [0, 0]


async def test_a_registry_whose_status_is_not_believed_is_not_asked() -> None:
    async with FakeRegistry() as fake:
        fake.fault("PUT", UPLOADS, faults.reset_upload(700_000))
        source = await write(fake, resume=False)
        assert source.opened == [0, 0]
        assert fake.count("GET", UPLOADS) == 0


@pytest.mark.parametrize("upload", ["put", "patch", "chunks"])
async def test_a_lost_session_begins_again(upload: str) -> None:
    async with FakeRegistry() as fake:
        fake.fault("PUT|PATCH", UPLOADS, faults.lose_session())
        source = await write(fake, upload=upload, chunk_bytes=1_000_000)
        assert source.opened == [0, 0]
        assert fake.count("POST") == 2


async def test_a_session_lost_before_the_last_chunk_begins_again() -> None:
    async with FakeRegistry() as fake:
        fake.fault("PATCH", UPLOADS, faults.lose_session(), after=1)
        source = await write(fake, upload="chunks", chunk_bytes=1_000_000)
        assert source.opened == [0, 0]


async def test_a_chunk_out_of_step_is_asked_about() -> None:
    async with FakeRegistry() as fake:
        fake.fault("PATCH", UPLOADS, faults.refuse(416, "RANGE_INVALID"), after=1)
        source = await write(fake, upload="chunks", chunk_bytes=1_000_000)
        assert source.opened[-1] == 1_000_000
        assert fake.count("GET", UPLOADS, status=204) == 1
        assert fake.uploaded_bytes == len(DATA)


async def test_attempts_are_bounded_and_told() -> None:
    seen: list[Event] = []
    async with FakeRegistry() as fake:
        fake.fault("PUT|PATCH", UPLOADS, faults.reset_upload(1), times=None)
        source = CountedSource(DATA)
        async with registry_site(fake.url, seen=seen) as site:
            with pytest.raises(Unavailable):
                await site.repository("app").write_blob(source)
        assert len(source.opened) == 6
        assert not fake.store.uploads
    retries = [event for event in seen if isinstance(event, RetryPlanned)]
    assert [event.operation for event in retries] == ["upload blob"] * 2


async def test_being_throttled_is_tried_again_and_then_told() -> None:
    async with FakeRegistry() as fake:
        fake.fault("PUT", UPLOADS, faults.answer(429))
        await write(fake)
    async with FakeRegistry() as fake:
        fake.fault("PUT", UPLOADS, faults.answer(429), times=None)
        await fails(fake, Throttled)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_session_that_kept_a_part_of_what_was_refused_begins_again(status: int) -> None:
    async def refuse(exchange: Exchange) -> web.StreamResponse:
        [upload] = exchange.fake.store.uploads.values()
        upload.write(DATA[:1000])
        return web.Response(status=status)

    async with FakeRegistry() as fake:
        fake.fault("PUT", UPLOADS, refuse)
        source = await write(fake)
        assert (source.opened, fake.count("POST")) == ([0, 0, 0], 2), "again, then into a new session"


async def test_being_denied_is_final() -> None:
    async with FakeRegistry() as fake:
        fake.fault("PUT", UPLOADS, faults.refuse(403, "DENIED"))
        await fails(fake, Denied)
        assert fake.count("POST") == 1


async def test_a_lost_answer_to_the_closing_put_is_no_failure() -> None:
    async with FakeRegistry() as fake:
        fake.fault("PUT", UPLOADS, faults.lose_answer())
        source = await write(fake, upload="patch")
        assert source.opened == [0]


# --- tokens ---


@pytest.mark.parametrize(("upload", "opened"), [("put", [0, 0]), ("patch", [0]), ("chunks", [0])])
async def test_a_token_that_runs_out_before_the_closing_put_is_renewed(
    upload: str, opened: list[int]
) -> None:
    auth = Bearer({"u": "p"})

    async def too_late(exchange: Exchange) -> web.StreamResponse:
        auth.expire()
        return await exchange.proceed()

    async with FakeRegistry(auth=auth) as fake:
        fake.fault("PUT", UPLOADS, too_late)
        source = CountedSource(DATA)
        async with registry_site(
            fake.url, {"upload": upload, "chunk_bytes": 1_000_000}, user="u", password="p"
        ) as site:
            assert await site.repository("app").write_blob(source) == "copied"
        assert b"".join(fake.store.blob("app", digest_of(DATA)).read()) == DATA
        assert source.opened == opened
        assert fake.count("PUT", status=401) == 1
        assert not fake.store.uploads


@pytest.mark.parametrize(("upload", "method"), [("put", "PUT"), ("patch", "PATCH"), ("chunks", "PATCH")])
async def test_an_answer_that_comes_too_late_is_asked_after_and_nothing_is_sent_twice(
    upload: str, method: str
) -> None:
    """A store that copies the blob before it answers takes longer than anybody waits; by then it has it."""
    gone = asyncio.Event()

    async def stay_silent(exchange: Exchange) -> web.StreamResponse:
        answer = await exchange.proceed()
        await gone.wait()
        return answer

    async with FakeRegistry() as fake:
        fake.fault(method, UPLOADS, stay_silent)
        source = CountedSource(DATA)
        capabilities: dict[str, bool | int | str] = {"upload": upload, "chunk_bytes": 1_000_000}
        async with registry_site(fake.url, capabilities, timeouts=Timeouts(commit=1.0)) as site:
            assert await site.repository("app").write_blob(source) == "copied"
        gone.set()
        assert fake.uploaded_bytes == len(DATA)
        assert fake.count("GET", UPLOADS) == 1
        assert b"".join(fake.store.blob("app", digest_of(DATA)).read()) == DATA


# --- odd answers ---


@pytest.mark.parametrize("status", [200, 202])
async def test_an_odd_success_is_looked_after(status: int) -> None:
    async with FakeRegistry() as fake:
        fake.fault("PUT", UPLOADS, faults.answer_late(status))
        source = await write(fake)
        assert source.opened == [0]
        assert fake.count("HEAD") == 1


async def test_an_odd_success_that_stored_nothing_is_none() -> None:
    async with FakeRegistry() as fake:
        fake.fault("PUT", UPLOADS, faults.answer(200), times=None)
        error = await fails(fake, Unavailable)
        assert "200" in error.cause


@pytest.mark.parametrize("has_it", [False, True])
async def test_a_success_before_the_end_is_looked_after(
    monkeypatch: pytest.MonkeyPatch, *, has_it: bool
) -> None:
    upload = Transport.upload

    async def early(*arguments: Any, **options: Any) -> Reply:
        return replace(await upload(*arguments, **options), is_early=True)

    monkeypatch.setattr(Transport, "upload", early)
    async with FakeRegistry() as fake:
        if has_it:
            await write(fake)
            assert fake.count("HEAD") == 1
            return
        fake.fault("PUT", UPLOADS, faults.answer(201), times=None)
        assert "before it had all of it" in (await fails(fake, Unavailable)).cause


async def test_a_blob_stored_under_another_digest_is_an_error() -> None:
    async with FakeRegistry() as fake:
        fake.fault("PUT", UPLOADS, faults.answer(201, headers={"Docker-Content-Digest": digest_of(b"?")}))
        await fails(fake, Corrupt)


async def test_a_registry_that_has_the_blob_already_gets_no_body() -> None:
    async with FakeRegistry() as fake:
        fake.store.put_blob("app", DATA)
        fake.fault("POST", UPLOADS, faults.answer(201))
        source = await write(fake)
        assert source.opened == []


async def test_a_registry_that_only_claims_to_have_the_blob_is_not_believed() -> None:
    async with FakeRegistry() as fake:
        fake.fault("POST", UPLOADS, faults.answer(201))
        await fails(fake, Corrupt)


async def test_an_upload_without_a_place_is_an_error() -> None:
    async with FakeRegistry() as fake:
        fake.fault("POST", UPLOADS, faults.answer(202))
        await fails(fake, Corrupt)


async def test_a_location_that_is_not_to_be_followed_is_an_error() -> None:
    async with FakeRegistry() as fake:
        fake.fault("POST", UPLOADS, faults.answer(202, headers={"Location": "ftp://elsewhere/upload"}))
        error = await fails(fake, Corrupt)
        assert "not followed" in error.cause


# --- the source breaks ---


@pytest.mark.parametrize("upload", ["put", "patch", "chunks"])
async def test_the_sources_failure_is_raised_as_it_is_and_not_tried_again(upload: str) -> None:
    async with FakeRegistry() as fake:
        broken = Unavailable("elsewhere", "read blob", "gone away")
        source = CountedSource(DATA, breaks_at=1_200_000, breaks=broken)
        error = await fails(fake, Unavailable, source, upload=upload, chunk_bytes=1_000_000)
        assert error is broken
        assert source.opened == [0]
        assert fake.count("DELETE", UPLOADS, status=204) == 1


@pytest.mark.parametrize("upload", ["put", "patch", "chunks"])
@pytest.mark.parametrize("wrong_by", [-1, 1])
async def test_a_source_of_another_size_is_never_stored(upload: str, wrong_by: int) -> None:
    async with FakeRegistry() as fake:
        source = CountedSource(DATA, size=len(DATA) + wrong_by)
        error = await fails(fake, Corrupt, source, upload=upload, chunk_bytes=1_000_000)
        assert "bytes" in error.cause


# --- being cancelled ---


@pytest.mark.parametrize(
    ("upload", "held"),
    [
        ("put", "POST"),
        ("put", "PUT"),
        ("patch", "POST"),
        ("patch", "PATCH"),
        ("patch", "PUT"),
        ("chunks", "PATCH"),
        ("chunks", "PUT"),
    ],
)
async def test_a_cancelled_upload_leaves_no_session(upload: str, held: str) -> None:
    async with FakeRegistry() as fake:
        hold = faults.Hold()
        fake.fault(held, UPLOADS, hold, times=None)
        async with registry_site(fake.url, {"upload": upload, "chunk_bytes": 1_000_000}) as site:
            source = CountedSource(DATA)
            writing = asyncio.create_task(site.repository("app").write_blob(source))
            await hold.reached.wait()
            writing.cancel()
            await asyncio.sleep(0)
            hold.release()
            with pytest.raises(asyncio.CancelledError):
                await writing
            assert not fake.store.uploads
            assert source.open_now == 0
            assert fake.count("POST") == 1


async def test_cancelled_twice_the_session_still_goes() -> None:
    async with FakeRegistry() as fake:
        hold, cleanup = faults.Hold(), faults.Hold()
        fake.fault("PUT", UPLOADS, hold)
        fake.fault("DELETE", UPLOADS, cleanup)
        async with registry_site(fake.url) as site:
            writing = asyncio.create_task(site.repository("app").write_blob(CountedSource(DATA)))
            await hold.reached.wait()
            writing.cancel()
            await cleanup.reached.wait()
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            assert fake.store.uploads
            closing = asyncio.create_task(site.aclose())
            for _ in range(20):
                await asyncio.sleep(0)
            assert not closing.done()
            cleanup.release()
            await closing
            assert not fake.store.uploads


async def test_cancelled_at_any_moment_it_leaves_no_session() -> None:
    async with (
        FakeRegistry() as fake,
        registry_site(fake.url, {"upload": "chunks", "chunk_bytes": 40_000}) as site,
    ):
        turns, ended = 0, False
        while not ended:
            source = CountedSource(DATA[:100_000])
            writing = asyncio.create_task(site.repository("app").write_blob(source))
            for _ in range(turns):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait([writing])
            ended = not writing.cancelled()
            assert not fake.store.uploads, f"cancelled after {turns} turns of the loop"
            assert source.open_now == 0
            turns += 1
        assert turns > 20


async def test_a_registry_that_does_not_answer_delays_a_cancellation_by_seconds_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(context, "CLEANUP_SECONDS", 0.05)
    async with FakeRegistry() as fake:
        fake.fault("DELETE", UPLOADS, faults.hang())
        hold, start = faults.Hold(), faults.Hold()
        fake.fault("PUT", UPLOADS, hold)
        fake.fault("POST", UPLOADS, start, after=1)
        async with registry_site(fake.url) as site:
            writing = asyncio.create_task(site.repository("app").write_blob(CountedSource(DATA)))
            await hold.reached.wait()
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(writing, 5)
            starting = asyncio.create_task(site.repository("app").write_blob(CountedSource(DATA)))
            await start.reached.wait()
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(starting, 5)


@pytest.mark.parametrize("updates", [True, False], ids=["redeploys", "no redeploys"])
async def test_nexus_refuses_a_blob_that_another_image_has_brought_meanwhile(*, updates: bool) -> None:
    async with Nexus() as fake:
        fake.updates = updates
        site = RegistrySite(fake.settings("nexus"), events=Events(), clock=SystemClock())
        for name in ("team/one", "team/two"):
            assert await site.repository(name).write_blob(CountedSource(DATA)) == "copied"
            assert await site.repository(name).has_blob(digest_of(DATA))
        assert fake.uploaded_bytes == 2 * len(DATA)
        assert site._registry.knowledge.record.upload == "put"
        await site.aclose()
        assert not fake.store.uploads


async def test_another_refusal_of_nexus_is_a_refusal() -> None:
    async with Nexus() as fake:
        fake.fault("PUT|PATCH", "/blobs/uploads/", faults.refuse(400, "BLOB_UPLOAD_INVALID"), times=None)
        site = RegistrySite(fake.settings("nexus"), events=Events(), clock=SystemClock())
        with pytest.raises(Unavailable, match="BLOB_UPLOAD_INVALID"):
            await site.repository("team/one").write_blob(CountedSource(DATA))
        await site.aclose()
