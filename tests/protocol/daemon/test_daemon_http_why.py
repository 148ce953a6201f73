"""Why an image is not there, in the API and on its page: escaped, linked from the status page, refused politely."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from replicator.daemon.http.server import listen
from replicator.model.digest import digest_of
from replicator.ports import Missing, Pending, Standing
from tests.fakes.agent import FakeAgent, config, simple_rule

HOSTILE = "<img src=x onerror=alert(1)>"
ONE = digest_of(b"one")


@pytest.fixture
async def agent() -> FakeAgent:
    sites = {name: f"https://{name}.example" for name in ("hub", "fra", "sin")}
    agent = FakeAgent(simple_rule(destinations=("fra", "sin")), loaded=config(sites=sites))
    now = agent.clock.now()
    agent.state.begin("platform", "fra")
    pending = Pending(
        "platform/app", "v1", ONE, now - 60, 2, HOSTILE, "rejected", now + 60, source="platform/app"
    )
    agent.state.record(Missing("platform", "fra", pending))
    agent.known = [
        Standing(
            "platform", "fra", now, pending=1, failed=1, oldest_repository="platform/app", oldest_tag="v1"
        )
    ]
    return agent


@pytest.fixture
async def session(agent: FakeAgent) -> AsyncIterator[aiohttp.ClientSession]:
    async with listen(agent) as url, aiohttp.ClientSession(url) as session:
        yield session


async def test_the_api_explains_what_is_pending(session: aiohttp.ClientSession) -> None:
    asked = {"reference": "hub/platform/app:v1", "at": "fra"}
    async with session.get("/api/v1/why", params=asked) as answer:
        told = await answer.json()
    assert told["verdict"] == "behind"
    (explained,) = told["explanations"]
    assert [step["what"] for step in explained["steps"] if step["verdict"] == "stop"] == [
        "pending",
        "last error",
    ]
    assert "not before" in explained["next"]


@pytest.mark.parametrize("asked", [{}, {"reference": "UPPER:x"}, {"reference": "hub/a:v1", "at": "mars"}])
async def test_what_is_no_question_is_refused(session: aiohttp.ClientSession, asked: dict[str, str]) -> None:
    async with session.get("/api/v1/why", params=asked) as answer:
        assert answer.status == 400
        assert answer.content_type == "application/problem+json"


async def test_asking_the_sites_needs_the_token(session: aiohttp.ClientSession) -> None:
    async with session.post("/api/v1/why", json={"reference": "hub/platform/app:v1"}) as answer:
        assert answer.status == 401


async def test_the_page_explains_and_escapes(session: aiohttp.ClientSession) -> None:
    async with session.get("/why", params={"reference": "fra/platform/app:v1", "at": "fra"}) as answer:
        text = await answer.text()
    assert answer.status == 200
    assert "stops here" in text
    assert HOSTILE not in text
    assert "&lt;img" in text


async def test_the_page_refuses_in_words(session: aiohttp.ClientSession) -> None:
    async with session.get("/why", params={"reference": HOSTILE}) as answer:
        text = await answer.text()
    assert answer.status == 200
    assert "expected [SITE/]REPOSITORY" in text
    assert HOSTILE not in text


async def test_each_row_of_the_status_page_leads_to_it(session: aiohttp.ClientSession) -> None:
    async with session.get("/") as answer:
        text = await answer.text()
    behind = "/why?reference=fra%2Fplatform%2Fapp%3Av1&amp;at=fra&amp;rule=platform"
    assert behind in text
    assert "/why?at=sin&amp;rule=platform" in text
    async with session.get(behind.replace("&amp;", "&")) as answer:
        assert "stops here" in await answer.text()
    async with session.get("/why?at=fra&rule=platform") as answer:
        assert "platform%3Av1" not in await answer.text()
        assert "/why?reference=fra/platform/app%3Av1&amp;at=fra" in await answer.text()
