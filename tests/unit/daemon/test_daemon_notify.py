from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from replicator.config.secrets import Secret
from replicator.config.settings import NotifySettings
from replicator.config.template import FACTS, Template, parse_template
from replicator.daemon.notify import ATTEMPTS, LATER_SECONDS, Notifier
from replicator.events import Event, Events, Warned
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule
from replicator.ports import Missing, Pending, Standing
from replicator.state.store import StoredState, open_state
from tests.fakes.clock import FakeClock

RULES = [Rule("r", "hub", ("fra",), RepositorySelection((Glob.parse("**"),)))]
FAILING = Standing("r", "fra", 0.0, last_error='hub: read tags: "down"')
FINE = Standing("r", "fra", 0.0)


class Receiver:
    """An HTTP server that keeps what it is told."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, str]] = []
        self.statuses: list[int] = []
        """What to answer, in turn; then 200."""
        self.url = ""
        self.answers = asyncio.Event()
        self.answers.set()

    async def take(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        await self.answers.wait()
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/secret", receiver.take)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/secret"
    yield receiver
    await runner.cleanup()


def settings(url: str, *on: str) -> NotifySettings:
    template = parse_template('{"event": "{event}", "text": "{summary}"}')
    secret = Secret("literal", url, {})
    names = frozenset(on or ("failure", "recovery", "stale"))
    return NotifySettings("chat", secret, template, (), names, 3600.0, 5.0)


class Stage:
    def __init__(self, state: StoredState) -> None:
        self.state = state
        self.clock = FakeClock()
        self.seen: list[Event] = []
        self.events = Events()
        self.events.subscribe(self.seen.append)
        self.notifier = Notifier("agent", told=(), state=state, events=self.events, clock=self.clock)

    async def restart(self) -> None:
        await self.notifier.aclose()
        self.notifier = Notifier(
            "agent", told=await self.state.told(), state=self.state, events=self.events, clock=self.clock
        )

    async def look(self, receiver: NotifySettings, standing: Standing, lag: float = 0.0) -> None:
        """Looks, and returns when all is told."""
        self.notifier.look({"chat": receiver}, RULES, [(standing, lag)])
        await self.until(lambda: not self.notifier._tasks)

    async def until(self, is_so: Callable[[], bool]) -> None:
        for _ in range(2000):
            if is_so():
                return
            await asyncio.sleep(0.005)
        raise AssertionError("it never came to that")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    state = await open_state(tmp_path / "state.db", clock=FakeClock())
    stage = Stage(state)
    yield stage
    await stage.notifier.aclose()
    await state.aclose()


async def test_each_change_is_told_once_and_success_never(stage: Stage, receiver: Receiver) -> None:
    chat = settings(receiver.url)
    for standing in (FINE, FINE, FAILING, FAILING, FAILING, FINE, FINE):
        await stage.look(chat, standing)
    assert [body["event"] for body in receiver.bodies] == ["failure", "recovery"]
    assert receiver.bodies[0]["text"] == 'agent: r: hub -> fra: failing: hub: read tags: "down"'


async def test_a_restart_tells_nothing_again_and_the_end_of_what_was_told(
    stage: Stage, receiver: Receiver
) -> None:
    chat = settings(receiver.url)
    await stage.look(chat, FAILING)
    await stage.restart()
    await stage.look(chat, FAILING)
    assert len(receiver.bodies) == 1
    await stage.restart()
    await stage.look(chat, FINE)
    assert [body["event"] for body in receiver.bodies] == ["failure", "recovery"]


async def test_what_is_told_when_the_agent_ends_is_not_told_again(stage: Stage, receiver: Receiver) -> None:
    chat = settings(receiver.url)
    receiver.answers.clear()
    stage.notifier.look({"chat": chat}, RULES, [(FAILING, 0.0)])
    await stage.until(lambda: len(receiver.bodies) == 1)
    restart = asyncio.create_task(stage.restart())
    await asyncio.sleep(0)
    receiver.answers.set()
    await restart
    await stage.look(chat, FAILING)
    assert len(receiver.bodies) == 1


async def test_staleness_is_told_by_lag(stage: Stage, receiver: Receiver) -> None:
    chat = settings(receiver.url)
    for lag in (0, 3600, 3601, 9000, 0):
        await stage.look(chat, FINE, lag)
    assert [body["event"] for body in receiver.bodies] == ["stale", "recovery"]


async def test_only_what_is_wanted_is_told(stage: Stage, receiver: Receiver) -> None:
    chat = settings(receiver.url, "recovery")
    for standing in (FAILING, FINE):
        await stage.look(chat, standing, 9000)
    assert [body["event"] for body in receiver.bodies] == ["recovery"]


async def test_a_tag_that_waits_for_its_next_try_is_still_a_failure(stage: Stage, receiver: Receiver) -> None:
    chat = settings(receiver.url)
    for standing in (FAILING, Standing("r", "fra", 0.0, pending=1, failed=1)):
        await stage.look(chat, standing)
    assert [body["event"] for body in receiver.bodies] == ["failure"]


async def test_the_causes_of_failed_tags_are_named(stage: Stage, receiver: Receiver) -> None:
    for number in range(7):
        cause = f"hub: app: read manifest: {'corrupt' if number < 5 else 'refused'}"
        failed = Pending("app", f"v{number}", None, since=number, attempts=1, error=cause, reason="corrupt")
        stage.state.record(Missing("r", "fra", failed))
    stage.state.record(Missing("r", "fra", Pending("app", "new", None, since=0.0)))
    stage.state.record(Missing("r", "ams", Pending("app", "v1", None, since=0.0, attempts=1, error="x")))
    await stage.state.flush()
    await stage.look(settings(receiver.url), Standing("r", "fra", 0.0, pending=8, failed=7))
    assert receiver.bodies[0]["text"] == (
        "agent: r: hub -> fra: failing: app:v0 and 4 more: hub: app: read manifest: corrupt; "
        "app:v5 and 1 more: hub: app: read manifest: refused"
    )


async def test_a_receiver_that_fails_is_tried_again_then_left_for_a_while(
    stage: Stage, receiver: Receiver
) -> None:
    chat = settings(receiver.url)
    receiver.statuses = [503] * ATTEMPTS
    await stage.look(chat, FAILING)
    assert len(receiver.bodies) == ATTEMPTS
    (warned,) = stage.seen
    assert isinstance(warned, Warned)
    assert "answered 503" in warned.text
    assert "secret" not in warned.text
    await stage.look(chat, FAILING)
    assert len(receiver.bodies) == ATTEMPTS
    stage.clock.advance(LATER_SECONDS + 1)
    await stage.look(chat, FAILING)
    assert len(receiver.bodies) == ATTEMPTS + 1


async def test_a_refusal_is_not_repeated_at_once(stage: Stage, receiver: Receiver) -> None:
    receiver.statuses = [404]
    await stage.look(settings(receiver.url), FAILING)
    assert len(receiver.bodies) == 1


async def test_a_receiver_that_is_not_there_is_a_warning_without_its_url(stage: Stage) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        await stage.look(settings(f"http://127.0.0.1:{nobody.getsockname()[1]}/secret"), FAILING)
    (warned,) = stage.seen
    assert "cannot be reached" in str(warned)
    assert "secret" not in str(warned)


async def test_a_fault_of_ours_is_a_warning_and_does_not_come_again_at_every_look(
    stage: Stage, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(told: object) -> None:
        raise ZeroDivisionError(receiver.url)

    monkeypatch.setattr(stage.state, "tell", broken)
    await stage.look(settings(receiver.url), FAILING)
    stage.notifier._told.clear()
    await stage.look(settings(receiver.url), FAILING)
    assert len(receiver.bodies) == 1
    (warned,) = stage.seen
    assert str(warned.text) == "notify.chat: unexpected ZeroDivisionError"  # type: ignore[union-attr]


async def test_a_command_gets_the_facts_and_none_of_the_configs_secrets(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUB_PASSWORD", "x")
    told = tmp_path / "told"
    code = (
        f"import os, sys; names = sorted({{'HUB_PASSWORD', 'ADDED'}} & set(os.environ));"
        f" open({str(told)!r}, 'w').write(f'{{names}} {{sys.stdin.read()}}')"
    )
    command = replace(
        settings(""),
        url=None,
        command=(sys.executable, "-c", code),
        env={"ADDED": Secret("literal", "x", {})},
    )
    await stage.look(command, FAILING)
    names, _, facts = told.read_text().partition(" ")
    assert names == "['ADDED']"
    assert json.loads(facts)["event"] == "failure"


@given(st.fixed_dictionaries({name: st.text() for name in FACTS}))
def test_whatever_the_facts_hold_the_result_is_json_with_just_them(facts: dict[str, str]) -> None:
    template = Template('{"a": ["{error}", 1, null], "b": {"c": "x {rule}/{destination} {"}}')
    assert json.loads(template.fill(facts)) == {
        "a": [facts["error"], 1, None],
        "b": {"c": f"x {facts['rule']}/{facts['destination']} {{"},
    }
