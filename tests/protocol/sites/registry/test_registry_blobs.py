"""Whether blobs are there, and reading them from any offset."""

from __future__ import annotations

import base64
import random
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from replicator.errors import AuthFailed, Corrupt, NotFound, Rejected, SiteError, Unavailable
from replicator.flow.patience import STALLED_READINGS
from replicator.model.descriptor import Descriptor
from replicator.model.digest import digest_of
from replicator.ports import BlobSource, ReadsWhole
from replicator.sites.registry.repository import RegistryRepository
from tests.fakes import faults, habits, places
from tests.fakes.auth import Bearer
from tests.fakes.clients import registry_site
from tests.fakes.registry import Action, Exchange, FakeRegistry

pytestmark = pytest.mark.usefixtures("moved")

DATA = random.Random(3).randbytes(700_000)
DIGEST = digest_of(DATA)
BLOB = Descriptor("application/octet-stream", DIGEST, len(DATA))
BLOBS = "/v2/app/blobs/sha256"


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        fake.store.put_blob("app", DATA)
        yield fake


@pytest.fixture
async def repository(fake: FakeRegistry) -> AsyncIterator[RegistryRepository]:
    async with registry_site(fake.url) as site:
        yield site.repository("app")


async def read(source: BlobSource, offset: int = 0) -> bytes:
    got: list[bytes] = []
    await read_into(got, source, offset)
    return b"".join(got)


async def read_into(got: list[bytes], source: BlobSource, offset: int = 0) -> None:
    async with source.open(offset) as chunks:
        async for chunk in chunks:
            got.append(bytes(chunk))  # noqa: PERF401 - what came before an error counts


# --- is it there? ---


async def test_a_head_tells_whether_a_blob_is_there(
    fake: FakeRegistry, repository: RegistryRepository
) -> None:
    assert await repository.has_blob(DIGEST)
    assert not await repository.has_blob(digest_of(b"other"))
    assert [entry.method for entry in fake.find(target="/blobs/")] == ["HEAD", "HEAD"]


async def test_a_signed_redirect_says_yes_and_is_not_followed() -> None:
    async with FakeRegistry(places.blobs_in_storage()) as fake, registry_site(fake.url) as site:
        fake.store.put_blob("app", DATA)
        assert await site.repository("app").has_blob(DIGEST)
        assert not await site.repository("app").has_blob(digest_of(b"other"))
        assert fake.count(host="storage") == 0


@pytest.mark.parametrize(("found", "answer"), [(True, 200), (False, 404), (False, 403)])
async def test_another_redirect_is_followed_before_it_is_believed(*, found: bool, answer: int) -> None:
    async with FakeRegistry() as fake, registry_site(fake.url) as site:
        fake.fault("HEAD", BLOBS, faults.redirect("/portal", 302), times=2)
        fake.fault("HEAD", "/portal", faults.answer(answer))
        assert await site.repository("app").has_blob(DIGEST) is found


async def test_denied_is_not_known(fake: FakeRegistry, repository: RegistryRepository) -> None:
    fake.fault("HEAD", BLOBS, faults.refuse(403, "DENIED"))
    assert not await repository.has_blob(DIGEST)


async def test_a_repository_that_is_not_shown_to_good_credentials_is_not_known() -> None:
    """Quay and Harbor answer 401 for repositories that are not there yet; the upload then creates them."""
    auth = Bearer({"u": "p"}, grant=lambda _, scope: "" if "missing" in scope else scope)
    async with FakeRegistry(auth=auth) as fake:
        async with registry_site(fake.url, user="u", password="p") as site:
            assert not await site.repository("missing").has_blob(DIGEST)
        async with registry_site(fake.url, user="u", password="wrong") as site:
            with pytest.raises(AuthFailed):
                await site.repository("missing").has_blob(DIGEST)


async def test_a_server_that_fails_does_not_say_no(
    fake: FakeRegistry, repository: RegistryRepository
) -> None:
    fake.fault("HEAD", BLOBS, faults.answer(418), times=None)
    with pytest.raises(SiteError):
        await repository.has_blob(DIGEST)


# --- reading ---


@pytest.mark.parametrize("offset", [0, 1, 300_000, len(DATA) - 1, len(DATA)])
async def test_a_blob_is_read_from_any_offset(
    fake: FakeRegistry, repository: RegistryRepository, offset: int
) -> None:
    source = repository.blob(BLOB)
    assert fake.count() == 0  # nothing is asked before it is opened
    assert await read(source, offset) == DATA[offset:]
    assert source.failure is None
    assert fake.blob_bytes_out == len(DATA) - offset


async def test_a_server_that_ignores_ranges_costs_bytes_only(
    fake: FakeRegistry, repository: RegistryRepository
) -> None:
    async def whole(_: Exchange) -> web.StreamResponse:
        return web.Response(body=DATA)

    fake.fault("GET", BLOBS, whole, times=None)
    assert await read(repository.blob(BLOB), 300_001) == DATA[300_001:]


