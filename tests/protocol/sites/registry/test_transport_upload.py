from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from msgspec.structs import replace

from replicator.errors import Advice, AuthFailed, Corrupt, Denied, Rejected, SiteError, Unavailable
from replicator.sites.registry.body import Left, UploadBody
from replicator.sites.registry.http import Call
from replicator.sites.timeouts import Timeouts
from tests.fakes.scripted import SHORT, Rig, Scripted, head_of, login, raw, rig, scripted

pytestmark = pytest.mark.usefixtures("moved")

PUT = Call(
    "write blob",
    "PUT",
    "/v2/a/uploads/1?_state=x",
    repository="a",
    actions="pull,push",
    expected=frozenset({201}),
)


async def _created(request: web.Request) -> web.Response:
    return web.Response(status=201)


class Source:
    """A body that remembers whether it was closed, and the failure that broke it."""

    def __init__(self, *chunks: bytes, failure: SiteError | None = None) -> None:
        self.chunks = chunks
        self.opened = 0
        self.closed = 0
        self.failure: SiteError | None = None
        self._fails_with = failure

    async def open(self) -> AsyncIterator[bytes]:
        self.opened += 1
        try:
            for chunk in self.chunks:
                yield chunk
            if self._fails_with is not None:
                self.failure = self._fails_with
                raise self._fails_with
        finally:
            self.closed += 1


async def _upload(here: Rig, source: Source, length: int | None, call: Call = PUT) -> int:
    reply = await here.transport.upload(call, source.open, length, lambda: source.failure)
    return reply.status


async def test_body_arrives_whole_with_its_length() -> None:
    source = Source(b"abc", b"", b"def")
    async with scripted(_created) as server, rig(server.url) as here:
        assert await _upload(here, source, 6) == 201
    [seen] = server.to("/v2/a")
    assert seen.body == b"abcdef"
    assert seen.headers["Content-Length"] == "6"
    assert seen.headers["Content-Type"] == "application/octet-stream"
    assert "Transfer-Encoding" not in seen.headers
    assert source.closed == 1


async def test_body_of_unknown_length_is_chunked() -> None:
    async with scripted(_created) as server, rig(server.url) as here:
        assert await _upload(here, Source(b"abc", b"", b"def"), None) == 201
    [seen] = server.to("/v2/a")
    assert seen.body == b"abcdef"
    assert "Content-Length" not in seen.headers


async def test_empty_body_is_sent_as_such() -> None:
    async with scripted(_created) as server, rig(server.url) as here:
        assert await _upload(here, Source(), 0) == 201
    assert server.to("/v2/a")[0].headers["Content-Length"] == "0"


async def test_connection_is_used_again_after_an_upload() -> None:
    peers = set()

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(status=201)

    async with scripted(answer) as server, rig(server.url) as here:
        for _ in range(3):
            await _upload(here, Source(b"x" * 100_000), 100_000)
    assert len(peers) == 1


@pytest.mark.parametrize("chunks", [(), (b"abc",), (b"ab", b"cde")])
async def test_too_few_bytes_are_an_error_at_once_and_never_complete(chunks: tuple[bytes, ...]) -> None:
    """Aiohttp itself would wait for the missing bytes until the server gives up."""
    complete: list[bytes] = []

    async def answer(request: web.Request) -> web.Response:
        complete.append(await request.read())
        return web.Response(status=201)

    source = Source(*chunks)
    async with scripted(answer) as server, rig(server.url) as here:
        with pytest.raises(Corrupt, match=rf"ended after {sum(map(len, chunks))} of the 6 bytes"):
            await _upload(here, source, 6)
    assert complete == []
    assert source.closed == 1


@pytest.mark.parametrize(
    "chunks", [(b"abcdefg",), (b"abcdef", b"g"), (b"abc", b"defg"), (b"abcdef", b"", b"g")]
)
async def test_too_many_bytes_are_an_error_and_never_complete(chunks: tuple[bytes, ...]) -> None:
    """Aiohttp itself would cut the body to its Content-Length, and the server would answer 201."""
    complete: list[bytes] = []

    async def answer(request: web.Request) -> web.Response:
        complete.append(await request.read())
        return web.Response(status=201)

    source = Source(*chunks)
    async with scripted(answer) as server, rig(server.url) as here:
        with pytest.raises(Corrupt, match="more than the 6 bytes announced"):
            await _upload(here, source, 6)
    assert complete == []
    assert source.closed == 1


