"""Commands around runs, and notifications, by the program itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from replicator.demo.images import image, load
from tests.acceptance.agent import PATIENCE_SECONDS, TURN_SECONDS, running_agent, write_agent
from tests.acceptance.program import Program, rule
from tests.fakes.faults import answer
from tests.fakes.registry import FakeRegistry

STAYS = "import os, sys, time; open(sys.argv[1], 'a').write(str(os.getpid()) + chr(10)); time.sleep(600)"
KEEPS = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10)); sys.exit(int(sys.argv[2]))"


@dataclass
class World:
    program: Program
    hub: FakeRegistry
    fra: FakeRegistry

    def command(self, name: str, code: int = 0) -> str:
        """An argv, as TOML, that keeps what it is told in a file."""
        return msgspec.json.encode([sys.executable, "-c", KEEPS, str(self.file(name)), str(code)]).decode()

    def staying(self, name: str) -> str:
        """An argv, as TOML, that writes its pid to a file and goes on until it is killed."""
        return msgspec.json.encode([sys.executable, "-c", STAYS, str(self.file(name))]).decode()

    def file(self, name: str) -> Path:
        return self.program.folder / f"{name}.jsonl"

    def told(self, name: str) -> list[Any]:
        if not self.file(name).exists():
            return []
        return [msgspec.json.decode(line) for line in self.file(name).read_text().splitlines()]

    async def hears(self, name: str, count: int) -> list[Any]:
        """Returns once the command has been told so often."""
        for _ in range(int(PATIENCE_SECONDS / TURN_SECONDS)):
            if len(told := self.told(name)) >= count:
                return told
            await asyncio.sleep(TURN_SECONDS)
        raise AssertionError(f"{name} was told {self.told(name)}")

    def write(self, hooks: str, more: str = "") -> None:
        text = rule(more=f'interval = "1s"\nhooks = {{ {hooks} }}' if hooks else 'interval = "1s"')
        write_agent(self.program, {"hub": self.hub.url, "fra": self.fra.url}, text, more)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with FakeRegistry() as hub, FakeRegistry() as fra:
        load(hub.store, "platform/app", "v1", image("app", 1))
        yield World(Program(tmp_path), hub, fra)


async def test_sync_runs_commands_before_and_after_and_tells_them_what_happens(world: World) -> None:
    world.write(f"before = {world.command('before')}, after = {world.command('after')}")
    ended = await world.program("sync")
    assert ended.code == 0
    (before,) = world.told("before")
    (after,) = world.told("after")
    assert (before["rule"], before["destinations"]) == ("platform", ["fra"])
    assert after["report"]["destinations"][0]["totals"]["tags"]["copied"] == 1


async def test_a_failing_before_stops_the_run_and_is_the_runs_failure(world: World) -> None:
    world.write(f"before = {world.command('before', 3)}, after = {world.command('after')}")
    ended = await world.program("sync", "--json")
    assert ended.code == 1
    (failure,) = ended.json["rules"][0]["destinations"][0]["failures"]
    assert (failure["operation"], failure["reason"]) == ("run the command before", "command")
    assert "ended with 3" in failure["cause"]
    assert "platform/app" not in world.fra.store.repositories
    assert world.told("after")[0]["report"]["destinations"][0]["outcome"] == "failed"
    assert ended.stderr.count("ended with 3") == 1


async def test_commands_are_not_told_the_configs_secrets(world: World) -> None:
    told = world.file("environ")
    keeps = f"import json, os; json.dump(dict(os.environ), open({str(told)!r}, 'w'))"
    command = msgspec.json.encode([sys.executable, "-c", keeps]).decode()
    world.write(f"before = {command}", '[http]\ntoken = { env = "AGENT_TOKEN" }\n')
    given = {"AGENT_TOKEN": "hush", "REPLICATOR_TOKEN": "hush", "LC_ALL": "C.UTF-8"}
    assert (await world.program("sync", environ=given)).code == 0
    environ = msgspec.json.decode(told.read_bytes())
    assert given.keys() & environ.keys() == {"LC_ALL"}


async def test_a_before_that_is_not_required_stops_nothing(world: World) -> None:
    world.write(f"before = {world.command('before', 3)}, before_required = false")
    ended = await world.program("sync")
    assert ended.code == 0
    assert "ended with 3" in ended.stderr
    assert "v1" in world.fra.store.content("platform/app").tags


async def test_sync_waits_with_no_other_rule_for_a_command_and_ends_it_when_told_to_end(world: World) -> None:
    load(world.hub.store, "other/app", "v1", image("other", 1))
    slow = rule(more=f'hooks = {{ before = {world.staying("before")}, timeout = "10m" }}')
    rules = slow + rule("other").replace("platform/**", "other/**")
    write_agent(world.program, {"hub": world.hub.url, "fra": world.fra.url}, rules)
    async with world.program.started("sync", "--json") as running:
        (pid,) = await world.hears("before", 1)
        await running.says("run ended rule=other")
        assert "v1" in world.fra.store.content("other/app").tags
        os.kill(pid, 0)
        running.signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            ended = await running.end()
    assert ended.code == 128 + signal.SIGTERM
    assert [each["destinations"][0]["outcome"] for each in ended.json["rules"]] == ["interrupted", "ok"]
    assert "rule platform: run the command before: killed because" in ended.stderr
    assert "platform/app" not in world.fra.store.repositories
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_the_daemon_runs_them_around_every_run(world: World) -> None:
    world.write(f"before = {world.command('before')}, after = {world.command('after')}")
    async with running_agent(world.program) as agent:
        after = await world.hears("after", 2)
        agent.signal(signal.SIGTERM)
        assert (await agent.end()).code == 0
    assert after[0]["report"]["destinations"][0]["totals"]["tags"]["copied"] == 1
    assert len(world.told("before")) >= 2


async def test_failure_and_recovery_are_told_once_each_across_a_restart(world: World) -> None:
    world.write("", f"[notify.pager]\ncommand = {world.command('pager')}\n")
    world.hub.fault("GET", "/tags/list", answer(status=500), times=None)
    async with running_agent(world.program) as agent:
        (failure,) = await world.hears("pager", 1)
        assert failure["event"] == "failure"
        assert failure["rule"] == "platform"
        assert "500" in failure["error"]
        agent.signal(signal.SIGTERM)
        await agent.end()
    async with running_agent(world.program) as agent:
        runs = 'replicator_runs_total{destination="fra",outcome="failed",rule="platform"}'
        await agent.metric(runs, lambda count: count >= 1)
        assert len(world.told("pager")) == 1
        world.hub.clear_faults()
        told = await world.hears("pager", 2)
    assert [each["event"] for each in told] == ["failure", "recovery"]
