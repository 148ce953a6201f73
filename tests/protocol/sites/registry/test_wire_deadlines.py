"""Nothing is waited for without a deadline, whatever a server does with its bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from replicator.errors import SiteError, Unavailable
from replicator.flow.retry import Budget
from replicator.sites.registry.http import Call
from replicator.sites.timeouts import Timeouts
from tests.fakes.scripted import Rig, head_of, raw, rig

pytestmark = pytest.mark.usefixtures("moved")

ONCE = Budget(attempts=1)
WITHIN = 10.0
"""Far more than any deadline here, far less than "for ever"."""
SHORT = Timeouts(connect=5.0, first_byte=0.3, read=0.3, commit=0.3, minimum_rate=1000)

SMALL = Call("read manifest", "GET", "/v2/a/manifests/v1", repository="a")
BLOB = Call("read blob", "GET", "/v2/a/blobs/x", repository="a")

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _talks(answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await head_of(reader)
        if head.startswith(b"GET /v2/ "):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            head = await head_of(reader)
        await answer(writer)

    return talk


async def _read(here: Rig, call: Call, *, stream: bool) -> None:
    if not stream:
        await here.transport.request(call)
        return
    async with here.transport.stream(call) as reply:
        async for _ in reply.chunks():
            pass


async def _failure(url: str, call: Call, *, stream: bool) -> SiteError:
    async with asyncio.timeout(WITHIN), rig(url, timeouts=SHORT, budget=ONCE) as here:
        with pytest.raises(SiteError) as caught:
            await _read(here, call, stream=stream)
    return caught.value


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stays", [False, True], ids=["closes", "stays"])
@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhello\r\n-1\r\n",
        b"5\r\nhello\r\nHTTP/1.1 502 Bad Gateway\r\n\r\n",
        b"5\r\nhello\r\nzzz\r\n",
        b"5\r\nhelloworld\r\n0\r\n\r\n",
        b"fffffffffffffffffffff\r\nhello\r\n",
    ],
)
async def test_broken_framing_is_a_failure(body: bytes, *, stays: bool, stream: bool) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        await writer.drain()
        await asyncio.sleep(0.05)  # the headers on their own: else the parser refuses them with the body
        writer.write(body)
        await writer.drain()
        if stays:
            await asyncio.Event().wait()

    async with raw(_talks(answer)) as url:
        error = await _failure(url, BLOB if stream else SMALL, stream=stream)
    assert isinstance(error, Unavailable)
    assert error.repository == "a"


async def _dribble(writer: asyncio.StreamWriter, piece: bytes, pause: float) -> None:
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(pause)


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_small_answer_has_a_total_deadline(status: int) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 100000\r\n\r\n" % status)
        await _dribble(writer, b" ", 0.05)

    async with raw(_talks(answer)) as url:
        error = await _failure(url, SMALL, stream=False)
    if status == 200:
        assert "did not finish" in str(error) or "sent nothing" in str(error)
    else:
        assert str(status) in str(error)


@pytest.mark.parametrize(
    "piece", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_flood_of_interim_answers_ends(piece: bytes, *, stream: bool) -> None:
    async with raw(_talks(lambda writer: _dribble(writer, piece, 0.01))) as url:
        error = await _failure(url, BLOB if stream else SMALL, stream=stream)
    assert "sent no answer within 0.3 s" in str(error)
    assert ("timeouts.first_byte" if stream else "timeouts.read") in str(error)


async def test_headers_byte_by_byte_end() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        await _dribble(writer, b"a", 0.02)

    async with raw(_talks(answer)) as url:
        assert "sent no answer within" in str(await _failure(url, SMALL, stream=False))


async def test_blob_slower_than_the_minimum_rate_is_broken_off() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        await _dribble(writer, b" ", 0.02)

    async with raw(_talks(answer)) as url:
        assert "timeouts.minimum_rate" in str(await _failure(url, BLOB, stream=True))


async def test_reader_that_takes_its_time_is_not_blamed_on_the_server() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"a" * 1000)
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.write(b"a" * 1000)
        await writer.drain()
        await asyncio.Event().wait()

    async with (
        raw(_talks(answer)) as url,
        rig(url, timeouts=replace(SHORT, first_byte=5.0), budget=ONCE) as here,
    ):
        total = 0
        async with here.transport.stream(BLOB) as reply:
            async for chunk in reply.chunks():
                total += len(chunk)
                await asyncio.sleep(2 * SHORT.read)
    assert total == 2000


async def _given(*chunks: bytes) -> object:
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_answer_to_an_upload_has_a_deadline_that_no_interim_answer_moves(interim: bytes) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        if interim:
            await _dribble(writer, interim, 0.02)
        await asyncio.Event().wait()

    async with (
        raw(_talks(answer)) as url,
        asyncio.timeout(WITHIN),
        rig(url, timeouts=SHORT, budget=ONCE) as here,
    ):
        call = Call("upload blob", "PUT", "/v2/a/blobs/uploads/1", repository="a", actions="pull,push")
        with pytest.raises(Unavailable, match=r"after all 5 bytes were sent \(timeouts.commit\)"):
            await here.transport.upload(call, lambda: _given(b"hello"), 5, lambda: None)  # type: ignore[arg-type,return-value]


def test_patience_for_a_commit_grows_with_the_size() -> None:
    assert Timeouts().commit_seconds(0) == 900
    assert Timeouts().commit_seconds(100 * 10**9) > 3 * 3600
