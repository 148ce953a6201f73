"""The stream of events, and the page as markup."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from replicator.daemon.http.api import stream as stream_module
from replicator.daemon.http.api.agents import moment
from replicator.daemon.http.api.facts import Facts
from replicator.daemon.http.api.live import Live
from replicator.daemon.http.api.shapes import FlowInfo, SiteInfo, Status
from replicator.daemon.http.api.stream import MAX_CLIENTS, Stream
from replicator.daemon.http.page.page import render
from replicator.daemon.http.server import listen
from replicator.engine.result import DestinationResult, Failure, RuleResult
from replicator.ports import Standing
from tests.fakes.agent import TOKEN, FakeAgent, simple_rule

HOSTILE = "</td></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x00\u202e"


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent()


@pytest.fixture
async def session(agent: FakeAgent) -> AsyncIterator[aiohttp.ClientSession]:
    async with listen(agent) as url, aiohttp.ClientSession(url) as session:
        yield session


async def next_status(answer: aiohttp.ClientResponse) -> Any:
    while line := await answer.content.readline():
        if line.startswith(b"data: "):
            return msgspec.json.decode(line[6:])
    raise AssertionError("the stream ended")


async def test_changes_are_sent_as_they_happen(
    agent: FakeAgent, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "TURN_SECONDS", 0.02)
    async with session.get("/api/v1/events") as answer:
        assert answer.content_type == "text/event-stream"
        assert not (await next_status(answer))["rules"][0]["paused"]
        agent.paused.add("platform")
        agent.clock.advance(1)
        assert (await next_status(answer))["rules"][0]["paused"]


async def test_silence_is_broken_by_a_heartbeat(
    agent: FakeAgent, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "TURN_SECONDS", 0.02)
    async with session.get("/api/v1/events") as answer:
        await next_status(answer)
        agent.clock.advance(stream_module.HEARTBEAT_SECONDS)
        async with asyncio.timeout(30):
            while not (await answer.content.readline()).startswith(b":"):
                pass


async def test_only_so_many_may_listen_and_who_leaves_makes_room(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "TURN_SECONDS", 0.02)
    monkeypatch.setattr(
        stream_module, "HEARTBEAT_SECONDS", 0.0
    )  # each turn writes, and so finds out who left
    listening = [await session.get("/api/v1/events") for _ in range(MAX_CLIENTS)]
    async with session.get("/api/v1/events") as answer:
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "30"
    listening.pop().close()
    async with asyncio.timeout(30):
        while True:
            answer = await session.get("/api/v1/events")
            listening.append(answer)
            if answer.status == 200:
                break
    for each in listening:
        each.close()


async def test_listeners_do_not_hold_up_the_end(agent: FakeAgent) -> None:
    async with aiohttp.ClientSession() as session:
        async with listen(agent) as url:
            answer = await session.get(f"{url}/api/v1/events")
            await next_status(answer)
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 2
        await answer.content.read()  # ends of itself
        answer.close()


async def test_other_sites_pages_may_not_listen_and_the_token_makes_room(
    agent: FakeAgent, session: aiohttp.ClientSession
) -> None:
    async with session.get("/api/v1/events", headers={"Sec-Fetch-Site": "cross-site"}) as refused:
        assert refused.status == 403
    listening = [await session.get("/api/v1/events") for _ in range(MAX_CLIENTS)]
    assert {answer.status for answer in listening} == {200}
    async with session.get("/api/v1/events") as refused:
        assert refused.status == 503
    owner = await session.get("/api/v1/events", headers={"Authorization": f"Bearer {TOKEN}"})
    assert owner.status == 200
    await listening[0].content.read()  # ends of itself
    for answer in (*listening, owner):
        answer.close()


class _Tags(HTMLParser):
    """What a browser would make of it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def _parsed(text: str) -> _Tags:
    tags = _Tags()
    tags.feed(text)
    return tags


def _status(**facts: object) -> Status:
    """A status with these facts, else empty."""
    empty: dict[str, object] = {"agent": "here", "version": "1", "started_at": moment(1.7e9 - 60)}
    lists = dict.fromkeys(
        ("problems", "sites", "flows", "rules", "running", "moving", "transfers", "waits", "failures"), ()
    )
    return Status(**{**empty, **lists, **facts})  # type: ignore[arg-type]


def test_one_peer_does_not_keep_others_from_listening() -> None:
    agent = FakeAgent()
    stream = Stream(Facts(agent, Live(agent.clock)), agent.clock)

    def listens(peer: str, *, trusted: bool = False) -> bool:
        listener = stream_module._Listener(peer, trusted)
        room = stream._has_room(listener)
        if room:
            stream._listeners.append(listener)
        return room

    assert all(listens("flood") for _ in range(MAX_CLIENTS))
    assert not listens("flood")
    others = sum(listens("other") for _ in range(MAX_CLIENTS))
    assert MAX_CLIENTS // 2 - 1 <= others <= MAX_CLIENTS // 2
    assert not listens("other")
    assert listens("flood", trusted=True)
    left = [each.peer for each in stream._listeners if each.leave.is_set()]
    assert left.count("flood") == others + 1
    assert len(stream._listeners) - len(left) == MAX_CLIENTS


