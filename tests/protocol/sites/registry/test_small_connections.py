"""Connections of small requests: when one is used again, when it is closed, and what is never read from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from replicator.errors import SiteError, Unavailable
from replicator.events import RequestDone
from replicator.flow.retry import Budget
from replicator.sites.registry.http import Call
from replicator.sites.timeouts import Timeouts
from tests.fakes.scripted import SHORT, Rig, head_of, raw, rig

ONCE = Budget(attempts=1)
OK = b"HTTP/1.1 200 OK\r\n"
EVIL = OK + b"Content-Length: 4\r\nX-Evil: 1\r\n\r\nevil"
GET = Call("read manifest", "GET", "/v2/a/manifests/v1", repository="a")
HEAD = Call("resolve", "HEAD", "/v2/a/manifests/v1", repository="a")
PUT = Call("put manifest", "PUT", "/v2/a/manifests/v1", repository="a", body=b"{}")
DELETE = Call("delete manifest", "DELETE", "/v2/a/manifests/v1", repository="a")
POST = Call("start upload", "POST", "/v2/a/blobs/uploads/", repository="a", body=b"{}")


def _ok(body: bytes, *lines: bytes) -> bytes:
    return OK + b"".join(line + b"\r\n" for line in lines) + b"Content-Length: %d\r\n\r\n" % len(body) + body


class Server:
    """Answers the ping; `say` answers the rest, told which request of the server and which of the connection it is.

    A connection is closed when `say` returns false. `ended` counts the connections that the client closed.
    """

    Say = Callable[[asyncio.StreamWriter, int, int], Awaitable[bool]]

    def __init__(self, say: Say) -> None:
        self._say = say
        self.requests: list[bytes] = []
        self.connections = 0
        self.ended = 0
        self._changed = asyncio.Condition()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = 0
        try:
            while True:
                head = await head_of(reader)
                if head.startswith(b"GET /v2/ "):
                    writer.write(_ok(b"{}"))
                    continue
                if b"Content-Length: 2\r\n" in head:
                    await reader.readexactly(2)
                self.requests.append(head)
                number += 1
                if not await self._say(writer, len(self.requests), number):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            async with self._changed:
                self.ended += 1
                self._changed.notify_all()

    async def client_closed(self, count: int) -> None:
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: self.ended >= count)


@asynccontextmanager
async def _talking(
    say: Server.Say,
    timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
) -> AsyncIterator[tuple[Server, Rig]]:
    server = Server(say)
    async with raw(server.talk) as url, rig(url, budget=ONCE, timeouts=timeouts) as here:
        yield server, here


async def _turns() -> None:
    """Lets the other side read what was written."""
    for _ in range(20):
        await asyncio.sleep(0)


# --- more than the answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_split", [False, True], ids=["with the head", "with the rest of the body"])
async def test_a_second_answer_is_never_taken_for_that_of_the_next_request(*, is_split: bool) -> None:
    async def say(writer: asyncio.StreamWriter, count: int, _: int) -> bool:
        answer = _ok(b"answer %d" % count)
        if is_split:
            writer.write(answer[:-3])
            await _turns()
            answer = answer[-3:]
        writer.write(answer + EVIL)
        return True

    async with _talking(say) as (server, here):
        for count in (1, 2, 3):
            assert (await here.transport.request(GET)).body == b"answer %d" % count
            await server.client_closed(count)
    assert (len(server.requests), server.connections) == (3, 3)


@pytest.mark.parametrize("call", [GET, HEAD], ids=["GET", "HEAD"])
@pytest.mark.parametrize(
    "more", [EVIL, EVIL[:30], b"\r\n", b"garbage"], ids=["answer", "part", "line", "garbage"]
)
async def test_what_comes_on_an_idle_connection_closes_it(call: Call, more: bytes) -> None:
    returned = asyncio.Event()

    async def say(writer: asyncio.StreamWriter, count: int, _: int) -> bool:
        writer.write(OK + b"X-Count: %d\r\nContent-Length: 4\r\n\r\n" % count)
        writer.write(b"body" if call is GET else b"")
        await returned.wait()
        returned.clear()
        writer.write(more)
        return True

    async with _talking(say) as (server, here):
        for count in (1, 2, 3):
            reply = await here.transport.request(call)
            assert (reply.headers["X-Count"], reply.body) == (str(count), b"body" if call is GET else b"")
            returned.set()
            await server.client_closed(count)
    assert (len(server.requests), server.connections) == (3, 3)


async def test_a_server_that_speaks_first_is_not_taken_for_an_answer() -> None:
    spoken = asyncio.Event()
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:  # the one that is opened ahead
            await _turns()
            writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
            await _turns()
            spoken.set()
        while await head_of(reader):
            writer.write(_ok(b"{}"))

    async with raw(talk) as url, rig(url, budget=ONCE) as here:
        here.transport.connect_ahead()
        await spoken.wait()
        assert (await here.transport.request(GET)).body == b"{}"
    assert connections == 2


async def test_a_body_longer_than_its_length_is_cut_or_refused() -> None:
    async def say(writer: asyncio.StreamWriter, count: int, _: int) -> bool:
        writer.write(OK + b"Content-Length: 4\r\n\r\n")
        await _turns()
        writer.write(b"body and more")
        return True

    async with _talking(say) as (server, here):
        for count in (1, 2):
            assert (await here.transport.request(GET)).body == b"body"
            await server.client_closed(count)
    assert server.connections == 2


# --- which connections are used again -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "stays"),
    [
        (_ok(b"{}"), True),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + _ok(b"{}"), True),
        (_ok(b"{}", b"Connection: close"), False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}", True),
    ],
    ids=["length", "chunked", "after 103", "close", "1.0", "1.0 keep-alive"],
)
async def test_a_connection_is_used_again_where_the_answer_says_so(answer: bytes, *, stays: bool) -> None:
    async def say(writer: asyncio.StreamWriter, count: int, _: int) -> bool:
        writer.write(answer)
        return True

    async with _talking(say) as (server, here):
        for _ in range(3):
            assert (await here.transport.request(GET)).body == b"{}"
    assert (len(server.requests), server.connections) == (3, 1 if stays else 3)


async def test_a_body_ends_with_the_connection_where_nothing_else_ends_it() -> None:
    async def say(writer: asyncio.StreamWriter, count: int, _: int) -> bool:
        writer.write(OK + b"\r\nwhole")
        await writer.drain()
        return False

    async with _talking(say) as (server, here):
        assert [(await here.transport.request(GET)).body for _ in range(2)] == [b"whole"] * 2
    assert (len(server.requests), server.connections) == (2, 2)


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (HEAD, OK + b"Content-Length: 700\r\n\r\n"),
        (HEAD, OK + b"Transfer-Encoding: chunked\r\n\r\n"),
        (DELETE, b"HTTP/1.1 204 No Content\r\n\r\n"),
        (DELETE, b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"),
        (PUT, b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"),
    ],
)
async def test_an_answer_without_a_body_is_whole_with_its_head(call: Call, answer: bytes) -> None:
    async def say(writer: asyncio.StreamWriter, count: int, _: int) -> bool:
        writer.write(answer)
        return True

    async with _talking(say) as (server, here):
        for _ in range(3):
            anything = Call(
                call.operation,
                call.method,
                call.url,
                repository="a",
                body=call.body,
                expected=frozenset({200, 201, 202, 204}),
            )
            assert (await here.transport.request(anything)).body == b""
    assert (len(server.requests), server.connections) == (3, 1)


async def test_cookies_are_neither_kept_nor_shown() -> None:
    async def say(writer: asyncio.StreamWriter, count: int, _: int) -> bool:
        writer.write(_ok(b"{}", b"Set-Cookie: session=1; Path=/"))
        return True

    async with _talking(say) as (server, here):
        for _ in range(2):
            await here.transport.request(GET)
    assert not any(b"cookie" in head.lower() for head in server.requests)


async def test_an_answer_that_changes_the_protocol_is_refused_and_its_connection_closed() -> None:
    async def say(writer: asyncio.StreamWriter, count: int, _: int) -> bool:
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: odd\r\n\r\n" + EVIL
        )
        return True

    async with _talking(say) as (server, here):
        with pytest.raises(SiteError):
            await here.transport.request(GET)
        await server.client_closed(1)


# --- connections that break ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "again"),
    [(GET, True), (HEAD, True), (PUT, True), (POST, False)],
    ids=["GET", "HEAD", "PUT", "POST"],
)
@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
async def test_a_kept_connection_that_breaks_costs_one_more_request_where_it_is_safe(
    call: Call, *, again: bool, is_reset: bool
) -> None:
    async def say(writer: asyncio.StreamWriter, count: int, number: int) -> bool:
        if number > 1:
            if is_reset:
                writer.transport.abort()
            return False
        writer.write(_ok(b"{}") if call is not HEAD else OK + b"Content-Length: 2\r\n\r\n")
        return True

    async with _talking(say) as (server, here):
        await here.transport.request(GET if call is POST else call)
        if again:
            assert (await here.transport.request(call)).status == 200
        else:
            with pytest.raises(Unavailable):
                await here.transport.request(call)
    assert len(server.requests) == (3 if again else 2)
    assert server.connections == (2 if again else 1)


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\nContent-"], ids=["no byte", "part of a head"])
async def test_a_new_connection_that_breaks_is_a_failure_at_once(part: bytes) -> None:
    async def say(writer: asyncio.StreamWriter, count: int, _: int) -> bool:
        writer.write(part if count > 1 else _ok(b"{}", b"Connection: close"))
        await writer.drain()
        return False

    async with _talking(say) as (server, here):
        await here.transport.request(GET)
        with pytest.raises(Unavailable):
            await here.transport.request(GET)
        codes = [event.code for event in here.events if isinstance(event, RequestDone)]
    assert len(server.requests) == 2, "not sent again without being counted"
    assert codes[:2] == ["200", "200"]
    assert len(codes) == 3, "the ping and both requests"


async def test_a_refused_connection_is_not_tried_again_by_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[object] = []
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect

    async def counted(sock: object, address: object) -> None:
        tried.append(address)
        await connect(sock, address)  # type: ignore[arg-type]

    async with raw(Server(lambda *_: asyncio.sleep(0, result=True)).talk) as url:
        pass
    monkeypatch.setattr(loop, "sock_connect", counted)
    async with rig(url, budget=ONCE) as here:
        with pytest.raises(Unavailable, match="cannot connect"):
            await here.transport.request(GET)
    assert len(tried) == 2, "the one ahead of need, and the request's own"


# --- who leaves early ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part",
    [b"", OK + b"Content-Le", OK + b"Content-Length: 9\r\n\r\nanswer"],
    ids=["before the head", "within the head", "within the body"],
)
async def test_a_cancelled_request_closes_its_connection(part: bytes) -> None:
    said = asyncio.Event()

    async def say(writer: asyncio.StreamWriter, count: int, _: int) -> bool:
        writer.write(part if count == 1 else _ok(b"{}"))
        await _turns()
        said.set()
        return True

    async with _talking(say) as (server, here):
        task = asyncio.create_task(here.transport.request(GET))
        await said.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.client_closed(1)
        assert (await here.transport.request(GET)).body == b"{}"
    assert server.connections == 2


async def test_an_answer_that_is_too_late_closes_its_connection() -> None:
    late = asyncio.Event()

    async def say(writer: asyncio.StreamWriter, count: int, _: int) -> bool:
        if count == 1:
            await late.wait()
        writer.write(EVIL if count == 1 else _ok(b"{}"))
        return True

    async with _talking(say, SHORT) as (_, here):
        with pytest.raises(Unavailable, match=r"timeouts\.read"):
            await here.transport.request(GET)
        late.set()
        assert (await here.transport.request(GET)).body == b"{}"


async def test_a_site_that_closes_while_it_connects_ahead_leaves_nothing() -> None:
    server = Server(lambda *_: asyncio.sleep(0, result=True))
    async with raw(server.talk) as url:
        for turns in range(8):  # wherever it is by then
            async with rig(url, budget=ONCE) as here:
                here.transport.connect_ahead()
                for _ in range(turns):
                    await asyncio.sleep(0)
        await server.client_closed(server.connections)
