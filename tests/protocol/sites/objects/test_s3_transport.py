"""What an S3 endpoint answers, however hostile, costs neither credentials nor memory nor time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from replicator.errors import Advice, Corrupt, Rejected, SiteError
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.flow.retry import Budget
from replicator.sites.objects.s3 import transport
from replicator.sites.objects.s3.store import S3Store
from replicator.sites.objects.settings import S3Keys
from tests.fakes.s3 import settings
from tests.fakes.scripted import raw, scripted

TOKEN = "the-session-token-is-secret"
KEYS = S3Keys(lambda: "AKIAEXAMPLE", lambda: "the-secret-key-0", lambda: TOKEN)
ONCE = Budget(attempts=1)


@asynccontextmanager
async def store(url: str) -> AsyncIterator[S3Store]:
    made = S3Store(settings(url, "b", keys=KEYS), events=Events(), clock=SystemClock(), budget=ONCE)
    try:
        yield made
    finally:
        await made.aclose()


async def _listed(where: S3Store) -> int:
    return sum([len(page.objects) async for page in where.list("")])


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
    monkeypatch.setattr(transport, "MAX_PAGE_BYTES", 1 << 20)
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
