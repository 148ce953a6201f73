from __future__ import annotations

import asyncio
import gzip

import pytest
from aiohttp import web
from msgspec.structs import replace

from replicator.errors import Advice, NotFound, Rejected, Unavailable, Unsupported
from replicator.flow.retry import Budget
from replicator.sites.registry.call import Call
from replicator.sites.registry.streaming import MAX_CHUNK_BYTES
from tests.fakes.scripted import SHORT, Rig, head_of, login, raw, rig, scripted

pytestmark = pytest.mark.usefixtures("moved")

BLOB = Call(
    "read blob",
    "GET",
    "/v2/a/blobs/x",
    repository="a",
    headers={"Range": "bytes=5-", "X-Secret": "s"},
    verified=True,
)
ONCE = Budget(attempts=1)


async def _read(here: Rig, call: Call = BLOB) -> bytes:
    async with here.transport.stream(call) as reply:
        chunks = [chunk async for chunk in reply.chunks()]
    assert all(0 < len(chunk) <= MAX_CHUNK_BYTES for chunk in chunks)
    return b"".join(chunks)


def _challenged(request: web.Request) -> web.Response | None:
    if "Authorization" not in request.headers:
        return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=x"})
    return web.Response() if request.raw_path == "/v2/" else None


async def test_body_comes_in_bounded_chunks_and_whole() -> None:
    data = bytes(range(256)) * 20_000

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=data)

    async with scripted(answer) as server, rig(server.url) as here:
        assert await _read(here) == data


async def test_content_encoding_is_not_undone() -> None:
    """The digest is of the bytes as sent: a blob served with Content-Encoding: gzip must not arrive inflated."""
    data = gzip.compress(b"layer" * 1000)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=data, headers={"Content-Encoding": "gzip"})

    async with scripted(answer) as server, rig(server.url) as here:
        assert await _read(here) == data


async def test_redirect_elsewhere_takes_no_credentials_and_keeps_the_signature() -> None:
    async def storage(request: web.Request) -> web.Response:
        return web.Response(body=b"blob")

    async with scripted(storage, ping=False) as other:
        signed = "/bucket/a%2Fb?sig=a%2Fb%2b+c~%7E=&x=%E2%82%AC"

        async def answer(request: web.Request) -> web.Response:
            location = {"Location": f"{other.url}{signed}", "Set-Cookie": "sid=1"}
            return _challenged(request) or web.Response(status=307, headers=location)

        async with scripted(answer, ping=False) as server, rig(server.url, login=login()) as here:
            assert await _read(here) == b"blob"
    [seen] = other.seen
    assert seen.target == signed
    assert seen.headers["Range"] == "bytes=5-"
    assert {"Authorization", "Cookie", "X-Secret"}.isdisjoint(seen.headers)
    assert "Authorization" in server.seen[-1].headers


async def test_redirect_within_the_registry_keeps_the_credentials() -> None:
    async def answer(request: web.Request) -> web.Response:
        if (challenge := _challenged(request)) is not None:
            return challenge
        if request.raw_path == "/v2/a/blobs/x":
            return web.Response(status=302, headers={"Location": "../../b/blobs/x?y=%2F"})
        return web.Response(body=b"blob")

    async with scripted(answer, ping=False) as server, rig(server.url, login=login()) as here:
        assert await _read(here) == b"blob"
    assert "Authorization" in server.seen[-1].headers
    assert server.seen[-1].headers["X-Secret"] == "s"


async def test_who_sends_us_back_gets_no_credentials() -> None:
    async with scripted(lambda _: back(), ping=False) as other:

        async def back() -> web.Response:
            return web.Response(status=307, headers={"Location": f"{server.url}/v2/stolen"})

        async def answer(request: web.Request) -> web.Response:
            if request.raw_path == "/v2/stolen":
                return web.Response(body=b"" if "Authorization" in request.headers else b"anonymous")
            return _challenged(request) or web.Response(status=307, headers={"Location": other.url})

        async with scripted(answer, ping=False) as server, rig(server.url, login=login()) as here:
            assert await _read(here) == b"anonymous"


@pytest.mark.parametrize("length", [1, 2])
async def test_redirects_in_a_circle_are_an_error(length: int) -> None:
    async def answer(request: web.Request) -> web.Response:
        at = int(request.query.get("at", "0"))
        return web.Response(status=302, headers={"Location": f"/v2/a/blobs/x?at={(at + 1) % length}"})

    async with scripted(answer) as server, rig(server.url) as here:
        with pytest.raises(Rejected, match="circle"):
            await _read(here, Call("read blob", "GET", "/v2/a/blobs/x?at=0", repository="a"))
    assert len(server.to("/v2/a")) == length


