"""Nexus, whose search needs the repository's key, which only some URLs have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web

from replicator.demo.images import image, index, load
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.sites.registry.site import RegistrySite
from tests.fakes.scripted import Scripted, scripted
from tests.fakes.vendors.nexus import Nexus

PREFIX = "/nexus3/repository/docker-hosted"


@asynccontextmanager
async def behind(fake: Nexus) -> AsyncIterator[Scripted]:
    """Nexus's own address: its API, and the registry below the repository's path."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            path = request.raw_path.removeprefix(PREFIX).removeprefix("/nexus3")
            headers = {name: value for name, value in request.headers.items() if name != "Host"}
            async with session.request(request.method, fake.url + path, headers=headers) as answer:
                kept = {name: value for name, value in answer.headers.items() if name != "Transfer-Encoding"}
                return web.Response(status=answer.status, headers=kept, body=await answer.read())

        async with scripted(forward, ping=False) as server:
            yield server


@pytest.mark.parametrize(("prefix", "searches"), [(PREFIX, 3), ("", 0)], ids=["by path", "by a connector"])
async def test_the_search_lists_where_the_url_names_the_repository(
    monkeypatch: pytest.MonkeyPatch, prefix: str, searches: int
) -> None:
    monkeypatch.setattr(Nexus, "page", 2)
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(Nexus())
        server = await stack.enter_async_context(behind(fake))
        wanted = {}
        for number in range(5):
            built = index([image(f"{number}")]) if number % 2 else image(f"{number}")
            load(fake.store, fake.repository, f"v{number}", built)
            wanted[f"v{number}"] = built.digest
        settings = replace(fake.settings("nexus"), url=f"{server.url}{prefix}")
        site = RegistrySite(settings, events=Events(), clock=SystemClock())
        stack.push_async_callback(site.aclose)
        repository = site.repository(fake.repository)
        found = {one.tag: one.digest async for page in repository.listed({}) for one in page}
        assert found == (wanted if searches else dict.fromkeys(wanted))
        assert fake.count("GET", fake.listing_path) == searches
        assert fake.count("GET", "/tags/list") == (0 if searches else 1)
        assert repository.listing_notice == ""
