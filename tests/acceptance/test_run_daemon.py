from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from replicator.demo.images import image, load
from tests.acceptance.agent import PATIENCE_SECONDS, TURN_SECONDS, NotifySocket, running_agent, write_agent
from tests.acceptance.program import Program, rule
from tests.acceptance.test_cli_signals import Held
from tests.fakes.registry import Exchange, FakeRegistry


@dataclass
class World:
    program: Program
    hub: FakeRegistry
    fra: FakeRegistry

    def write(self, more: str = 'interval = "1s"', rest: str = "") -> Path:
        return write_agent(self.program, {"hub": self.hub.url, "fra": self.fra.url}, rule(more=more), rest)

    async def has(self, tag: str, repository: str = "platform/app") -> None:
        """Returns once the destination has the tag."""
        for _ in range(int(PATIENCE_SECONDS / TURN_SECONDS)):
            held = self.fra.store.repositories.get(repository)
            if held is not None and tag in held.tags:
                return
            await asyncio.sleep(TURN_SECONDS)
        raise AssertionError(f"{tag} never came")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with FakeRegistry() as hub, FakeRegistry() as fra:
        load(hub.store, "platform/app", "v1", image("app", 1))
        yield World(Program(tmp_path), hub, fra)


PAIR = '{destination="fra",rule="platform"}'


async def unavailable(exchange: Exchange) -> web.StreamResponse:
    return web.Response(status=503)


async def test_agent_keeps_a_destination_in_step_until_it_is_told_to_end(world: World) -> None:
    world.write()
    async with running_agent(world.program) as agent:
        await world.has("v1")
        load(world.hub.store, "platform/app", "v2", image("app", 2))
        await world.has("v2")
        agent.signal(signal.SIGTERM)
        ended = await agent.end()
    assert ended.code == 0
    assert ended.stdout == ""
    assert '"level":"error"' not in ended.stderr
    assert '"level":"warning"' not in ended.stderr


@pytest.mark.parametrize("abstract", [False, True])
async def test_systemd_is_told_from_start_to_end(world: World, tmp_path: Path, *, abstract: bool) -> None:
    world.write()
    manager = NotifySocket(f"@replicator-test-{tmp_path}" if abstract else str(tmp_path / "notify"))
    environ = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "400000"}
    try:
        async with running_agent(world.program, environ=environ) as agent:
            ready = await manager.receives(READY="1")
            assert ready["STATUS"]
            assert not any("READY" in message for message in manager.messages[:-1])
            await manager.receives(WATCHDOG="1")
            await world.has("v1")
            while "1 of 1 in step" not in (await manager.receives()).get("STATUS", ""):
                pass
            agent.signal(signal.SIGHUP)
            reloading = await manager.receives(RELOADING="1")
            assert int(reloading["MONOTONIC_USEC"]) > 0
            await manager.receives(READY="1")
            await manager.receives(WATCHDOG="1")
            agent.signal(signal.SIGTERM)
            assert (await manager.receives(STOPPING="1"))["STATUS"].startswith("stopping")
            assert (await agent.end()).code == 0
    finally:
        manager.close()


async def test_sigterm_in_mid_blob_drains_and_the_next_start_completes(world: World) -> None:
    held = Held()
    world.hub.fault("GET", "/blobs/", held, times=None)
    world.write()
    async with running_agent(world.program) as agent:
        await held.begun.wait()
        agent.signal(signal.SIGTERM)
        await agent.says("SIGTERM: finishing transfers")
        held.let_go.set()
        ended = await agent.end()
    assert ended.code == 0
    assert not world.fra.store.dangling()
    async with running_agent(world.program) as agent:
        await world.has("v1")
        agent.signal(signal.SIGTERM)
        assert (await agent.end()).code == 0


async def test_a_second_signal_ends_it_at_once(world: World) -> None:
    held = Held()
    world.hub.fault("GET", "/blobs/", held, times=None)
    world.write()
    async with running_agent(world.program) as agent:
        await held.begun.wait()
        agent.signal(signal.SIGTERM)
        await agent.says("SIGTERM: finishing transfers")
        agent.signal(signal.SIGTERM)
        ended = await agent.end()
    held.let_go.set()
    assert ended.code == 143


async def test_killed_in_mid_blob_it_carries_on(world: World) -> None:
    held = Held()
    world.hub.fault("GET", "/blobs/", held)
    world.write()
    async with running_agent(world.program) as agent:
        await held.begun.wait()
        agent.signal(signal.SIGKILL)
        await agent.end()
    held.let_go.set()
    async with running_agent(world.program) as agent:
        await world.has("v1")
        await agent.metric(f"replicator_lag_seconds{PAIR}", lambda lag: lag == 0)
    assert not world.fra.store.dangling()


async def test_a_good_config_is_taken_on_sighup(world: World) -> None:
    path = world.write()
    load(world.hub.store, "other/app", "v1", image("other", 1))
    async with running_agent(world.program) as agent:
        await world.has("v1")
        path.write_text(
            path.read_text() + rule("other", more='interval = "1h"').replace("platform/**", "other/**")
        )
        agent.signal(signal.SIGHUP)
        await agent.says("config reloaded")
        await world.has("v1", "other/app")
        assert (await agent.metrics())["replicator_config_last_reload_successful"] == 1
        path.write_text(path.read_text().replace('name = "platform"', 'name = "renamed"'))
        agent.signal(signal.SIGHUP)
        await agent.says("config reloaded")
        samples = await agent.metrics()
        assert not [name for name in samples if 'rule="platform"' in name]
        assert [name for name in samples if 'rule="renamed"' in name]


