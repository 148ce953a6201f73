"""A real registry that notifies a real agent: what is pushed is at the destination, long before the next poll."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from replicator.daemon.http.webhooks.waiting import LOOKS_AFTER
from replicator.demo.images import BuiltImage, image
from replicator.model.companion import fallback_tag
from tests.acceptance.agent import Agent, running_agent, write_agent
from tests.acceptance.program import Program, rule
from tests.fakes.distribution import Server, distribution
from tests.fakes.process import free_port
from tests.fakes.referrers import bundle, fallback_index
from tests.fakes.registry import FakeRegistry
from tests.protocol.daemon.test_daemon_http_webhooks import V1, envelope, event

TOKEN = "agent-token"
HOOK_TOKEN = "hook-token"
PATIENCE_SECONDS = 60.0


async def push(
    session: aiohttp.ClientSession, server: Server, repository: str, tag: str, built: BuiltImage
) -> None:
    """Pushes an image as docker does: blobs, then the manifest by tag."""
    base = f"{server.url}/v2/{repository}"
    for digest, content in built.blobs.items():
        async with session.post(f"{base}/blobs/uploads/") as begun:
            location = begun.headers["Location"]
        async with session.put(f"{location}&digest={digest}", data=content) as answer:
            assert answer.status == 201
    headers = {"Content-Type": built.manifest.media_type}
    async with session.put(f"{base}/manifests/{tag}", data=built.manifest.body, headers=headers) as answer:
        assert answer.status == 201


@dataclass
class World:
    agent: Agent
    program: Program
    hub: Server
    fra: FakeRegistry
    session: aiohttp.ClientSession

    async def visible(self, repository: str, tag: str, digest: str | None = None) -> None:
        """Returns once the destination has the tag, at this digest; or the manifest, where `tag` is a digest."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                held = self.fra.store.repositories.get(repository)
                if held is not None and tag in held.manifests:
                    return
                if held is not None and tag in held.tags and digest in {None, held.tags[tag]}:
                    return
                await asyncio.sleep(0.005)

    async def idle(self) -> None:
        """Returns once a first complete look is over and nothing runs."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                async with self.session.get(f"{self.agent.url}/api/v1/runs") as answer:
                    runs = (await answer.json())["runs"]
                if runs and all(run["ended_at"] for run in runs):
                    return
                await asyncio.sleep(0.02)

    async def post(self, body: bytes, authorization: str) -> int:
        headers = {"Content-Type": V1, "Authorization": authorization}
        async with self.session.post(
            f"{self.agent.url}/webhooks/hub", data=io.BytesIO(body), headers=headers
        ) as answer:
            return answer.status


def notifications(port: int, hook: str = "hub") -> dict[str, object]:
    """As docs/webhooks.md has it."""
    endpoint = {
        "name": "replicator",
        "url": f"http://127.0.0.1:{port}/webhooks/{hook}",
        "headers": {"Authorization": [f"Bearer {HOOK_TOKEN}"]},
        "timeout": "2s",
        "threshold": 3,
        "backoff": "1s",
        "ignoredmediatypes": ["application/octet-stream"],
    }
    return {"endpoints": [endpoint]}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    folder = tmp_path / "hub"
    folder.mkdir()
    port = free_port()
    async with aiohttp.ClientSession() as session:
        with distribution(folder) as quiet:  # or it would tell of this once the agent is there
            await push(session, quiet, "platform/first", "v0", image("first", 0))
    with distribution(folder, notifications=notifications(port)) as hub:
        async with FakeRegistry() as fra, aiohttp.ClientSession() as session:
            program = Program(tmp_path)
            hook = f'[http]\ntoken = "{TOKEN}"\n[webhook.hub]\nsite = "hub"\ntoken = "{HOOK_TOKEN}"\n'
            sites = {"hub": hub.url, "fra": fra.url}
            path = write_agent(program, sites, rule(more='interval = "1h"'), hook)
            path.write_text(path.read_text().replace('"127.0.0.1:0"', f'"127.0.0.1:{port}"'))
            async with running_agent(program) as agent:
                world = World(agent, program, hub, fra, session)
                await world.visible("platform/first", "v0")
                await world.idle()
                yield world


async def test_push_is_seen_at_the_destination_at_once(world: World) -> None:
    took = []
    for number in range(5):
        began = time.monotonic()
        await push(world.session, world.hub, "platform/app", f"v{number}", image("app", number))
        await world.visible("platform/app", f"v{number}")
        took.append(time.monotonic() - began)
    assert min(took) < 2, "nothing waits for longer by design, though a busy machine may"
    samples = await world.agent.metrics()
    assert samples['replicator_webhooks_total{hook="hub",outcome="matched"}'] >= 5


async def test_moved_tag_is_seen_again(world: World) -> None:
    await push(world.session, world.hub, "platform/app", "latest", image("app", 1))
    await world.visible("platform/app", "latest")
    second = image("app", 2)
    await push(world.session, world.hub, "platform/app", "latest", second)
    await world.visible("platform/app", "latest", second.digest)


async def test_push_goes_down_a_chain_at_once(tmp_path: Path) -> None:
    port = free_port()
    folders = {name: tmp_path / name for name in ("hub", "fra")}
    for folder in folders.values():
        folder.mkdir()
    built = image("app", 1)
    with (
        distribution(folders["hub"], notifications=notifications(port, "hub")) as hub,
        distribution(folders["fra"], notifications=notifications(port, "fra")) as fra,
    ):
        async with FakeRegistry() as edge, aiohttp.ClientSession() as session:
            await push(session, hub, "platform/first", "v0", image("first", 0))
            program = Program(tmp_path)
            first = rule("first", more='interval = "1h"')
            second = rule("second", destinations=["edge"], more='interval = "1h"').replace('"hub"', '"fra"')
            hooks = "".join(
                f'[webhook.{name}]\nsite = "{name}"\ntoken = "{HOOK_TOKEN}"\n' for name in ("hub", "fra")
            )
            sites = {"hub": hub.url, "fra": fra.url, "edge": edge.url}
            path = write_agent(program, sites, first + second, hooks)
            path.write_text(path.read_text().replace('"127.0.0.1:0"', f'"127.0.0.1:{port}"'))
            async with running_agent(program) as agent:
                world = World(agent, program, hub, edge, session)
                await world.visible("platform/first", "v0")
                await world.idle()
                await push(session, hub, "platform/app", "v1", built)
                await world.visible("platform/app", "v1", built.digest)
                samples = await agent.metrics()
    assert samples['replicator_webhooks_total{hook="fra",outcome="matched"}'] >= 1


async def test_forged_webhook_starts_nothing(world: World) -> None:
    runs = await _run_ids(world)
    for authorization in ("", "Bearer wrong", f"Bearer {TOKEN}"):
        assert await world.post(envelope(), authorization) == 401
    assert await world.post(b" " * (1024 * 1024 + 1), f"Bearer {HOOK_TOKEN}") == 413
    assert await world.post(b"rubbish", f"Bearer {HOOK_TOKEN}") == 400
    assert await _run_ids(world) == runs


async def _flood(world: World, told: dict[str, object]) -> int:
    """Ten thousand events as fast as they are taken. Returns how many runs they became."""
    before, memory = await _run_ids(world), _memory(world.agent.pid)
    body = envelope(*(told for _ in range(500)))
    async with asyncio.TaskGroup() as tasks:
        posts = [tasks.create_task(world.post(body, HOOK_TOKEN)) for _ in range(20)]
    assert {post.result() for post in posts} == {202}
    await asyncio.sleep(LOOKS_AFTER[-1])  # by then it has looked again, if it does
    await world.idle()
    assert _memory(world.agent.pid) - memory < 30_000_000
    return len(await _run_ids(world) - before)


async def test_flood_becomes_one_run_and_memory_stays(world: World) -> None:
    told = event(repository="platform/first", tag="v0", digest=image("first", 0).digest)
    assert await _flood(world, told) == 1
    samples = await world.agent.metrics()
    assert samples['replicator_webhooks_total{hook="hub",outcome="matched"}'] >= 10_000


async def test_flood_that_names_what_never_comes_is_looked_at_as_often_as_one_event(world: World) -> None:
    told = event(repository="platform/first", tag="v0", digest=image("never", 0).digest)
    assert 1 <= await _flood(world, told) <= len(LOOKS_AFTER)


async def test_narrowed_run_never_counts_as_a_complete_look(world: World) -> None:
    name = 'replicator_last_observed_timestamp_seconds{rule="platform"}'
    looked = (await world.agent.metrics())[name]
    await push(world.session, world.hub, "platform/app", "v1", image("app", 1))
    await world.visible("platform/app", "v1")
    await world.idle()
    assert (await world.agent.metrics())[name] == looked


async def test_sync_remote_has_the_agent_do_it(world: World) -> None:
    world.fra.store.repositories["platform/first"].tags.clear()
    ended = await world.program(
        "sync", "--remote", world.agent.url, "--recheck", "--json", environ={"REPLICATOR_TOKEN": TOKEN}
    )
    assert ended.code == 0, ended.stderr
    assert ended.json["outcome"] == "ok"
    assert [each["rule"] for each in ended.json["rules"]] == ["platform"]
    [there] = ended.json["rules"][0]["destinations"]
    assert ended.json["totals"]["requests"] > there["totals"]["requests"] > 0
    assert "v0" in world.fra.store.repositories["platform/first"].tags

    from_config = await world.program("sync", "--remote", world.agent.url)
    assert from_config.code == 0, from_config.stderr
    assert "platform" in from_config.stdout

    refused = await world.program("sync", "--remote", world.agent.url, environ={"REPLICATOR_TOKEN": "wrong"})
    assert refused.code == 1
    assert "token is wrong" in refused.stderr
    unknown = await world.program("sync", "--remote", world.agent.url, "--rule", "nothing")
    assert unknown.code == 2
    assert "unknown rule 'nothing'" in unknown.stderr


async def test_status_remote_shows_where_it_stands(world: World) -> None:
    told = await world.program("status", "--remote", world.agent.url)
    assert told.code == 0, told.stderr
    assert "platform" in told.stdout
    assert "waiting" in told.stdout
    head, row = told.stdout.splitlines()[:2]
    assert head.split()[-5:] == ["STEP", "HELD", "PENDING", "FAILED", "UNKNOWN"]
    assert row.split()[-5:] == ["1", "0", "0", "0", "0"]
    as_json = await world.program("status", "--remote", world.agent.url, "--json")
    assert as_json.json["rules"][0]["destinations"][0]["tags"]["in_step"] == 1
    for url in ("ftp://x", "http://", "http://u:p@h", "http://h:x"):
        assert (await world.program("status", "--remote", url)).code == 2
    agent = f"127.0.0.1:{free_port()}"
    nobody = await world.program("status", "--remote", agent)
    assert nobody.code == 1
    assert nobody.stderr == f"error: http://{agent}: status: cannot connect to {agent}: Connection refused\n"


async def _run_ids(world: World) -> set[str]:
    async with world.session.get(f"{world.agent.url}/api/v1/runs?limit=200") as answer:
        return {run["id"] for run in (await answer.json())["runs"]}


def _memory(pid: int) -> int:
    """Resident bytes of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


async def test_a_signature_that_is_pushed_later_follows_its_image_at_once(world: World) -> None:
    """As cosign 3 pushes it where there is no referrers API: the bundle by digest, then the fallback tag."""
    root = image("signed later", 0)
    await push(world.session, world.hub, "platform/app", "v1", root)
    await world.visible("platform/app", "v1", root.digest)
    signed = bundle(root)
    await push(world.session, world.hub, "platform/app", signed.digest, signed)
    tag = fallback_tag(root.digest)
    await push(world.session, world.hub, "platform/app", tag, fallback_index(signed))
    await world.visible("platform/app", signed.digest)
