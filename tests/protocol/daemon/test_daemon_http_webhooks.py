"""Webhooks at the door: who is let in, what is made of it, and that a flood stays small."""

import asyncio
import functools
import hmac
import io
import tracemalloc
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import aiohttp
import msgspec
import pytest
from msgspec.structs import replace

from replicator.daemon.http.server import listen
from replicator.daemon.http.webhooks import endpoint as webhooks_module
from replicator.daemon.http.webhooks.endpoint import EVENTS_A_TURN, MAX_BODY_BYTES
from replicator.daemon.http.webhooks.hints import Hints
from replicator.daemon.http.webhooks.waiting import BURST_SECONDS, BURST_TAGS, FLOOD_SECONDS, SEEN_SECONDS
from replicator.daemon.triggers import Want
from replicator.engine.context import RunScope
from replicator.errors import StateError
from replicator.events import Observed, RepositoryScanned, TagSeen
from replicator.notifications.format import Hint
from replicator.policy.rule import Rule
from tests.fakes.agent import HMAC_KEY, HOOK_TOKEN, FakeAgent, simple_rule

V1 = "application/vnd.docker.distribution.events.v1+json"
V2 = "application/vnd.docker.distribution.events.v2+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
BEARER = {"Authorization": f"Bearer {HOOK_TOKEN}"}


def event(action: str = "push", repository: str | None = "platform/app", **target: Any) -> dict[str, Any]:
    """One as distribution sends it; a push of `platform/app:v1` unless told otherwise."""
    tag = {"tag": "v1"} if action == "push" and "tag" not in target else {}
    described = {"mediaType": MANIFEST, "size": 1609, "length": 1609, "digest": "sha256:aa", **tag, **target}
    return {
        "id": "3206",
        "timestamp": "2023-11-14T22:13:19.5Z",
        "action": action,
        "target": {"repository": repository, "url": "http://x", "references": [], **described},
        "request": {
            "id": "6df",
            "addr": "10.0.0.7:42",
            "host": "x",
            "method": "PUT",
            "useragent": "docker/27",
        },
        "actor": {"name": "ci"},
        "source": {"addr": "node1:5000", "instanceID": "a53d"},
    }


def envelope(*events: Any) -> bytes:
    return msgspec.json.encode({"events": events or (event(),)})


@dataclass
class World:
    agent: FakeAgent
    session: aiohttp.ClientSession
    counts: Callable[[], dict[str, int]]

    async def post(
        self, body: bytes, headers: dict[str, str] | None = None, *, hook: str = "hub", media_type: str = V1
    ) -> int:
        sent = {"Content-Type": media_type, **(BEARER if headers is None else headers)}
        async with self.session.post(f"/webhooks/{hook}", data=io.BytesIO(body), headers=sent) as answer:
            return answer.status

    async def passed_on(self) -> None:
        """Returns once what came was passed on; the clock jumps there by itself."""
        async with asyncio.timeout(30):
            while not len(self.agent.triggers):  # noqa: ASYNC110 - the loop has to turn for the clock to jump
                await asyncio.sleep(0)

    @property
    def wanted(self) -> dict[str, set[str] | None]:
        """What the rule is to look at in `fra`."""
        want = self.agent.wanted("platform", "fra")
        if want is None:
            return {}
        return {name: None if tags is None else set(tags) for name, tags in want.repositories.items()}


@pytest.fixture
def rule() -> Rule:
    return simple_rule()


@pytest.fixture
async def world(rule: Rule) -> AsyncIterator[World]:
    agent = FakeAgent(rule)
    with agent.webhooks() as counts:
        async with listen(agent) as url, aiohttp.ClientSession(url) as session:
            yield World(agent, session, counts)


@pytest.mark.parametrize("media_type", [V1, V2, "application/json", f"{V2}; charset=utf-8"])
async def test_push_makes_the_rule_look_at_that_tag(world: World, media_type: str) -> None:
    assert await world.post(envelope(), media_type=media_type) == 202
    await world.passed_on()
    assert world.wanted == {"platform/app": {"v1"}}
    want = world.agent.wanted("platform", "fra")
    assert want is not None
    assert not want.whole
    assert want.cause == "webhook"
    assert want.at == pytest.approx(1_699_999_999.5)
    assert world.counts() == {"matched": 1}