async def test_sighup_runs_rules_whose_lists_may_have_changed(world: World) -> None:
    host = world.hub.url.partition("://")[2]
    names = world.program.folder / "list.txt"
    names.write_text(f"{host}/platform/app:v1\n")
    rules = (
        '[[rule]]\nname = "listed"\nsource = "hub"\ndestinations = ["fra"]\ninterval = "1d"\n'
        'images = { files = ["list.txt"] }\n'
    )
    write_agent(world.program, {"hub": world.hub.url, "fra": world.fra.url}, rules)
    load(world.hub.store, "platform/app", "v2", image("app", 2))
    async with running_agent(world.program) as agent:
        await world.has("v1")
        names.write_text(f"{host}/platform/app:v1\n{host}/platform/app:v2\n")
        agent.signal(signal.SIGHUP)
        await world.has("v2")


async def test_a_bad_config_is_refused_whole(world: World) -> None:
    path = world.write()
    async with running_agent(world.program) as agent:
        await world.has("v1")
        good = path.read_text()
        path.write_text(good.replace('source = "hub"', 'source = "hup"'))
        agent.signal(signal.SIGHUP)
        await agent.says("unknown site 'hup'")
        await agent.metric("replicator_config_last_reload_successful", lambda value: value == 0)
        load(world.hub.store, "platform/app", "v2", image("app", 2))
        await world.has("v2")
        path.write_text(good)
        agent.signal(signal.SIGHUP)
        await agent.metric("replicator_config_last_reload_successful", lambda value: value == 1)


async def test_a_reload_leaves_runs_of_unchanged_rules_alone(world: World) -> None:
    held = Held()
    path = world.write()
    world.hub.fault("GET", "/blobs/", held)
    async with running_agent(world.program) as agent:
        await held.begun.wait()
        path.write_text(
            path.read_text() + rule("other", more='interval = "1h"').replace("platform/**", "other/**")
        )
        agent.signal(signal.SIGHUP)
        await agent.says("config reloaded")
        held.let_go.set()
        await world.has("v1")
        runs = 'replicator_runs_total{destination="fra",outcome="interrupted",rule="platform"}'
        await agent.metric(f"replicator_lag_seconds{PAIR}", lambda lag: lag == 0)
        assert (await agent.metrics())[runs] == 0


async def test_beside_a_live_agent_another_one_and_sync_are_refused(world: World) -> None:
    world.write()
    async with running_agent(world.program) as agent:
        sync, second = await world.program("sync"), await world.program("run")
        assert (sync.code, second.code) == (2, 2)
        assert f"process {agent.pid}" in sync.stderr
        assert "--remote" in sync.stderr
        assert f"process {agent.pid}" in second.stderr
        agent.signal(signal.SIGTERM)
        await agent.end()
    assert (await world.program("sync")).code == 0


async def test_beside_a_live_agent_commands_that_only_read_work(world: World) -> None:
    world.write('interval = "1h"')
    async with running_agent(world.program) as agent:
        await world.has("v1")
        await agent.metric(f"replicator_lag_seconds{PAIR}", lambda lag: lag == 0)
        load(world.hub.store, "platform/app", "v2", image("app", 2))
        listed = await world.program("list", "hub", "platform/app")
        status = await world.program("status", "--json")
        plan = await world.program("plan", "--json", "--exit-code")
        agent.signal(signal.SIGTERM)
        assert (await agent.end()).code == 0
    assert (listed.code, listed.stdout.split()) == (0, ["v1", "v2"])
    assert status.code == 0, status.stderr
    assert status.json["rules"][0]["destinations"][0]["tags"]["in_step"] == 1
    assert plan.code == 3, plan.stderr
    (planned,) = plan.json["rules"][0]["destinations"][0]["actions"]
    assert (planned["tag"], planned["outcome"]) == ("v2", "planned")
    assert list(world.fra.store.content("platform/app").tags) == ["v1"]


async def test_lag_grows_while_the_source_is_down_and_recovers_alone(world: World) -> None:
    world.write()
    lag = f"replicator_lag_seconds{PAIR}"
    async with running_agent(world.program) as agent:
        await agent.metric(lag, lambda seconds: seconds == 0)
        await world.has("v1")
        world.hub.fault("GET", "/tags/list", unavailable, times=None)
        first = await agent.metric(lag, lambda seconds: seconds > 2)
        await agent.metric(lag, lambda seconds: seconds > first)
        world.hub.clear_faults()
        await agent.metric(lag, lambda seconds: seconds == 0)


async def test_a_dead_destination_never_delays_the_other_ones(world: World) -> None:
    held = Held()
    async with FakeRegistry() as dead:
        dead.fault("POST", "/blobs/uploads/", held, times=None)
        sites = {"hub": world.hub.url, "fra": world.fra.url, "dead": dead.url}
        write_agent(world.program, sites, rule(destinations=("dead", "fra"), more='interval = "1s"'))
        async with running_agent(world.program):
            await world.has("v1")
            await held.begun.wait()
            load(world.hub.store, "platform/app", "v2", image("app", 2))
            await world.has("v2")
            assert not held.let_go.is_set()
        held.let_go.set()


async def test_taken_address_is_found_before_any_work_begins(tmp_path: Path) -> None:
    async with FakeRegistry() as hub, FakeRegistry() as fra:
        load(hub.store, "platform/app", "v1", image("v1"))
        program = Program(tmp_path)
        path = write_agent(program, {"hub": hub.url, "fra": fra.url}, rule())
        taken = hub.url.rpartition(":")[2]
        path.write_text(path.read_text().replace("127.0.0.1:0", f"127.0.0.1:{taken}"))
        ended = await program("run")
        assert ended.code == 2
        assert (
            f"agent.listen: cannot listen on 127.0.0.1 port {taken}: address already in use" in ended.stderr
        )
        assert hub.requests == []
        assert fra.requests == []