async def test_hostile_strings_stay_text(agent: FakeAgent, session: aiohttp.ClientSession) -> None:
    now = agent.clock.now()
    agent.config = dataclasses.replace(agent.config, agent=replace(agent.config.agent, name=HOSTILE))
    agent.problems = [HOSTILE]
    agent.known = [Standing("platform", "fra", now - 9, last_look=now, failed=1, last_error=HOSTILE)]
    run = agent.runs.begin(
        rule="platform", source="hub", destinations=("fra",), cause="interval", scope=None, at=now - 9
    )
    failure = Failure(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    agent.runs.end(run, RuleResult("platform", "hub", [DestinationResult("fra", failures=[failure])]), at=now)
    async with session.get("/") as answer:
        text = await answer.text()
    page = _parsed(text)
    assert [attributes for tag, attributes in page.seen if tag == "script"] == [
        {"src": "/static/page.js", "defer": None}
    ]
    assert not [tag for tag, _ in page.seen if tag in {"img", "style", "iframe"}]
    assert not [
        name for _, attributes in page.seen for name in attributes if name.startswith("on") or name == "style"
    ]
    assert page.text.count("alert(1)") >= 5


async def test_page_has_the_facts_without_a_script(agent: FakeAgent, session: aiohttp.ClientSession) -> None:
    now = agent.clock.now()
    agent.known = [
        Standing("platform", "fra", now - 900, last_look=now, in_step=41, pending=1, oldest_pending=now - 125)
    ]
    agent.next_runs["platform"] = now + 61
    async with session.get("/") as answer:
        text = _parsed(await answer.text()).text
    for fact in ("hub", "fra", "platform", "behind", "2 min 5 s", "41 in step, 1 pending", "in 1 min 1 s"):
        assert fact in text, fact


async def test_files_of_the_page_are_sent_once(session: aiohttp.ClientSession) -> None:
    async with session.get("/static/page.js") as answer:
        assert answer.content_type == "text/javascript"
        tag = answer.headers["ETag"]
    async with session.get("/static/page.js", headers={"If-None-Match": tag}) as answer:
        assert answer.status == 304
    for name in ("nothing", "..%2fpage.py", "%2e%2e/server.py", "page.css%00"):
        async with session.get(f"/static/{name}") as answer:
            assert answer.status == 404, name


@given(st.text(), st.text())
def test_no_text_becomes_markup(name: str, problem: str) -> None:
    page = _parsed(render(_status(agent=name, problems=[problem]), 1.7e9))
    plain = _parsed(render(_status(agent="x", problems=["y"]), 1.7e9))
    assert page.seen == plain.seen


_NAMES = st.sampled_from(["hub", "fra", "sin", "edge", "near"])


@given(st.lists(st.tuples(_NAMES, _NAMES, st.booleans()), max_size=12, unique_by=lambda flow: flow[:2]))
def test_any_sites_and_flows_can_be_drawn_in_circles_too(pairs: list[tuple[str, str, bool]]) -> None:
    names = sorted({name for source, destination, _ in pairs for name in (source, destination)})
    sites = [SiteInfo(name, f"https://{name}", ["source"], None) for name in names]
    flows = [FlowInfo(source, to, mirror, ["r"], 1.0, 5.0, "ok") for source, to, mirror in pairs]
    page = _parsed(render(_status(sites=sites, flows=flows), 1.7e9))
    lines = [attributes for tag, attributes in page.seen if tag == "path" and "marker-end" in attributes]
    assert len(lines) == len(flows)
    assert len({line["d"] for line in lines}) == len(flows)
    (svg,) = (attributes for tag, attributes in page.seen if tag == "svg")
    width, height = float(svg["width"] or 0), float(svg["height"] or 0)
    for tag, box in page.seen:
        if tag == "rect":
            assert 0 < float(box["x"] or 0) < float(box["x"] or 0) + float(box["width"] or 0) < width
            assert 0 < float(box["y"] or 0) < float(box["y"] or 0) + float(box["height"] or 0) < height


async def test_rule_names_of_many_destinations_all_stand_there() -> None:
    places = [f"place{number}" for number in range(40)]
    async with (
        listen(FakeAgent(simple_rule(destinations=places))) as url,
        aiohttp.ClientSession(url) as session,
        session.get("/") as answer,
    ):
        text = _parsed(await answer.text()).text
    assert all(place in text for place in places)