async def test_push_by_an_agent_counts_as_any_other(world: World) -> None:
    assert await world.post(envelope({**event(), "request": {"useragent": "replicator/0.1.0"}})) == 202
    await world.passed_on()
    assert world.wanted == {"platform/app": {"v1"}}


async def test_events_time_is_never_in_the_future(world: World) -> None:
    assert await world.post(envelope({**event(), "timestamp": "2999-01-01T00:00:00Z"})) == 202
    now = world.agent.clock.now()
    await world.passed_on()
    want = world.agent.wanted("platform", "fra")
    assert want is not None
    assert want.at is not None
    assert want.at <= now


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {HOOK_TOKEN}"},
        {"Authorization": f"bearer {HOOK_TOKEN}"},
        {"Authorization": HOOK_TOKEN},
    ],
)
async def test_token_is_taken_as_bearer_or_as_it_is(world: World, headers: dict[str, str]) -> None:
    assert await world.post(envelope(), headers) == 202


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {HOOK_TOKEN}"},
        {"Authorization": f"{HOOK_TOKEN} "[:-2]},
        {"Authorization": "Bearer signing-key"},
        {"X-Signature": HOOK_TOKEN},
    ],
)
async def test_forged_token_is_refused_and_nothing_is_looked_at(
    world: World, headers: dict[str, str]
) -> None:
    assert await world.post(envelope(), headers) == 401
    assert not len(world.agent.triggers)
    assert world.counts() == {"unauthorized": 1}


def signature(body: bytes, key: str = HMAC_KEY) -> str:
    return hmac.new(key.encode(), body, "sha256").hexdigest()


async def test_signature_over_the_raw_body_is_taken(world: World) -> None:
    body = envelope() + b"  \n"
    for sent in (signature(body), f"sha256={signature(body)}", signature(body).upper()):
        assert await world.post(body, {"X-Signature": sent}, hook="signed") == 202
    forged = [
        signature(body, "other"),
        signature(body.strip()),
        signature(body)[:-1],
        "",
        "sha256=",
        "\udcff",
    ]
    for sent in forged:
        assert await world.post(body, {"X-Signature": sent}, hook="signed") == 401
    assert await world.post(body, BEARER, hook="signed") == 401
    assert world.counts() == {"matched": 3, "unauthorized": len(forged) + 1}


async def test_unknown_hook_is_not_found(world: World) -> None:
    assert await world.post(envelope(), hook="nowhere") == 404


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (event("delete", tag="v1"), {"platform/app": {"v1"}}),
        (event("delete"), {"platform/app": None}),
        (event("delete", digest="", mediaType=""), {"platform/app": None}),
    ],
)
async def test_deletion_makes_the_rule_look(
    world: World, told: dict[str, Any], wanted: dict[str, set[str] | None]
) -> None:
    assert await world.post(envelope(told)) == 202
    await world.passed_on()
    assert world.wanted == wanted


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        (event("pull", tag="v1"), "ignored"),
        (event("mount", fromRepository="x", tag=""), "ignored"),
        (event("push", tag="", mediaType="application/octet-stream"), "ignored"),
        (event("push", tag=None), "ignored"),
        (event("push", tag="not a tag"), "ignored"),
        (event("push", repository="../../etc"), "ignored"),
        (event("push", repository="other/app"), "unmatched"),
        ({}, "ignored"),
    ],
)
async def test_what_changes_no_selected_tag_is_counted_and_passed_over(
    world: World, told: dict[str, Any], outcome: str
) -> None:
    assert await world.post(envelope(told)) == 202
    assert not len(world.agent.triggers)
    assert world.counts() == {outcome: 1}