@pytest.mark.parametrize(
    "content_range", [None, "bytes 0-699999/700000", "items 5-9/10", f"bytes 9-{2**40}/9"]
)
async def test_another_range_than_asked_for_is_corrupt(
    fake: FakeRegistry, repository: RegistryRepository, content_range: str | None
) -> None:
    fake.fault("GET", BLOBS, faults.header("Content-Range", content_range))
    source = repository.blob(BLOB)
    with pytest.raises(Corrupt) as raised:
        await read(source, 9 if content_range and "items" not in content_range else 5)
    assert source.failure is raised.value


async def test_the_last_byte_is_named_where_it_is_known(
    fake: FakeRegistry, repository: RegistryRepository
) -> None:
    """go-containerregistry's registry answers 416 to a range without an end."""
    await read(repository.blob(BLOB), 5)
    await read(repository.blob(Descriptor("x", DIGEST, None)), 5)
    ranges = [entry.headers.get("Range") for entry in fake.find("GET", BLOBS)]
    assert ranges == [f"bytes=5-{len(DATA) - 1}", "bytes=5-"]


@pytest.mark.parametrize("size", [len(DATA), None])
async def test_a_range_that_is_not_satisfied_is_read_from_the_start(
    fake: FakeRegistry, repository: RegistryRepository, size: int | None
) -> None:
    fake.fault("GET", BLOBS, faults.refuse(416, "BLOB_UNKNOWN"))
    source = repository.blob(Descriptor("x", DIGEST, size))
    assert await read(source, 300_001) == DATA[300_001:]
    assert source.failure is None
    assert [entry.headers.get("Range") for entry in fake.find("GET", BLOBS)][1:] == [None]


async def test_a_range_that_is_refused_for_good_is_an_error(
    fake: FakeRegistry, repository: RegistryRepository
) -> None:
    fake.fault("GET", BLOBS, faults.refuse(416, "BLOB_UNKNOWN"), times=None)
    source = repository.blob(BLOB)
    with pytest.raises(Rejected) as raised:
        await read(source, 5)
    assert source.failure is raised.value
    assert fake.count("GET", BLOBS) == 2


async def test_nothing_is_asked_for_where_all_is_there_already(
    fake: FakeRegistry, repository: RegistryRepository
) -> None:
    assert await read(repository.blob(BLOB), len(DATA)) == b""
    assert fake.count("GET", BLOBS) == 0


async def test_a_part_of_the_range_may_be_gone_on_with(
    fake: FakeRegistry, repository: RegistryRepository
) -> None:
    async def part(_: Exchange) -> web.StreamResponse:
        told = {"Content-Range": f"bytes 5-9/{len(DATA)}"}
        return web.Response(status=206, body=DATA[5:10], headers=told)

    fake.fault("GET", BLOBS, part)
    got: list[bytes] = []
    with pytest.raises(Unavailable, match="10 of 700000"):
        await read_into(got, repository.blob(BLOB), 5)
    assert b"".join(got) == DATA[5:10]


async def test_a_blob_of_another_total_is_corrupt(fake: FakeRegistry, repository: RegistryRepository) -> None:
    with pytest.raises(Corrupt, match="700000"):
        await read(repository.blob(Descriptor("x", DIGEST, len(DATA) - 1)), 5)


@pytest.mark.parametrize("chunked", [False, True])
async def test_more_than_announced_is_corrupt_and_never_handed_over(*, chunked: bool) -> None:
    quirks = [habits.no_content_length()] if chunked else []
    async with FakeRegistry(*quirks) as fake, registry_site(fake.url) as site:
        fake.store.put_blob("app", DATA)
        source = site.repository("app").blob(Descriptor("x", DIGEST, 1000))
        got: list[bytes] = []
        with pytest.raises(Corrupt, match="more than the 1000"):
            await read_into(got, source)
        assert sum(map(len, got)) <= 1000
        assert source.failure is not None


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.truncate(100_000), Unavailable),
        (faults.reset(100_000), Unavailable),
        (faults.shorten(100_000), Corrupt),
    ],
)
async def test_a_blob_that_ends_early_is_an_error(
    fake: FakeRegistry, repository: RegistryRepository, fault: Action, error: type[SiteError]
) -> None:
    fake.fault("GET", BLOBS, fault)
    source = repository.blob(BLOB)
    with pytest.raises(error) as raised:
        await read(source)
    assert source.failure is raised.value
    assert await read(source) == DATA  # it can be opened again
    assert source.failure is None


async def _short(exchange: Exchange) -> web.StreamResponse:
    """The first 1,000 bytes, without a length."""
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(exchange.request)
    await response.write(DATA[:1000])
    await response.write_eof()
    return response


@pytest.mark.parametrize("breaks", [0, 1, 3])
async def test_a_small_blob_without_a_length_is_read_on_wherever_it_breaks(
    fake: FakeRegistry, repository: RegistryRepository, breaks: int
) -> None:
    source = repository.blob(BLOB)
    assert isinstance(source, ReadsWhole)
    fake.fault("GET", BLOBS, _short)
    fake.fault("GET", BLOBS, faults.truncate(1000), times=breaks)
    assert await source.whole() == DATA
    assert source.failure is None
    starts = [1000 * number for number in range(1, breaks + 2)]
    assert [one.headers.get("Range") for one in fake.find("GET", BLOBS)] == [
        None,
        *(f"bytes={at}-{len(DATA) - 1}" for at in starts),
    ]


