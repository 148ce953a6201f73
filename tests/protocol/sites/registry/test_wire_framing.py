"""What careless proxies do to answers is undone where there is no doubt what they mean, and refused by name elsewhere."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from replicator.errors import Corrupt, SiteError
from replicator.flow.retry import Budget
from replicator.sites.framing import MAX_INTERIM, mended
from replicator.sites.registry.encoding import decoded
from replicator.sites.registry.http import Call
from replicator.sites.timeouts import Timeouts
from tests.fakes.scripted import SHORT, head_of, raw, rig, scripted

pytestmark = pytest.mark.usefixtures("moved")

SMALL = Call("read manifest", "GET", "/v2/a/manifests/v1", repository="a")
HEAD = Call("resolve", "HEAD", "/v2/a/manifests/v1", repository="a")
ONCE = Budget(attempts=1)
OK = b"HTTP/1.1 200 OK\r\n"

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _says(answer: bytes, connections: list[int], *, pieces: bool = False) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        while True:
            head = await head_of(reader)
            if b" /v2/ " in head:
                writer.write(OK + b"Content-Length: 2\r\n\r\n{}")
            elif pieces:
                for at in range(len(answer)):
                    writer.write(answer[at : at + 1])
                    await writer.drain()
                    await asyncio.sleep(0)
            else:
                writer.write(answer)
            await writer.drain()

    return talk


TOLERATED = {
    "twice": OK + b"Content-Length: 5\r\nX-A: b\r\ncontent-length: 5\r\n\r\nhello",
    "in one line": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "beside chunked": OK + b"Content-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked first": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "after early hints": b"HTTP/1.1 103 Early Hints\r\n\r\n"
    + OK
    + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("pieces", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("name", TOLERATED)
async def test_clear_answers_are_taken_and_their_connection_closed(
    moved: str, name: str, *, pieces: bool
) -> None:
    connections: list[int] = []
    async with (
        raw(_says(TOLERATED[name], connections, pieces=pieces)) as url,
        rig(url, budget=ONCE, timeouts=Timeouts()) as here,  # byte by byte takes its time on a busy machine
    ):
        for _ in range(3):
            assert (await here.transport.request(SMALL)).body == b"hello"
    assert len(connections) == (
        4 if moved == "threads" else 3
    )  # only the event loop can go on with the ping's


def _headers(*lines: bytes) -> bytes:
    return OK + b"".join(line + b"\r\n" for line in lines) + b"Content-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize(
    "lines", [[b"X-Long: " + b"x" * 64_000], [b"X-Trace: %d" % number for number in range(990)]]
)
async def test_long_heads_are_read(lines: list[bytes]) -> None:
    async with raw(_says(_headers(*lines), [])) as url, rig(url, budget=ONCE) as here:
        assert (await here.transport.request(SMALL)).body == b"hello"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([b"X-Long: " + b"x" * 70_000], "a header of more than 65536 bytes"),
        ([b"X-Trace: %d" % number for number in range(1_100)], "more than 1000 headers"),
    ],
)
async def test_heads_that_are_too_long_are_called_that(lines: list[bytes], says: str) -> None:
    async with raw(_says(_headers(*lines), [])) as url, rig(url, budget=ONCE) as here:
        with pytest.raises(SiteError, match=says):
            await here.transport.request(SMALL)


@pytest.mark.parametrize("body", [b"hello", b"HTTP/1.1 200 OK\r\nDocker-Content-Digest: evil\r\n\r\n"])
async def test_a_body_after_head_is_never_taken_for_the_next_answer(body: bytes) -> None:
    connections: list[int] = []
    answer = OK + b"X-True: 1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with raw(_says(answer, connections)) as url, rig(url, budget=ONCE) as here:
        for _ in range(3):
            assert (await here.transport.request(HEAD)).headers["X-True"] == "1"
    assert len(connections) == 3


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        OK + b"Content-Length: 5, 6\r\n\r\nhello",
        OK + b"Content-Length: +5\r\nContent-Length: +5\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        OK + b"Content-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
async def test_answers_of_doubtful_length_are_refused(answer: bytes) -> None:
    async with raw(_says(answer, [])) as url, rig(url, budget=ONCE, timeouts=SHORT) as here:
        with pytest.raises(SiteError, match=r"HTTP|sent nothing"):
            await here.transport.request(SMALL)


async def test_a_flood_of_interim_answers_is_refused() -> None:
    flood = b"HTTP/1.1 103 Early Hints\r\n\r\n" * (MAX_INTERIM + 1) + OK + b"Content-Length: 5\r\n\r\nhello"
    async with raw(_says(flood, [])) as url, rig(url, budget=ONCE) as here:
        with pytest.raises(SiteError, match="does not answer in HTTP"):
            await here.transport.request(SMALL)


async def test_good_answers_share_a_connection(moved: str) -> None:
    connections: list[int] = []
    async with raw(_says(OK + b"Content-Length: 5\r\n\r\nhello", connections)) as url, rig(url) as here:
        for _ in range(5):
            assert (await here.transport.request(SMALL)).body == b"hello"
    assert len(connections) == (2 if moved == "threads" else 1)


@given(
    st.lists(
        st.sampled_from(
            [
                b"Content-Length: 5",
                b"content-length:5,5",
                b"Transfer-Encoding: chunked",
                b"A: b,c",
                b"Content-Length: 6",
                b"X:",
            ]
        )
    )
)
def test_a_mended_head_has_one_length_and_all_other_lines(lines: list[bytes]) -> None:
    head = OK + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    better = mended(head)
    if better is None:
        return
    assert better.endswith(b"\r\n\r\n")
    names = [line.partition(b":")[0].lower() for line in better.split(b"\r\n")]
    assert names.count(b"content-length") + names.count(b"transfer-encoding") == 1
    assert [line for line in better.split(b"\r\n") if line in {b"A: b,c", b"X:"}] == [
        line for line in lines if line in {b"A: b,c", b"X:"}
    ]
    assert b"Content-Length: 6" not in head or b"Content-Length: 5" not in head


@pytest.mark.parametrize("status", [200, 500])
async def test_gzip_that_nobody_asked_for_is_undone(status: int) -> None:
    body = b'{"errors": [{"code": "NO", "message": "told in gzip"}]}'

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=gzip.compress(body), headers={"Content-Encoding": "gzip"})

    async with scripted(answer) as server, rig(server.url, budget=ONCE) as here:
        if status == 200:
            assert (await here.transport.request(SMALL)).body == body
        else:
            with pytest.raises(SiteError, match="told in gzip"):
                await here.transport.request(SMALL)


@pytest.mark.parametrize(
    ("body", "encoding", "why"),
    [
        (gzip.compress(b"\0" * 10_000_000), "gzip", "longer than the 1000 bytes"),
        (gzip.compress(b"hello", mtime=0)[:-6], "gzip", "ends early"),
        (b"\x1f\x8b\x08" + b"\xff" * 50, "x-gzip", "damaged"),
        (b"hello", "br", "'br'"),
    ],
)
def test_what_cannot_be_undone_is_named(body: bytes, encoding: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decoded(body, encoding, 1000)


def test_what_only_says_that_it_is_gzip_is_taken_as_it_is() -> None:
    assert decoded(b"{}", "gzip", 10) == b"{}"


async def test_a_gzip_bomb_is_a_failure_of_its_request() -> None:
    bomb = gzip.compress(b" " * 50_000_000)

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with scripted(answer) as server, rig(server.url) as here:
        with pytest.raises(Corrupt, match="longer than"):
            await here.transport.request(SMALL)