async def test_paused_rule_is_not_woken(world: World) -> None:
    world.agent.paused.add("platform")
    assert await world.post(envelope()) == 202
    assert not len(world.agent.triggers)


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"", V1, 400),
        (b"{", V1, 400),
        (b"[]", V1, 400),
        (b'{"events": 7}', V1, 400),
        (b'{"type": "PUSH_ARTIFACT"}', V1, 400),
        (b"\xff\xfe", V1, 400),
        (b"[" * 100_000, V1, 400),
        (b'{"events": []}', "text/plain", 415),
        (b'{"events": []}', "application/cloudevents+json", 415),
        (b'{"events": []}', V1, 202),
        (b'{"events": null}', V1, 202),
    ],
)
async def test_rubbish_is_refused(world: World, body: bytes, media_type: str, status: int) -> None:
    assert await world.post(body, media_type=media_type) == status
    assert world.counts() == ({} if status == 202 else {"malformed": 1})


@pytest.mark.parametrize(
    "odd",
    [
        None,
        7,
        [],
        {"action": "push", "target": None},
        {"target": []},
        event(repository=None),
        event(tag=7),
        event(tag=None),
        {**event(tag="v2"), "Action": "push"},
    ],
)
async def test_odd_event_does_not_spoil_the_good_ones(world: World, odd: Any) -> None:
    assert await world.post(envelope(odd, event(), odd)) == 202
    assert world.counts() == {"ignored": 2, "matched": 1}


@pytest.mark.parametrize(
    "lacking", [{"timestamp": None}, {"timestamp": {}}, {"target": event()["target"] | {"digest": None}}]
)
async def test_push_without_time_or_digest_counts(world: World, lacking: dict[str, Any]) -> None:
    assert await world.post(envelope({**event(), **lacking})) == 202
    assert world.counts() == {"matched": 1}


async def test_compressed_body_is_refused(world: World) -> None:
    assert await world.post(envelope(), {**BEARER, "Content-Encoding": "gzip"}) == 415


async def test_oversized_body_is_refused_without_being_read(world: World) -> None:
    assert await world.post(b" " * (MAX_BODY_BYTES + 1)) == 413

    async def chunked() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 64 * 1024

    sent = {**BEARER, "Content-Type": V1}
    async with world.session.post("/webhooks/hub", data=chunked(), headers=sent) as answer:
        assert answer.status == 413
    assert world.counts() == {"too_large": 2}
    padded = envelope()
    assert await world.post(padded + b" " * (MAX_BODY_BYTES - len(padded))) == 202


async def test_forged_token_is_refused_before_the_body_comes(world: World) -> None:
    let_go = asyncio.Event()

    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await let_go.wait()

    async with asyncio.timeout(30):
        async with world.session.post("/webhooks/hub", data=never(), headers={"Content-Type": V1}) as answer:
            assert answer.status == 401
    let_go.set()


async def test_too_many_at_once_are_told_to_come_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks_module, "MAX_BYTES_IN_HAND", 10_000)
    begun, let_go = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b'{"events"' + b" " * 9_950
        begun.set()
        await let_go.wait()
        yield b": []}"

    async def hold() -> int:
        sent = {**BEARER, "Content-Type": V1}
        async with world.session.post("/webhooks/hub", data=slow(), headers=sent) as answer:
            return answer.status

    holding = asyncio.create_task(hold())
    await begun.wait()
    while (status := await world.post(envelope())) != 503:  # until the first one has arrived
        assert status == 202
    let_go.set()
    assert await holding == 202
    assert await world.post(envelope()) == 202
    assert world.counts()["busy"] == 1


async def test_bodies_that_trickle_take_no_place_from_others(world: World) -> None:
    begun, let_go = asyncio.Event(), asyncio.Event()

    async def trickle() -> AsyncIterator[bytes]:
        yield b"{"
        begun.set()
        await let_go.wait()
        yield b'"events": []}'

    async def hold() -> int:
        sent = {**BEARER, "Content-Type": V1}
        async with world.session.post("/webhooks/hub", data=trickle(), headers=sent) as answer:
            return answer.status

    async with asyncio.TaskGroup() as tasks:
        holding = [tasks.create_task(hold()) for _ in range(40)]
        await begun.wait()
        assert [await world.post(envelope()) for _ in range(5)] == [202] * 5
        let_go.set()
    assert {task.result() for task in holding} == {202}


