"""Non-distributable layers with `foreign_layers = true`: from the source, else from the URLs in the manifest."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from msgspec.structs import replace

from replicator.demo.images import BuiltImage, image
from replicator.demo.store import Blob
from replicator.engine.result import DestinationResult
from replicator.errors import Rejected
from replicator.model.descriptor import Descriptor
from replicator.model.digest import digest_of
from replicator.model.manifest import parse_manifest
from replicator.model.mediatypes import OCI_MANIFEST
from tests.acceptance.wired import BLOB_BYTES, Wired, wired
from tests.fakes.auth import Basic
from tests.fakes.clients import registry_site
from tests.fakes.content import FOREIGN_LAYER
from tests.fakes.registry import FakeRegistry
from tests.fakes.scripted import Scripted, scripted

BASE = bytes(range(256)) * (BLOB_BYTES // 256)
DIGEST = digest_of(BASE)
USERS = {"mirror": "not-to-be-told"}


def windows(*urls: str, size: int = len(BASE)) -> BuiltImage:
    """An image with a base layer at these URLs."""
    built = image("windows")
    body = json.loads(built.manifest.body)
    base = {"mediaType": FOREIGN_LAYER, "digest": DIGEST, "size": size, "urls": urls}
    body["layers"].insert(0, base)
    return BuiltImage(parse_manifest(json.dumps(body).encode(), OCI_MANIFEST), built.blobs)


@asynccontextmanager
async def vendor(body: bytes = BASE, break_at: int | None = None) -> AsyncIterator[Scripted]:
    """The server of whoever made the layer; its first answer breaks off after `break_at` bytes."""

    async def serve(request: web.Request) -> web.StreamResponse:
        start = request.http_range.start or 0
        if break_at is not None and not start:
            response = web.StreamResponse(headers={"Content-Length": str(len(body))})
            await response.prepare(request)
            await response.write(body[:break_at])
            assert request.transport is not None
            request.transport.close()
            return response
        told = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        return web.Response(body=body[start:], status=206 if start else 200, headers=told)

    async with scripted(serve, ping=False) as server:
        yield server


async def sync(w: Wired) -> DestinationResult:
    """One run of a rule that copies such layers."""
    async with w.engine() as engine:
        [result] = await engine.sync([replace(w.rule, foreign_layers=True)])
    return result.destinations[0]


def there(w: Wired) -> bool:
    """Whether the destination has the layer."""
    return DIGEST in w.target.store.content("windows").blobs


async def test_the_url_is_asked_without_credentials_for_what_the_source_lacks() -> None:
    async with vendor() as server, wired(source=FakeRegistry(auth=Basic(USERS)), with_login=True) as w:
        url = f"{server.url}/base?signature=a%2Fb"
        w.put("windows", "v1", windows("https://windows.example.invalid/", url))
        result = await sync(w)
        assert result.outcome == "ok", result.failures
        assert there(w)
        assert w.tags() == w.whole
        assert w.source.count("GET", f"/blobs/{DIGEST}") == 1
        [seen] = server.seen
        assert seen.target == "/base?signature=a%2Fb"
        assert not {"Authorization", "Cookie", "Proxy-Authorization"} & set(seen.headers)


async def test_the_source_is_asked_first() -> None:
    async with vendor() as server, wired() as w:
        w.put("windows", "v1", windows(f"{server.url}/base"))
        w.source.store.add_blob("windows", DIGEST, Blob(BASE))
        assert (await sync(w)).outcome == "ok"
        assert there(w)
        assert server.seen == []


async def test_without_the_setting_nothing_is_asked_and_the_image_is_copied() -> None:
    async with vendor() as server, wired() as w:
        w.put("windows", "v1", windows(f"{server.url}/base"))
        assert (await w.sync_one()).outcome == "ok"
        assert w.tags() == w.whole
        assert not there(w)
        assert server.seen == []


async def test_a_reading_that_breaks_goes_on_where_it_broke() -> None:
    async with vendor(break_at=300_000) as server, wired() as w:
        w.put("windows", "v1", windows(f"{server.url}/base"))
        assert (await sync(w)).outcome == "ok"
        assert there(w)
        ranges = [seen.headers.get("Range") for seen in server.seen]
        assert ranges == [None, f"bytes=300000-{len(BASE) - 1}"]


@pytest.mark.parametrize("body", [b"\0" * len(BASE), BASE + b"more", BASE[:-1], b""])
async def test_what_is_not_the_layer_does_not_become_visible(body: bytes) -> None:
    async with vendor(body) as server, wired() as w:
        w.put("windows", "v1", windows(f"{server.url}/base"))
        result = await sync(w)
        assert result.totals.tags.failed == 1
        [failure] = result.failures
        assert failure.site == "source"
        assert "windows" not in w.tags()
        assert not there(w)


async def test_a_redirect_of_the_url_is_followed_by_the_same_rules() -> None:
    async with vendor() as server:

        async def away(request: web.Request) -> web.Response:
            where = {"/good": f"{server.url}/base", "/bad": "http://169.254.169.254/latest"}[request.path]
            return web.Response(status=302, headers={"Location": where})

        async with scripted(away, ping=False) as front, wired() as w:
            w.put("windows", "v1", windows(f"{front.url}/bad"))
            result = await sync(w)
            assert [each.cause for each in result.failures if "169.254.169.254" in each.cause]
            w.put("windows", "v1", windows(f"{front.url}/bad", f"{front.url}/good"))
            assert (await sync(w)).outcome == "ok"
            assert there(w)


async def test_no_more_than_four_urls_are_asked() -> None:
    async def gone(_: web.Request) -> web.Response:
        return web.Response(status=404)

    async with scripted(gone, ping=False) as server, wired() as w:
        w.put("windows", "v1", windows(*(f"{server.url}/{number}" for number in range(9))))
        result = await sync(w)
        assert result.totals.tags.failed == 1
        assert f"{server.url}/3" in result.failures[0].cause
        assert [seen.target for seen in server.seen] == ["/0", "/1", "/2", "/3"]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://layers.example.com/base", "leaves https"),
        ("https://127.0.0.1/base", "loopback"),
        ("https://10.0.0.1/base", "private"),
        ("https://169.254.169.254/base", "link-local"),
        ("https://[::1]/base", "loopback"),
        ("https://user:secret@layers.example.com/base", "user information"),
    ],
)
async def test_a_public_registry_cannot_be_used_to_reach_internal_hosts(url: str, why: str) -> None:
    descriptor = Descriptor(FOREIGN_LAYER, DIGEST, len(BASE), urls=(url,))
    async with registry_site("https://registry.example.com") as site:
        source = site.repository("windows").blob_at(descriptor, url)
        assert source is not None
        with pytest.raises(Rejected, match=why) as caught:
            async with source.open() as chunks:
                await anext(chunks)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://registry.example.com/v2/secret/blobs/sha256:0",
        "https://REGISTRY.example.com:443/v2/secret/blobs/sha256:0",
        "file:///etc/passwd",
        "/v2/other/blobs/sha256:0",
        "//registry.example.com/base",
        "https:///base",
        "https://layers.example.com/a b",
        "https://layers.example.com/\r\nX: y",
        "https://[::1/base",
        "",
    ],
)
async def test_what_is_no_foreign_url_is_not_followed(url: str) -> None:
    descriptor = Descriptor(FOREIGN_LAYER, DIGEST, len(BASE), urls=(url,))
    async with registry_site("https://registry.example.com") as site:
        assert site.repository("windows").blob_at(descriptor, url) is None
