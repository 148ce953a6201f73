"""What an S3 endpoint answers, however hostile, costs neither credentials nor memory nor time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from replicator.errors import Advice, Corrupt, Rejected, SiteError, TooSlow, Unavailable
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.flow.retry import Budget
from replicator.sites.objects.s3 import transport
from replicator.sites.objects.s3.store import S3Store
from replicator.sites.objects.settings import S3Keys
from replicator.sites.timeouts import Timeouts
from tests.fakes.s3 import settings
from tests.fakes.scripted import head_of, raw, scripted

TOKEN = "the-session-token-is-secret"
KEYS = S3Keys(lambda: "AKIAEXAMPLE", lambda: "the-secret-key-0", lambda: TOKEN)
ONCE = Budget(attempts=1)
SHORT = Timeouts(connect=1.0, first_byte=0.3, read=0.3, commit=0.3)
OK = b'HTTP/1.1 200 OK\r\nETag: "x"\r\n'


@asynccontextmanager
async def store(url: str, **more: Any) -> AsyncIterator[S3Store]:
    made = S3Store(settings(url, "b", keys=KEYS, **more), events=Events(), clock=SystemClock(), budget=ONCE)
    try:
        yield made
    finally:
        await made.aclose()


async def _listed(where: S3Store) -> int:
    return sum([len(page.objects) async for page in where.list("")])


async def _read(where: S3Store) -> int:
    async with where.read("key") as chunks:
        return sum([len(chunk) async for chunk in chunks])


@pytest.mark.parametrize("status", [301, 307])
async def test_redirects_to_nowhere_end(status: int) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status)

    async with scripted(answer, ping=False) as server, store(server.url) as here:
        with pytest.raises(SiteError):
            await _listed(here)
    assert len(server.seen) <= transport.MAX_REQUESTS


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_elsewhere_is_refused_and_takes_nothing_along(status: int) -> None:
    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(body=b"<ListBucketResult/>")

    async with scripted(elsewhere, ping=False) as other:

        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=status, headers={"Location": f"{other.url}/b?sig=SECRET"})

        async with scripted(answer, ping=False) as server, store(server.url) as here:
            with pytest.raises(Rejected, match="redirects to") as caught:
                await _listed(here)
            with pytest.raises(Rejected, match="redirects to"):
                await here.put("key", b"data")
    assert other.seen == []
    assert caught.value.advice is Advice.STOP_SITE
    assert "SECRET" not in str(caught.value)


async def test_a_redirect_within_the_endpoint_is_followed() -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/elsewhere":
            return web.Response(body=b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with scripted(answer, ping=False) as server, store(server.url) as here:
        assert await _listed(here) == 0
    assert len(server.seen) == 2


async def test_redirects_without_end_end() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": f"{request.path}x"})

    async with scripted(answer, ping=False) as server, store(server.url) as here:
        with pytest.raises(SiteError):
            await _listed(here)
    assert len(server.seen) <= transport.MAX_REQUESTS


async def test_a_listing_with_an_endless_body_is_a_named_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_XML_BYTES", 1 << 20)
    sent = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"<ListBucketResult>")
        while True:
            await response.write(b" " * 65536)
            sent += 65536

    async with scripted(answer, ping=False) as server, store(server.url) as here:
        with pytest.raises(Corrupt, match="longer than the"):
            await _listed(here)
    assert sent < 32 << 20


async def test_a_listing_of_empty_pages_without_end_is_a_named_failure() -> None:
    async def answer(_: web.Request) -> web.Response:
        token = len(server.seen)
        page = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
        return web.Response(text=f"<ListBucketResult>{page}</ListBucketResult>")

    async with scripted(answer, ping=False) as server, store(server.url) as here:
        with pytest.raises(Corrupt, match="does not end"):
            await _listed(here)
    assert len(server.seen) < 30


async def test_a_body_goes_out_though_nobody_says_continue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "CONTINUE_SECONDS", 0.1)
    bodies: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"expect: 100-continue" in head.lower()
        bodies.append(await reader.readexactly(4))
        writer.write(b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\n\r\n')
        await writer.drain()

    began = time.monotonic()
    async with raw(talk) as url, store(url) as here:
        await here.put("key", b"data")
    assert bodies == [b"data"]
    assert time.monotonic() - began < 30  # it was ten minutes


async def test_a_store_that_quotes_our_credentials_does_not_bring_them_into_the_error() -> None:
    async def answer(request: web.Request) -> web.Response:
        told = f"you sent {request.headers['x-amz-security-token']} and the-secret-key-0\x1b[2J\r\nforged"
        body = f"<Error><Code>AccessDenied</Code><Message>{told.replace(chr(27), '')}</Message></Error>"
        return web.Response(status=403, text=body)

    async with scripted(answer, ping=False) as server, store(server.url) as here:
        with pytest.raises(SiteError) as caught:
            await _listed(here)
    assert TOKEN not in str(caught.value)
    assert "the-secret-key-0" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "entry", ["<CommonPrefixes>/Prefix></CommonPrefixes>", "<Contents><Key>a</Key></Contents>"]
)
async def test_a_listing_whose_entry_lacks_a_member_is_a_named_failure(entry: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entry}</ListBucketResult>"
        return web.Response(text=text)

    async with scripted(answer, ping=False) as server, store(server.url) as here:
        with pytest.raises(Corrupt, match="an entry of the listing has no"):
            await _listed(here)


@pytest.mark.parametrize(
    "entry",
    [
        "<CommonPrefixes><Prefix>a/</Prefix><Prefix>b/</Prefix></CommonPrefixes>",
        "<Contents><Key>a</Key><Key>b</Key></Contents>",
        "<Contents><Key>a</Key><Size>1</Size><Size>2</Size></Contents>",
    ],
)
async def test_a_listing_whose_entry_has_a_member_twice_is_a_named_failure(entry: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entry}</ListBucketResult>"
        return web.Response(text=text)

    async with scripted(answer, ping=False) as server, store(server.url) as here:
        with pytest.raises(SiteError, match=r"has a member twice|does not answer as S3 does"):
            await _listed(here)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("<Contents/>" * 120_000, "more than the 100000 XML tags"),
        ("<a>" * 60_000 + "</a>" * 60_000, "more than the 100000 XML tags"),
        ("<a>" * 40_000 + "</a>" * 40_000, "does not answer as S3 does"),
    ],
)
async def test_a_page_of_small_elements_is_not_parsed(body: str, told: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=f"<ListBucketResult>{body}</ListBucketResult>")

    async with scripted(answer, ping=False) as server, store(server.url) as here:
        with pytest.raises(SiteError, match=told):
            await _listed(here)


async def test_entities_are_not_expanded() -> None:
    levels = "".join(f'<!ENTITY e{n + 1} "' + f"&e{n};" * 10 + '">' for n in range(9))

    async def answer(_: web.Request) -> web.Response:
        doctype = f'<!DOCTYPE x [<!ENTITY e0 "aaaaaaaaaa">{levels}]>'
        page = "<IsTruncated>false</IsTruncated><Name>&e9;</Name>"
        return web.Response(text=f"{doctype}<ListBucketResult>{page}</ListBucketResult>")

    async with scripted(answer, ping=False) as server, store(server.url) as here:
        with pytest.raises(SiteError, match="500"):  # botocore takes a 200 that it cannot parse for a 500
            await _listed(here)


@pytest.mark.parametrize("tokens", [["a", "b"], []], ids=["repeated", "one object a page"])
async def test_a_listing_that_goes_on_for_ever_is_a_named_failure(
    tokens: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicator.sites.objects.s3.listing.FREE_PAGES", 10)

    async def answer(_: web.Request) -> web.Response:
        number = len(server.seen)
        token = tokens[number % len(tokens)] if tokens else str(number)
        entry = f"<Contents><Key>k{number}</Key><LastModified>2026-01-01T00:00:00Z</LastModified><ETag>x</ETag><Size>1</Size></Contents>"
        page = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>{entry}"
        return web.Response(text=f"<ListBucketResult>{page}</ListBucketResult>")

    async with scripted(answer, ping=False) as server, store(server.url) as here:
        with pytest.raises(Corrupt, match=r"not where|does not end"):
            await _listed(here)
    assert len(server.seen) < 20


async def _dribbled(writer: asyncio.StreamWriter, head: bytes, piece: bytes) -> None:
    writer.write(head)
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (OK + b"Content-Length: 100000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 500 X\r\nContent-Length: 100000\r\n\r\n", b"<"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"-1\r\n"),
    ],
    ids=["body", "headers", "1xx", "error body", "framing"],
)
async def test_a_small_answer_has_a_total_deadline(head: bytes, piece: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await _dribbled(writer, head, piece)

    async with raw(talk) as url, store(url, timeouts=SHORT) as here:
        async with asyncio.timeout(20):
            with pytest.raises(Unavailable):
                await _listed(here)
            with pytest.raises(Unavailable):
                await here.stat("key")


async def test_a_flood_of_interim_answers_ends_at_once() -> None:
    sent = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await head_of(reader)
        while True:
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)
            await writer.drain()
            sent += 100

    async with raw(talk) as url, store(url) as here:
        with pytest.raises(Unavailable):
            await _listed(here)
    assert sent < 1_000_000


async def test_a_blob_must_keep_the_minimum_rate() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await _dribbled(writer, OK + b"Content-Length: 100000\r\n\r\n", b"a")

    async with raw(talk) as url, store(url, timeouts=SHORT) as here:
        with pytest.raises(TooSlow, match=r"timeouts\.minimum_rate"):
            await _read(here)


async def test_a_blob_of_more_than_max_blob_bytes_is_not_read() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b"a" * 300_000, headers={"ETag": '"x"'})

    async with scripted(answer, ping=False) as server, store(server.url, max_blob_bytes=1000) as here:
        with pytest.raises(Rejected, match="max_blob_bytes allows more"):
            await _read(here)


async def test_a_part_that_is_not_taken_ends_and_one_that_makes_progress_does_not() -> None:
    taken = 0

    async def stuck(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await asyncio.Event().wait()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        head = await head_of(reader)
        size = int(head.lower().partition(b"content-length:")[2].split()[0])
        while taken < size:  # many times `read` in all
            taken += len(await reader.read(1 << 20))
            await asyncio.sleep(0.1)
        writer.write(OK + b"Content-Length: 0\r\n\r\n")
        await writer.drain()

    data = b"a" * (8 << 20)
    async with raw(stuck) as url, store(url, timeouts=SHORT) as here:
        with pytest.raises(Unavailable, match=r"timeouts\.read"):
            await here.put("key", data)
    # What the kernel holds counts as gone out: the rest is the time of the answer.
    async with raw(slow) as url, store(url, timeouts=replace(SHORT, read=2.0, commit=30.0)) as here:
        await here.put("key", data)
    assert taken == len(data)


async def test_the_answer_to_a_write_has_the_seconds_of_commit() -> None:
    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await reader.readexactly(4)
        await asyncio.Event().wait()

    async with raw(talk) as url, store(url, timeouts=SHORT) as here:
        with pytest.raises(Unavailable, match=r"no answer within 0.3 s \(timeouts.commit\)"):
            await here.put("key", b"data")
