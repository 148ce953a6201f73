"""How a blob's bytes go up, by each strategy and at each kind of registry."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from aiohttp import web
from aiohttp.typedefs import Middleware

from replicator.errors import Rejected, SiteError, Unsupported
from replicator.flow.retry import Budget
from replicator.flow.settings import LimitSettings
from replicator.model.descriptor import Descriptor
from replicator.model.digest import digest_of
from replicator.sites.registry import uploads
from tests.fakes import faults, places
from tests.fakes.auth import Bearer
from tests.fakes.clients import CountedSource, registry_site
from tests.fakes.registry import Action, Exchange, FakeRegistry
from tests.fakes.vendors import acr, ecr, ghcr, google, quay

pytestmark = pytest.mark.usefixtures("moved")

DATA = random.Random(1).randbytes(1_500_000)
UPLOADS = "/v2/app/blobs/uploads/"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "ATTEMPTS", Budget(attempts=3, wait_initial=0.0, wait_max=0.0))


async def write(fake: FakeRegistry, data: bytes = DATA, **capabilities: bool | int | str) -> CountedSource:
    source = CountedSource(data)
    async with registry_site(fake.url, capabilities) as site:
        assert await site.repository("app").write_blob(source) == "copied"
    assert_stored(fake, data)
    return source


def assert_stored(fake: FakeRegistry, data: bytes) -> None:
    blob = fake.store.blob("app", digest_of(data))
    assert b"".join(blob.read()) == data
    assert not fake.store.uploads


async def test_one_put_of_exact_length_is_the_default() -> None:
    async with FakeRegistry() as fake:
        await write(fake)
        assert [entry.method for entry in fake.find(target=UPLOADS)] == ["POST", "PUT"]
        put = fake.find("PUT")[0]
        assert put.headers["Content-Length"] == str(len(DATA))
        assert put.headers["Content-Type"] == "application/octet-stream"
        assert "Transfer-Encoding" not in put.headers


async def test_patch_sends_one_piece_without_a_range_and_closes_with_an_empty_put() -> None:
    async with FakeRegistry() as fake:
        await write(fake, upload="patch")
        assert [entry.method for entry in fake.find(target=UPLOADS)] == ["POST", "PATCH", "PUT"]
        patch, put = fake.find("PATCH")[0], fake.find("PUT")[0]
        assert patch.headers["Content-Length"] == str(len(DATA))
        assert "Content-Range" not in patch.headers
        assert put.headers["Content-Length"] == "0"


async def test_chunks_have_plain_ranges_and_lengths() -> None:
    async with FakeRegistry(acr.habits()) as fake:
        await write(fake, upload="chunks", chunk_bytes=600_000)
        patches = fake.find("PATCH")
        ranges = [entry.headers["Content-Range"] for entry in patches]
        assert ranges == ["0-599999", "600000-1199999", "1200000-1499999"]
        assert [entry.headers["Content-Length"] for entry in patches] == ["600000", "600000", "300000"]


async def test_all_chunks_are_cut_from_one_reading_of_the_source() -> None:
    """Each new reading costs a request, and whatever the source had sent of the rest when it is broken off."""
    digest = digest_of(DATA)
    async with FakeRegistry() as origin, FakeRegistry() as fake:
        await write(origin)
        async with (
            registry_site(origin.url) as hub,
            registry_site(fake.url, {"upload": "chunks", "chunk_bytes": 70_000}) as site,
        ):
            source = hub.repository("app").blob(Descriptor("application/octet-stream", digest, len(DATA)))
            assert await site.repository("app").write_blob(source) == "copied"
        assert_stored(fake, DATA)
        assert [entry.bytes_in for entry in fake.find("PATCH")] == [70_000] * 21 + [30_000]
        reading = origin.find("GET", target=digest)
        assert [entry.bytes_out for entry in reading] == [len(DATA)]


async def test_uploads_in_chunks_and_whole_ones_do_not_wait_for_each_other() -> None:
    """One slot for reads at the source and one for writes at the destination, and all take them in the same order."""
    blobs = [random.Random(seed).randbytes(300_000) for seed in range(6)]
    async with FakeRegistry() as origin, FakeRegistry() as fake:
        for data in blobs:
            await write(origin, data)
        narrow = LimitSettings(concurrency=1)
        async with (
            registry_site(origin.url, limits=narrow) as hub,
            registry_site(fake.url, {"body_limit": 250_000, "chunk_bytes": 70_000}, limits=narrow) as site,
        ):

            async def copy(data: bytes) -> str:
                descriptor = Descriptor("application/octet-stream", digest_of(data), len(data))
                return await site.repository("app").write_blob(hub.repository("app").blob(descriptor))

            await write(origin, DATA[:200_000])
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                copies = [group.create_task(copy(data)) for data in (*blobs, DATA[:200_000])]
            assert [task.result() for task in copies] == ["copied"] * 7
        assert len(fake.find("PATCH")) == 6 * 5
        assert origin.blob_bytes_out == 6 * 300_000 + 200_000


async def test_an_answer_before_all_of_a_chunk_was_sent_is_made_good() -> None:
    async def believe(exchange: Exchange) -> web.StreamResponse:
        return web.Response(status=202, headers={"Location": exchange.request.path_qs})

    async with FakeRegistry() as fake:
        fake.fault("PATCH", UPLOADS, believe)
        await write(fake, upload="chunks", chunk_bytes=600_000)


async def test_chunks_are_as_long_as_the_registry_demands() -> None:
    async with FakeRegistry(places.min_chunk(700_000)) as fake:
        await write(fake, upload="chunks", chunk_bytes=300_000)
        assert [entry.bytes_in for entry in fake.find("PATCH")] == [700_000, 700_000, 100_000]


async def test_an_empty_blob_needs_no_body() -> None:
    async with FakeRegistry() as fake:
        for upload in ("put", "patch", "chunks"):
            await write(fake, b"", upload=upload)
        assert fake.uploaded_bytes == 0


async def test_a_blob_of_unknown_size_is_streamed() -> None:
    async with FakeRegistry() as fake:
        source = CountedSource(DATA)
        source.descriptor = Descriptor("application/octet-stream", digest_of(DATA), None)
        async with registry_site(fake.url) as site:
            await site.repository("app").write_blob(source)
        assert_stored(fake, DATA)
        assert fake.find("PATCH")[0].headers["Transfer-Encoding"] == "chunked"


@pytest.mark.parametrize("upload", ["put", "patch", "chunks"])
@pytest.mark.parametrize(
    "quirks",
    [
        [places.stateful_locations],
        [places.absolute_locations, places.stateful_locations],
        [places.no_location],
        [quay.habits],
        [ghcr.habits],
        [lambda: ecr.habits("app")],
    ],
)
async def test_each_strategy_works_with_each_habit(
    upload: str, quirks: list[Callable[[], Middleware]]
) -> None:
    async with FakeRegistry(*(quirk() for quirk in quirks)) as fake:
        source = await write(fake, upload=upload, chunk_bytes=1_000_000)
        assert fake.uploaded_bytes == len(DATA)
        assert source.open_now == 0


@pytest.mark.parametrize("upload", ["put", "patch", "chunks"])
async def test_credentials_do_not_follow_a_location_to_another_host(upload: str) -> None:
    async with FakeRegistry(places.uploads_in_storage(), auth=Bearer({"u": "p"})) as fake:
        async with registry_site(
            fake.url, {"upload": upload, "chunk_bytes": 1_000_000}, user="u", password="p"
        ) as site:
            await site.repository("app").write_blob(CountedSource(DATA))
        assert_stored(fake, DATA)
        elsewhere = fake.find(host="storage")
        assert elsewhere
        assert not any("Authorization" in entry.headers for entry in elsewhere)


async def test_a_registry_that_takes_one_piece_only_gets_one_piece() -> None:
    async with FakeRegistry(google.habits()) as fake:
        await write(fake, chunk_bytes=0, resume=False)
        assert fake.count("PATCH") == 0


async def test_a_small_blob_goes_in_one_put_where_only_large_ones_must_be_cut() -> None:
    async with FakeRegistry(acr.habits(largest_put=1_000_000)) as fake:
        async with registry_site(fake.url, {"body_limit": 1_000_000, "chunk_bytes": 1_000_000}) as site:
            await site.repository("app").write_blob(CountedSource(b"small"))
            assert fake.count("PATCH") == 0
            await site.repository("app").write_blob(CountedSource(DATA))
        assert fake.count("PATCH") == 2
        assert fake.count(status=413) == 0


@pytest.mark.parametrize(
    "refusal",
    [
        faults.answer(404),
        faults.answer(405),
        faults.answer(411),
        faults.answer(400),
        faults.answer(501),
        faults.refuse(400, "UNSUPPORTED"),
    ],
)
async def test_a_refused_put_turns_into_a_patch_for_good(refusal: Action) -> None:
    async with FakeRegistry() as fake:
        fake.fault("PUT", UPLOADS, refusal)
        async with registry_site(fake.url) as site:
            await site.repository("app").write_blob(CountedSource(DATA))
            await site.repository("app").write_blob(CountedSource(b"another"))
        assert_stored(fake, DATA)
        assert_stored(fake, b"another")
        assert fake.count("PATCH") == 2


async def test_a_refused_patch_turns_into_chunks_for_good() -> None:
    async def refuses_whole(exchange: Exchange) -> web.StreamResponse:
        if "Content-Range" in exchange.request.headers:
            return await exchange.proceed()
        return await faults.answer(400)(exchange)

    async with FakeRegistry() as fake:
        fake.fault("PATCH", UPLOADS, refuses_whole, times=None)
        async with registry_site(fake.url, {"upload": "patch", "chunk_bytes": 1_000_000}) as site:
            await site.repository("app").write_blob(CountedSource(DATA))
            await site.repository("app").write_blob(CountedSource(b"another"))
        assert_stored(fake, DATA)
        assert fake.count("PATCH", status=400) == 1


def body_limit(most: int) -> Action:
    async def act(exchange: Exchange) -> web.StreamResponse:
        if (exchange.request.content_length or 0) > most:
            return await faults.answer(413, "<html>too large</html>", html=True)(exchange)
        return await exchange.proceed()

    return act


async def test_too_large_a_body_is_cut_into_chunks_that_fit() -> None:
    """Nginx before a registry, with a client_max_body_size that nobody told us."""
    async with FakeRegistry() as fake:
        fake.fault("PUT|PATCH", UPLOADS, body_limit(400_000), times=None)
        async with registry_site(fake.url, {"chunk_bytes": 1_200_000}) as site:
            await site.repository("app").write_blob(CountedSource(DATA))
            refused = fake.count(status=413)
            await site.repository("app").write_blob(CountedSource(DATA + b"."))
            await site.repository("app").write_blob(CountedSource(b"small"))
        assert_stored(fake, DATA)
        assert_stored(fake, b"small")
        assert fake.count(status=413) == refused <= 3
        assert max(entry.bytes_in for entry in fake.find("PATCH", status=202)) <= 400_000


async def test_a_late_refusal_does_not_undo_what_was_learnt_meanwhile() -> None:
    async def refuse_whole(exchange: Exchange) -> web.StreamResponse:
        if "Content-Range" in exchange.request.headers:
            return await exchange.proceed()
        return web.Response(status=400)

    async def refuse_late(exchange: Exchange) -> web.StreamResponse:
        reached.set()
        await go_on.wait()
        return web.Response(status=405)

    async def refuse_bodies(exchange: Exchange) -> web.StreamResponse:
        if exchange.request.content_length == 0:
            return await exchange.proceed()
        return web.Response(status=405)

    reached, go_on = asyncio.Event(), asyncio.Event()
    async with FakeRegistry() as fake:
        fake.fault("PUT", UPLOADS, refuse_late)
        fake.fault("PUT", UPLOADS, refuse_bodies, times=None)
        fake.fault("PATCH", UPLOADS, refuse_whole, times=None)
        async with registry_site(fake.url) as site:
            first = asyncio.create_task(site.repository("app").write_blob(CountedSource(DATA)))
            await reached.wait()
            await site.repository("app").write_blob(CountedSource(b"other"))
            assert fake.count("PATCH", status=400) == 1
            go_on.set()
            await first
        assert fake.count("PATCH", status=400) == 1


@pytest.mark.parametrize("chunk_bytes", [0, 1_000_000])
async def test_when_everything_is_refused_the_refusal_is_raised_and_nothing_left(chunk_bytes: int) -> None:
    async with FakeRegistry() as fake:
        fake.fault("PUT|PATCH", UPLOADS, faults.refuse(405, "UNSUPPORTED"), times=None)
        async with registry_site(fake.url, {"chunk_bytes": chunk_bytes}) as site:
            with pytest.raises(Unsupported) as raised:
                await site.repository("app").write_blob(CountedSource(DATA))
        assert (raised.value.site, raised.value.repository) == ("there", "app")
        assert not fake.store.uploads


async def test_a_body_too_large_for_any_chunk_is_an_error() -> None:
    async with FakeRegistry() as fake:
        fake.fault("PUT|PATCH", UPLOADS, faults.answer(413), times=None)
        async with registry_site(fake.url) as site:
            with pytest.raises(Rejected) as raised:
                await site.repository("app").write_blob(CountedSource(DATA))
        assert raised.value.status == 413
        assert not fake.store.uploads


async def test_content_that_the_registry_finds_wrong_is_not_sent_again() -> None:
    async with FakeRegistry() as fake:
        source = CountedSource(DATA, digest=digest_of(b"other"))
        async with registry_site(fake.url) as site:
            with pytest.raises(SiteError) as raised:
                await site.repository("app").write_blob(source)
        assert isinstance(raised.value, Rejected)
        assert raised.value.codes == ("DIGEST_INVALID",)
        assert source.opened == [0]
        assert not fake.store.uploads
        assert not fake.store.repositories