@pytest.mark.parametrize("chunks", [(), (b"abc",), (b"abcdef",)])
@pytest.mark.parametrize("length", [6, None])
async def test_failure_of_the_source_is_raised_as_its_own(
    chunks: tuple[bytes, ...], length: int | None
) -> None:
    failure = Unavailable("there", "read blob", "connection broke")
    source = Source(*chunks, failure=failure)
    async with scripted(_created) as server, rig(server.url) as here:
        with pytest.raises(Unavailable) as caught:
            await _upload(here, source, length)
    assert caught.value is failure
    assert source.closed == 1


async def test_bug_in_a_source_is_not_hidden() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise ZeroDivisionError

    async with scripted(_created) as server, rig(server.url) as here:
        with pytest.raises(ZeroDivisionError):
            await here.transport.upload(PUT, broken, 5, lambda: None)


async def _refuse_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if b"/v2/ " in await head_of(reader):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await head_of(reader)
    await reader.readexactly(10)
    body = b'{"errors":[{"code":"SIZE_INVALID","message":"too large"}]}'
    writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    while await reader.read(1 << 20):
        pass


async def test_early_refusal_is_told_and_the_source_closed() -> None:
    source = Source(*[b"x" * 100_000] * 10_000)
    async with raw(_refuse_early) as url, rig(url) as here:
        with pytest.raises(Rejected, match="too large") as caught:
            await _upload(here, source, 1_000_000_000)
    assert caught.value.codes == ("SIZE_INVALID",)
    assert source.closed == 1


async def test_early_refusal_does_not_wait_for_a_source_that_has_nothing() -> None:
    closed = asyncio.Event()

    async def waiting() -> AsyncIterator[bytes]:
        try:
            yield b"x" * 10
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with raw(_refuse_early) as url, rig(url) as here:
        with pytest.raises(Rejected):
            await here.transport.upload(PUT, waiting, 1000, lambda: None)
    assert closed.is_set()