async def test_body_that_does_not_come_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicator.daemon.http.bodies.BODY_SECONDS", 0.1)
    let_go = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await let_go.wait()

    sent = {**BEARER, "Content-Type": V1}
    async with world.session.post("/webhooks/hub", data=slow(), headers=sent) as answer:
        assert answer.status == 408
    let_go.set()


async def test_a_huge_envelope_leaves_the_loop_its_turns(world: World) -> None:
    seen: list[int] = []

    async def watch() -> None:
        while True:
            seen.append(sum(world.counts().values()))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    events = [
        {"action": "push", "target": {"repository": f"x/{number}", "tag": "v"}} for number in range(5000)
    ]
    assert await world.post(envelope(*events)) == 202
    watching.cancel()
    assert world.counts() == {"unmatched": 5000}
    assert max(after - before for before, after in pairwise(seen)) <= EVENTS_A_TURN


async def test_ten_thousand_events_become_one_small_want(world: World) -> None:
    bodies = [
        envelope(*(event(repository=f"platform/app{number % 50}", tag=f"v{batch}") for number in range(500)))
        for batch in range(20)
    ]
    await world.post(bodies[0])
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for body in bodies:
            assert await world.post(body) == 202
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    await world.passed_on()
    assert len(world.agent.triggers) == 1
    assert len(world.wanted) == 50
    assert world.counts() == {"matched": 10_500}
    assert after - before < 2_000_000  # with what the state in memory keeps
    assert peak - before < 8_000_000


async def test_flood_of_distinct_repositories_becomes_one_whole_look(world: World) -> None:
    for batch in range(10):
        events = (event(repository=f"platform/{batch}/app{number}") for number in range(1_000))
        assert await world.post(envelope(*events)) == 202
    await world.passed_on()
    async with asyncio.timeout(30):
        while not (want := world.agent.wanted("platform", "fra")) or not want.whole:  # noqa: ASYNC110
            await asyncio.sleep(0)
    want = world.agent.wanted("platform", "fra")
    assert want is not None
    assert want.whole
    assert len(want.repositories) <= 1_000


@dataclass
class Looks:
    """Events passed on, with what was wanted because of them, and when.

    `on_look` does what a look does; by default each finds no such tag.
    """

    agent: FakeAgent
    hints: Hints
    at: list[float] = field(default_factory=list)
    wants: list[Want] = field(default_factory=list)
    on_look: Callable[[], None] | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def watch(self) -> None:
        """Takes what is wanted; returns once nothing is on its way any more."""
        began = self.agent.clock.monotonic()
        passing_on = asyncio.create_task(self.hints.run())
        async with asyncio.timeout(30):
            while len(self.hints):
                self._take(began)
                await asyncio.sleep(0)
        self._take(began)
        for task in (passing_on, *self.tasks):
            task.cancel()
        await asyncio.wait([passing_on, *self.tasks])

    def _take(self, began: float) -> None:
        want = self.agent.triggers.take("platform", "fra")
        if want is not None:
            self.at.append(round(self.agent.clock.monotonic() - began, 2))
            self.wants.append(want)
            (self.on_look or self.found_nothing)()

    def saw(self, digest: str | None, rule: str = "platform") -> None:
        """A look for the rule is through with `platform/app:v1` now."""
        self.agent.events.emit(TagSeen(rule, "hub", "platform/app", "v1", digest, "fra"))

    def found_nothing(self) -> None:
        """A look is through with everything that it was asked to look at: there is nothing."""
        emit = self.agent.events.emit
        want = self.wants[-1]
        if want.whole:
            emit(Observed("platform", self.agent.clock.now()))
        for repository, tags in want.repositories.items():
            emit(RepositoryScanned("platform", "hub", repository, "fra"))
            for tag in tags or ():
                emit(TagSeen("platform", "hub", repository, tag, None, "fra", is_absent=True))

    def later(self, seconds: float, do: Callable[[], object]) -> None:
        """Does something so long from now, by the agent's clock."""

        async def wait() -> None:
            await self.agent.clock.sleep(seconds)
            do()

        self.tasks.append(asyncio.create_task(wait()))


