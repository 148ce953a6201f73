"""Search in the API and on its page: sites side by side, hostile strings escaped, works without a script."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from replicator.daemon.http.server import listen
from replicator.model.digest import digest_of
from replicator.ports.search import Holding, ImageFacts, Move
from tests.fakes.agent import FakeAgent, simple_rule

HOSTILE = "<img src=x onerror=alert(1)>"
ONE, TWO = digest_of(b"one"), digest_of(b"two")


@pytest.fixture
async def agent() -> FakeAgent:
    agent = FakeAgent(simple_rule(destinations=("fra", "sin")))
    now = agent.clock.now()
    agent.index.holdings = [
        Holding("platform", "fra", "platform/app", "v1", ONE, ONE, now, ("platform/app",)),
        Holding("platform", "sin", "platform/app", "v1", None, ONE, now, ("platform/app",), "refused"),
        Holding("platform", "fra", "platform/web", "v2", TWO, TWO, now, ("platform/web",)),
        Holding("platform", "sin", "platform/web", "v2", TWO, TWO, now, ("platform/web",)),
    ]
    agent.index.images = {
        ONE: ImageFacts(ONE, now, "", ("linux/amd64",), {"title": HOSTILE}, ((TWO, 2_000_000),))
    }
    agent.index.history = [
        Move("fra", "platform/app", "v1", ONE, now),
        Move("fra", "platform/app", "v1", TWO, now - 60),
    ]
    return agent


@pytest.fixture
async def session(agent: FakeAgent) -> AsyncIterator[aiohttp.ClientSession]:
    async with listen(agent) as url, aiohttp.ClientSession(url) as session:
        yield session


async def test_the_api_has_sites_side_by_side(session: aiohttp.ClientSession) -> None:
    async with session.get("/api/v1/search", params={"q": "app"}) as answer:
        found = await answer.json()
    assert (found["sites"], found["more"]) == (["hub", "fra", "sin"], False)
    (image,) = found["images"]
    assert [(at["site"], at["state"], at["error"]) for at in image["sites"]] == [
        ("hub", "held", None),
        ("fra", "held", None),
        ("sin", "missing", "refused"),
    ]
    assert (image["bytes"], image["platforms"]) == (2_000_000, ["linux/amd64"])


async def test_what_a_site_lacks(session: aiohttp.ClientSession) -> None:
    async with session.get("/api/v1/search", params={"missing_at": "sin"}) as answer:
        assert [each["repository"] for each in (await answer.json())["images"]] == ["platform/app"]
    for params in ({"missing_at": "nowhere"}, {"q": "colour:red"}, {"q": "x" * 2_000}):
        async with session.get("/api/v1/search", params=params) as answer:
            assert answer.status == 400


async def test_the_page_finds_without_a_script_and_shows_nothing_before_it_is_asked(
    session: aiohttp.ClientSession,
) -> None:
    async with session.get("/search") as answer:
        text = await answer.text()
    assert "<form" in text
    assert "<script" not in text
    assert "platform/app" not in text
    async with session.get("/search", params={"q": "app", "platform": "linux/amd64"}) as answer:
        text = await answer.text()
    assert "platform/app:v1" in text
    assert 'value="linux/amd64"' in text
    async with session.get("/search", params={"q": "app", "site": "sin"}) as answer:
        assert "<option selected>sin</option>" in await answer.text()
    async with session.get("/search", params={"q": "app", "site": "nowhere"}) as answer:
        assert "nowhere: unknown site" in await answer.text()
    async with session.get("/search", params={"behind": "on"}) as answer:
        text = await answer.text()
    assert "platform/app:v1" in text
    assert "platform/web:v2" not in text
    async with session.get("/search", params={"q": f"{HOSTILE}:x"}) as answer:
        assert HOSTILE not in await answer.text()


async def test_the_page_of_an_image_has_layers_places_and_moves_and_escapes_its_labels(
    session: aiohttp.ClientSession,
) -> None:
    async with session.get("/image", params={"repository": "platform/app", "tag": "v1"}) as answer:
        assert answer.status == 200
        text = await answer.text()
    assert HOSTILE not in text
    assert "&lt;img src=x" in text
    for fact in ("2.0 MB", ONE, TWO, "refused", "missing"):
        assert fact in text
    async with session.get("/image", params={"repository": "platform/none", "tag": "v1"}) as answer:
        assert answer.status == 404