async def test_redirects_are_followed_five_times_at_most() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": f"{request.path}x"})

    async with scripted(answer) as server, rig(server.url) as here:
        with pytest.raises(Rejected, match="more than 5 redirects"):
            await _read(here)
    assert len(server.to("/v2/a")) == 6


async def test_redirect_is_the_callers_where_it_says_so() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    call = Call("x", "GET", "/v2/a/b", repository="a", expected=frozenset({307}), follow=False)
    async with scripted(answer) as server, rig(server.url) as here:
        assert (await here.transport.request(call)).headers["Location"] == "/elsewhere"


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("ftp://elsewhere.example/x", "not an http or https"),
        ("file:///etc/passwd", "not an http or https"),
        ("http://user:pw@elsewhere.example/x", "user information"),
        ("http://[::1", "not a URL"),
    ],
)
async def test_unsafe_redirects_are_refused_and_their_query_not_told(location: str, reason: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": f"{location}?signed=s3cret"})

    async with scripted(answer) as server, rig(server.url) as here:
        with pytest.raises(Rejected, match=reason) as caught:
            await _read(here)
    assert "s3cret" not in str(caught.value)


async def test_expired_signature_is_asked_for_again_at_the_registry() -> None:
    answers = [403, 200]

    async def storage(request: web.Request) -> web.Response:
        return web.Response(status=answers.pop(0), body=b"blob")

    async with scripted(storage, ping=False) as other:
        count = 0

        async def answer(request: web.Request) -> web.Response:
            nonlocal count
            count += 1
            return web.Response(status=307, headers={"Location": f"{other.url}/x?sig={count}"})

        async with scripted(answer) as server, rig(server.url) as here:
            assert await _read(here) == b"blob"
    assert [seen.target for seen in other.seen] == ["/x?sig=1", "/x?sig=2"]


async def test_head_that_storage_refuses_is_unsupported_so_that_get_is_tried() -> None:
    """GitLab's dependency proxy redirects HEAD to a URL signed for GET, which S3 then answers with 403 (I.15)."""

    async def storage(request: web.Request) -> web.Response:
        return web.Response(status=403)

    async with scripted(storage, ping=False) as other:

        async def answer(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": f"{other.url}/x?sig=s3cret"})

        async with scripted(answer) as server, rig(server.url) as here:
            with pytest.raises(Unsupported) as caught:
                await here.transport.request(
                    Call("look", "HEAD", "/v2/a/manifests/x", repository="a", verified=True)
                )
    assert "s3cret" not in str(caught.value)


async def test_missing_blob_is_not_found_and_leaves_nothing_held() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=404)

    async with scripted(answer) as server, rig(server.url) as here:
        with pytest.raises(NotFound):
            await _read(here)


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "broke off"),
    ],
)
async def test_truncated_body_is_unavailable_and_not_read_again_here(ending: bytes, message: str) -> None:
    opened = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        if b"/v2/ " in await head_of(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await head_of(reader)
        opened += 1
        writer.write(ending)

    async with raw(talk) as url, rig(url) as here:
        with pytest.raises(Unavailable, match=message) as caught:
            await _read(here)
    assert caught.value.advice is Advice.RETRY
    assert (caught.value.site, caught.value.repository, caught.value.operation) == ("here", "a", "read blob")
    assert opened == 1


async def test_body_that_stops_coming_is_unavailable() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/v2/ " in await head_of(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await reader.read()

    async with raw(talk) as url, rig(url, timeouts=SHORT) as here:
        with pytest.raises(Unavailable, match="sent nothing"):
            await _read(here)


async def test_slow_reader_is_no_hang() -> None:
    """The time limit is for the server: who reads slowly (a throttled destination) must not lose the connection."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 8_000_000)

    async with (
        scripted(answer) as server,
        rig(server.url, timeouts=replace(SHORT, first_byte=20.0)) as here,
        here.transport.stream(BLOB) as reply,
    ):
        chunks = reply.chunks()
        total = len(await anext(chunks))
        await asyncio.sleep(0.5)  # longer than the time limit of 0.3 s; there is no other way to be slow
        async for chunk in chunks:
            total += len(chunk)
    assert total == 8_000_000


async def test_leaving_early_drops_the_connection_and_frees_the_slot() -> None:
    gone = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 100_000)
        except (ConnectionError, asyncio.CancelledError):
            gone.set()
            raise

    async with scripted(answer) as server, rig(server.url) as here:
        async with here.transport.stream(BLOB) as reply:
            async for _ in reply.chunks():
                break
        await asyncio.wait_for(gone.wait(), 30)


async def test_opening_is_tried_again() -> None:
    statuses = [503, 200]

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=statuses.pop(0), body=b"blob")

    async with scripted(answer) as server, rig(server.url) as here:
        assert await _read(here) == b"blob"