@pytest.fixture
def looks(rule: Rule) -> Looks:
    agent = FakeAgent(rule)
    return Looks(agent, Hints(agent))


PUSHED = Hint("platform/app", "v1", None, "sha256:aa")
BEFORE = Hint("platform/app", "v1", None, "sha256:before")


async def test_tag_that_is_not_there_yet_is_looked_at_again(looks: Looks) -> None:
    """Distribution notifies before it writes the tag: seen with 2.8.3, whose tag came 11 ms after our look."""
    looks.hints.add("hub", PUSHED)
    await looks.watch()
    assert looks.at == [0.1, 0.5, 3.0]


@pytest.mark.parametrize("digest", ["sha256:aa", None])
async def test_tag_that_a_look_saw_is_not_looked_at_again(looks: Looks, digest: str | None) -> None:
    looks.on_look = lambda: looks.saw(digest)
    looks.hints.add("hub", PUSHED)
    await looks.watch()
    assert looks.at == [0.1]


async def test_look_that_saw_the_tag_where_it_was_does_not_count(looks: Looks) -> None:
    looks.on_look = lambda: looks.saw("sha256:before")
    looks.hints.add("hub", PUSHED)
    await looks.watch()
    assert looks.at == [0.1, 0.5, 3.0]


async def test_look_for_another_rule_does_not_count(looks: Looks) -> None:
    def look() -> None:
        looks.found_nothing()
        looks.saw("sha256:aa", "other")

    looks.on_look = look
    looks.hints.add("hub", PUSHED)
    await looks.watch()
    assert looks.at == [0.1, 0.5, 3.0]


async def test_look_that_did_not_come_through_is_repeated_until_one_does(looks: Looks) -> None:
    """The source is down: it delays the event, nothing else."""
    looks.on_look = lambda: looks.saw("sha256:aa") if looks.at[-1] > 40 else None
    looks.hints.add("hub", PUSHED)
    await looks.watch()
    assert looks.at == [0.1, 0.5, 3.0, *[pytest.approx(3.0 + wait, abs=0.3) for wait in (3, 9, 21, 45)]]


async def test_event_waits_for_each_destination(rule: Rule) -> None:
    agent = FakeAgent(replace(rule, destinations=("fra", "sin")))
    looks = Looks(agent, Hints(agent))

    def look() -> None:
        agent.triggers.take("platform", "sin")
        looks.saw("sha256:aa")  # at fra

    looks.on_look = look
    looks.hints.add("hub", PUSHED)
    looks.later(
        20.0, lambda: agent.events.emit(TagSeen("platform", "hub", "platform/app", "v1", "sha256:aa", "sin"))
    )
    await looks.watch()
    assert looks.at[:3] == [0.1, 0.5, 3.0]
    assert looks.at[-1] > 10


async def test_event_is_in_the_state_before_its_sender_is_answered_and_until_a_look_answers_it(
    world: World,
) -> None:
    assert await world.post(envelope(event(repository="platform/app", tag="v1"))) == 202
    [kept] = await world.agent.state.events()
    assert (kept.site, kept.repository, kept.tag) == ("hub", "platform/app", "v1")
    await world.passed_on()
    world.agent.events.emit(TagSeen("platform", "hub", "platform/app", "v1", None, "fra"))
    async with asyncio.timeout(30):
        while await world.agent.state.events():  # noqa: ASYNC110 - the state has no event for it
            await asyncio.sleep(0)


async def test_event_that_cannot_be_kept_is_not_accepted(world: World) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise StateError("state: the disk is full")

    world.agent.state.accept_events = fail  # type: ignore[method-assign]
    assert await world.post(envelope(event(repository="platform/app", tag="v1"))) == 503


async def test_event_of_an_earlier_process_is_taken_up(looks: Looks) -> None:
    looks.hints.add("hub", PUSHED)
    await looks.hints.keep()
    later = Looks(looks.agent, Hints(looks.agent))
    later.on_look = lambda: later.saw("sha256:aa")
    passing_on = asyncio.create_task(later.hints.run())
    await asyncio.sleep(0)
    assert len(later.hints) == 1
    passing_on.cancel()
    await asyncio.wait([passing_on])
    await later.watch()
    assert later.at == [0.1]