async def test_a_small_blob_without_a_length_that_gets_nowhere_is_unavailable(
    fake: FakeRegistry, repository: RegistryRepository
) -> None:
    source = repository.blob(BLOB)
    assert isinstance(source, ReadsWhole)
    fake.fault("GET", BLOBS, _short)
    fake.fault("GET", BLOBS, faults.truncate(0), times=None)
    with pytest.raises(Unavailable):
        await source.whole()
    assert len(fake.find("GET", BLOBS)) == 1 + STALLED_READINGS


async def test_an_early_end_that_only_the_connection_told_may_be_tried_again(
    fake: FakeRegistry, repository: RegistryRepository
) -> None:
    fake.fault("GET", BLOBS, _short)
    with pytest.raises(Unavailable, match="1000 of 700000"):
        await read(repository.blob(BLOB))


async def test_a_missing_blob_is_not_found(repository: RegistryRepository) -> None:
    source = repository.blob(Descriptor("x", digest_of(b"other"), 5))
    with pytest.raises(NotFound) as raised:
        await read(source)
    assert source.failure is raised.value
    assert (raised.value.site, raised.value.repository, raised.value.operation) == (
        "there",
        "app",
        "read blob",
    )


async def test_the_readers_own_error_is_not_the_blobs(repository: RegistryRepository) -> None:
    """An uploader that fails inside the context must not look as if the source had failed."""
    source = repository.blob(BLOB)
    with pytest.raises(Unavailable):
        async with source.open():
            raise Unavailable("elsewhere", "upload blob", "broke")
    assert source.failure is None


async def test_a_signed_url_is_followed_untouched_and_asked_for_anew_each_time() -> None:
    async with FakeRegistry(places.blobs_in_storage(), auth=Bearer({"u": "p"})) as fake:
        fake.store.put_blob("app", DATA)
        async with registry_site(fake.url, user="u", password="p") as site:
            source = site.repository("app").blob(BLOB)
            assert await read(source) == DATA
            assert await read(source, 500_000) == DATA[500_000:]
        assert fake.count("GET", BLOBS, host="registry", status=307) == 2
        stored = fake.find("GET", BLOBS, host="storage")
        assert [entry.status for entry in stored] == [200, 206]
        assert not any("Authorization" in entry.headers for entry in stored)


async def test_a_blob_of_unknown_length_is_read_to_its_end() -> None:
    async with FakeRegistry(habits.no_content_length()) as fake, registry_site(fake.url) as site:
        fake.store.put_blob("app", DATA)
        assert await read(site.repository("app").blob(BLOB)) == DATA
        assert await read(site.repository("app").blob(Descriptor("x", DIGEST))) == DATA


async def test_leaving_early_ends_the_reading(fake: FakeRegistry, repository: RegistryRepository) -> None:
    async with repository.blob(BLOB).open() as chunks:
        assert await anext(chunks)
    assert await read(repository.blob(BLOB)) == DATA


async def test_an_empty_blob_is_not_asked_for(fake: FakeRegistry, repository: RegistryRepository) -> None:
    assert await read(repository.blob(Descriptor("x", digest_of(b""), 0))) == b""
    assert fake.count() == 0


# --- content in the descriptor ---


def inline(data: str, size: int | None = 5) -> Descriptor:
    return Descriptor("x", digest_of(b"hello"), size, data=data)


async def test_content_in_the_descriptor_is_served_without_a_request(
    fake: FakeRegistry, repository: RegistryRepository
) -> None:
    source = repository.blob(inline(base64.b64encode(b"hello").decode()))
    assert await read(source) == b"hello"
    assert await read(source, 2) == b"llo"
    assert fake.count() == 0


@pytest.mark.parametrize("data", ["aGVsbG8h", "aGVsbGE=", "not base64!", ""])
async def test_content_in_the_descriptor_that_is_wrong_is_asked_for(
    fake: FakeRegistry, repository: RegistryRepository, data: str
) -> None:
    fake.store.put_blob("app", b"hello")
    assert await read(repository.blob(inline(data))) == b"hello"
    assert fake.count("GET") == 2  # the ping and the blob


async def test_content_in_the_descriptor_of_another_size_is_not_served(
    fake: FakeRegistry, repository: RegistryRepository
) -> None:
    fake.store.put_blob("app", b"hello")
    with pytest.raises(Corrupt):
        await read(repository.blob(inline(base64.b64encode(b"hello").decode(), size=6)))


# --- bounds ---


@pytest.mark.parametrize("size", [len(DATA), None])
async def test_a_blob_of_more_bytes_than_are_allowed_is_not_read(
    fake: FakeRegistry, size: int | None
) -> None:
    async with registry_site(fake.url, max_blob_bytes=len(DATA) - 1) as site:
        source = site.repository("app").blob(Descriptor("application/octet-stream", DIGEST, size))
        with pytest.raises(Rejected, match="max_blob_bytes allows more"):
            await read(source)
    assert fake.count("GET", "/blobs/") == (0 if size else 1)