@pytest.mark.parametrize("before", [0, 100_000])
async def test_interim_answers_neither_end_nor_break_an_upload(before: int) -> None:
    """Servers send 100 Continue also to who did not ask for it, and 102 Processing while they work."""
    got = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        if b"/v2/ " in await head_of(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await head_of(reader)
        got += len(await reader.readexactly(before))
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 1")
        await asyncio.sleep(0.05)
        writer.write(b"02 Processing\r\n\r\n")
        while got < 5_000_000:
            got += len(await reader.read(1 << 20))
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    async with raw(talk) as url, rig(url) as here:
        assert await _upload(here, Source(*[b"x" * 100_000] * 50), 5_000_000) == 201
    assert got == 5_000_000


async def test_an_answer_that_begins_early_and_never_ends_is_given_up() -> None:
    said = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/v2/ " in await head_of(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await head_of(reader)
        writer.write(b"HTTP/1.1 403 For")
        await writer.drain()
        said.set()
        await asyncio.Event().wait()

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        await said.wait()
        await asyncio.sleep(0.05)  # so that it is heard of while the source is asked
        for _ in range(100):
            yield b"x" * 1_000_000

    async with raw(talk) as url, rig(url, timeouts=SHORT) as here, asyncio.timeout(30):
        with pytest.raises(Unavailable, match=r"no progress for 0\.3 s"):
            await here.transport.upload(PUT, body, 100_000_001, lambda: None)


@pytest.mark.parametrize("rest", [b"Content-Length: 100\r\n\r\nabc", b"\r\nabc"])
async def test_an_early_refusal_counts_also_if_its_body_never_ends(rest: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/v2/ " in await head_of(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await head_of(reader)
        writer.write(b"HTTP/1.1 403 Forbidden\r\n" + rest)
        await asyncio.Event().wait()

    source = Source(*[b"x" * 1_000_000] * 100)
    async with raw(talk) as url, rig(url, timeouts=SHORT) as here, asyncio.timeout(30):
        with pytest.raises(Denied):
            await _upload(here, source, 100_000_000)


@pytest.mark.parametrize("taken", [0, 10, 6_000_000])
async def test_a_success_before_the_end_is_told_as_early(taken: int) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/v2/ " in await head_of(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await head_of(reader)
        await reader.readexactly(taken)
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    for length, is_early in ((100_000_000, True), (taken, False)):
        source = Source(*[b"x" * 1_000_000] * (length // 1_000_000), *[b"x"] * (length % 1_000_000))
        async with raw(talk) as url, rig(url) as here:
            reply = await here.transport.upload(PUT, source.open, length, lambda: None)
        assert (reply.status, reply.is_early) == (201, is_early)


async def test_server_that_takes_nothing_is_given_up() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/v2/ " in await head_of(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await head_of(reader)
        await asyncio.Event().wait()

    source = Source(*[b"x" * 1_000_000] * 100)
    async with raw(talk) as url, rig(url, timeouts=SHORT) as here:
        with pytest.raises(Unavailable, match=r"no progress for 0\.3 s after \d+ bytes") as caught:
            await _upload(here, source, 100_000_000)
    assert caught.value.advice is Advice.RETRY
    assert source.closed == 1


async def test_what_a_server_takes_of_a_chunk_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """By that a slow one is told from one that takes nothing (`UploadBody.watch`)."""
    seen: list[Left] = []
    goes_over = UploadBody.goes_over

    def over(feed: UploadBody, left: Left) -> None:
        seen.append(left)
        goes_over(feed, left)

    monkeypatch.setattr(UploadBody, "goes_over", over)
    steps, step = 10, 2_000_000  # more than the system keeps on either side

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/v2/ " in await head_of(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await head_of(reader)
        for _ in range(steps):
            before = seen[0]()
            await reader.readexactly(step)
            while seen[0]() == before:  # noqa: ASYNC110 - the system tells nobody
                await asyncio.sleep(0)
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    source = Source(b"x" * (steps * step), b"x" * 10_000_000)
    async with raw(talk) as url, rig(url, timeouts=Timeouts()) as here, asyncio.timeout(20):
        assert await _upload(here, source, steps * step + 10_000_000) == 201
    assert len(seen) == 1


async def test_server_that_takes_all_and_says_nothing_is_given_up() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/v2/ " in await head_of(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    async with raw(talk) as url, rig(url, timeouts=SHORT) as here:
        with pytest.raises(Unavailable, match="no answer"):
            await _upload(here, Source(b"abc"), 3)


async def test_source_that_is_slow_is_no_stalled_server() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"abc"
        await asyncio.sleep(0.5)  # longer than the limit of 0.3 s: a source has time limits of its own
        yield b"def"

    async with scripted(_created) as server, rig(server.url, timeouts=replace(SHORT, commit=20.0)) as here:
        reply = await here.transport.upload(PUT, slow, 6, lambda: None)
    assert reply.status == 201


async def test_connection_reset_in_the_middle_is_unavailable_and_not_sent_again() -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        if b"/v2/ " in await head_of(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        connections += 1
        await reader.readexactly(1000)
        writer.transport.abort()

    source = Source(*[b"x" * 100_000] * 1000)
    async with raw(talk) as url, rig(url) as here:
        with pytest.raises(Unavailable):
            await _upload(here, source, 100_000_000)
    assert (connections, source.opened, source.closed) == (1, 1, 1)


async def test_cancelled_upload_closes_its_source() -> None:
    begun = asyncio.Event()
    closed = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"abc"
            begun.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with scripted(_created) as server, rig(server.url) as here:
        task = asyncio.create_task(here.transport.upload(PUT, body, 6, lambda: None))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert closed.is_set()


async def test_upload_elsewhere_takes_no_credentials_and_keeps_the_url() -> None:
    async def challenge(request: web.Request) -> web.Response:
        return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=x"})

    async with (
        scripted(_created, ping=False) as other,
        scripted(challenge, ping=False) as server,
        rig(server.url, login=login()) as here,
    ):
        call = replace(PUT, url=f"{other.url}/u?_state=a%2Fb+c")
        assert await _upload(here, Source(b"abc"), 3, call) == 201
    [seen] = other.seen
    assert seen.target == "/u?_state=a%2Fb+c"
    assert "Authorization" not in seen.headers


class Tokens:
    """A registry whose tokens a test revokes."""

    def __init__(self) -> None:
        self.valid = ""
        self.made = 0

    async def __call__(self, request: web.Request) -> web.Response:
        if request.path == "/token":
            self.made += 1
            self.valid = f"t{self.made}"
            return web.json_response({"token": self.valid, "expires_in": 300})
        if request.headers.get("Authorization") != f"Bearer {self.valid}":
            realm = f'Bearer realm="http://{request.host}/token",service="s"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})
        return web.Response(status=201)


async def _with_token(server: Scripted, here: Rig) -> None:
    assert await _upload(here, Source(b"abc"), 3) == 201


async def test_refused_upload_is_the_callers_to_repeat_and_then_has_a_new_token() -> None:
    tokens = Tokens()
    async with scripted(tokens, ping=False) as server, rig(server.url, login=login()) as here:
        await _with_token(server, here)
        tokens.valid = "revoked"
        source = Source(b"abc")
        with pytest.raises(AuthFailed) as caught:
            await _upload(here, source, 3)
        assert caught.value.advice is Advice.RETRY
        assert source.opened == source.closed == 1
        await _with_token(server, here)
    assert tokens.made == 2