async def test_merged_flood_is_kept_as_one_event(looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicator.daemon.http.webhooks.waiting.MAX_TAGS", 8)
    for number in range(30):
        looks.hints.add("hub", Hint("platform/app", f"v{number}", None, "sha256:aa"))
        await looks.hints.keep()
    assert [(each.repository, each.tag) for each in await looks.agent.state.events()] == [
        ("platform/app", None)
    ]


async def test_what_a_look_saw_before_the_event_does_not_count(looks: Looks) -> None:
    looks.saw("sha256:aa")
    looks.hints.add("hub", PUSHED)
    await looks.watch()
    assert looks.at == [0.1, 0.5, 3.0]


async def test_tail_of_a_burst_causes_no_look(looks: Looks) -> None:
    looks.on_look = lambda: looks.saw("sha256:aa")
    looks.hints.add("hub", PUSHED)
    await looks.watch()
    assert looks.hints.add("hub", PUSHED)
    assert len(looks.hints) == 0
    looks.agent.clock.advance(SEEN_SECONDS)
    looks.hints.add("hub", PUSHED)
    assert len(looks.hints) == 1


async def test_tag_that_moved_and_came_back_is_looked_at(looks: Looks) -> None:
    looks.on_look = lambda: looks.saw("sha256:aa")
    looks.hints.add("hub", PUSHED)
    await looks.watch()
    looks.on_look = lambda: looks.saw("sha256:before")
    looks.hints.add("hub", BEFORE)
    await looks.watch()
    looks.on_look = lambda: looks.saw("sha256:aa")
    looks.hints.add("hub", PUSHED)
    await looks.watch()
    assert len(looks.at) == 3


async def test_tag_is_not_looked_at_again_while_a_look_is_under_way(looks: Looks) -> None:
    runs, now = looks.agent.runs, looks.agent.clock.now()
    scope = RunScope({"platform/app": frozenset({"v1"})})
    run = runs.begin(
        rule="platform", source="hub", destinations=("fra",), cause="webhook", scope=scope, at=now
    )
    looks.later(2.0, lambda: runs.end(run, None, at=now))
    looks.hints.add("hub", PUSHED)
    await looks.watch()
    assert looks.at == [0.1, 2.0, 3.0]


async def test_deletion_is_looked_at_once(looks: Looks) -> None:
    looks.hints.add("hub", Hint("platform/app", None, None, None))
    await looks.watch()
    assert looks.at == [0.1]


async def test_events_one_upon_the_other_put_off_the_look_no_longer_than_a_burst_lasts(looks: Looks) -> None:
    for number in range(40):
        looks.later(number * 0.06, lambda: looks.hints.add("hub", PUSHED))
    looks.on_look = lambda: looks.saw("sha256:aa")
    looks.hints.add("hub", PUSHED)
    await looks.watch()
    assert looks.at == [pytest.approx(BURST_SECONDS + 0.1, abs=0.06)]


async def test_tag_beside_a_deletion_has_a_second_look_of_its_own(looks: Looks) -> None:
    looks.hints.add("hub", Hint("platform/app", None, None, None))
    looks.hints.add("hub", PUSHED)
    await looks.watch()
    assert looks.at == [0.1, 0.5, 3.0]


async def test_many_tags_wait_for_each_other(looks: Looks) -> None:
    def push(number: int) -> None:
        looks.hints.add("hub", Hint("platform/app", f"v{number}", None, None))

    for number in range(BURST_TAGS + 1):
        push(number)
    for number in range(1, 10):
        looks.later(number * 0.08, functools.partial(push, 1000 + number))
    await looks.watch()
    assert looks.at == [pytest.approx(0.85, abs=0.06)]


async def test_flood_without_an_end_is_looked_at_all_the_same(looks: Looks) -> None:
    def push(number: int) -> None:
        looks.hints.add("hub", Hint("platform/app", f"v{number}", None, None))

    for number in range(BURST_TAGS + 1):
        push(number)
    for number in range(1, 40):
        looks.later(number * 0.05, functools.partial(push, 1000 + number))
    await looks.watch()
    assert looks.at[0] == pytest.approx(BURST_SECONDS, abs=0.06)


async def test_too_many_tags_are_looked_at_by_repository(
    looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicator.daemon.http.webhooks.waiting.MAX_TAGS", 8)
    for number in range(30):
        looks.hints.add("hub", Hint("platform/app", f"v{number}", None, "sha256:aa"))
    assert len(looks.hints) == 1
    await looks.watch()
    assert looks.at == [3.0]
    assert looks.wants[0].repositories == {"platform/app": None}


async def test_too_many_repositories_are_looked_at_as_one_site(
    looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicator.daemon.http.webhooks.waiting.MAX_TAGS", 8)
    for number in range(30):
        looks.hints.add("hub", Hint(f"platform/app{number}", "v1", None, "sha256:aa"))
    assert len(looks.hints) == 1
    await looks.watch()
    assert looks.at == [3.0]
    assert looks.wants[0].whole


async def test_merged_flood_is_looked_at_when_it_has_ended(
    looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of its tags may come too early for a look that the first one caused."""
    monkeypatch.setattr("replicator.daemon.http.webhooks.waiting.MAX_TAGS", 8)

    def push(number: int) -> None:
        looks.hints.add("hub", Hint("platform/app", f"v{number}", None, "sha256:aa"))

    for number in range(30):
        push(number)
    looks.later(2.9, functools.partial(push, 100))
    await looks.watch()
    assert looks.at == [pytest.approx(5.9, abs=0.06)]


async def test_merged_flood_without_an_end_is_looked_at_now_and_then_and_after_its_end(
    looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicator.daemon.http.webhooks.waiting.MAX_TAGS", 8)

    def push(number: int) -> None:
        looks.hints.add("hub", Hint("platform/app", f"v{number}", None, "sha256:aa"))

    push(0)
    for number in range(1, 130):
        looks.later(number * 0.1, functools.partial(push, number))
    await looks.watch()
    floods = [
        at
        for at, want in zip(looks.at, looks.wants, strict=True)
        if want.repositories == {"platform/app": None}
    ]
    assert floods == [pytest.approx(FLOOD_SECONDS, abs=0.2), pytest.approx(12.9 + 3.0, abs=0.1)]


async def test_deleted_tag_that_is_pushed_again_is_looked_at(looks: Looks) -> None:
    def look() -> None:
        looks.found_nothing()
        looks.saw("sha256:aa")

    looks.on_look = look
    looks.hints.add("hub", PUSHED)
    await looks.watch()
    for deletion in (Hint("platform/app", "v1", None, None), Hint("platform/app", None, None, None)):
        looks.hints.add("hub", deletion)
        await looks.watch()
        looks.hints.add("hub", PUSHED)
        assert len(looks.hints) == 1
        await looks.watch()


async def test_flood_at_one_site_leaves_another_alone(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicator.daemon.http.webhooks.waiting.MAX_TAGS", 8)
    agent = FakeAgent(rule, simple_rule("second", "lab"))
    hints = Hints(agent)
    for number in range(30):
        hints.add("hub", Hint("platform/app", f"v{number}", None, "sha256:aa"))
    hints.add("lab", PUSHED)
    assert len(hints) == 2


async def test_event_of_a_tag_that_no_rule_selects_causes_no_look(looks: Looks) -> None:
    assert not looks.hints.add("hub", Hint("other/app", "v1", None, "sha256:aa"))
    assert not looks.hints.add("elsewhere", PUSHED)
    assert len(looks.hints) == 0


async def test_series_of_hooks_exist_before_their_first_event(world: World) -> None:
    async with world.session.get("/metrics") as answer:
        text = await answer.text()
    assert 'replicator_webhooks_total{hook="hub",outcome="matched"} 0.0' in text
    await world.post(envelope())
    async with world.session.get("/metrics") as answer:
        assert 'replicator_webhooks_total{hook="hub",outcome="matched"} 1.0' in await answer.text()
