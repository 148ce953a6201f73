"""Hostile clients of `serve` and of the agent, as processes: wrong passwords, what is not HTTP, idle connections, webhooks."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import bcrypt
import pytest

from replicator.demo.images import image, load
from replicator.model.mediatypes import OCI_MANIFEST
from tests.acceptance.agent import write_agent
from tests.acceptance.program import Program, rule
from tests.acceptance.test_serve import fill
from tests.fakes.registry import FakeRegistry
from tests.hostile.measured import Probed, probed
from tests.hostile.test_sources import assert_clean

PATIENCE_SECONDS = 60.0
HOOK_TOKEN = "planted-hook-token-0815"


async def address_of(running: Probed, said: str) -> tuple[str, int]:
    """Where the program listens, once it says so."""
    line = await running.says(said)
    found = re.search(r'url"?[=:]"?https?://([0-9.]+):([0-9]+)', line)
    assert found is not None, line
    return found[1], int(found[2])


def login(user: str, password: str) -> dict[str, str]:
    """The header of a request that shows them."""
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


async def ask(host: str, port: int, data: bytes) -> bytes:
    """One connection: what is answered until the server closes it; empty where it is closed without an answer."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(data)
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_wrong_passwords_on_200_connections_do_not_lock_out_the_right_one(tmp_path: Path) -> None:
    await fill(tmp_path / "shelf", "oci")
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(8)).decode()
    (tmp_path / "htpasswd").write_text(f"ann:{hashed}\n")
    arguments = ("serve", "./shelf", "--listen", "127.0.0.1:0", "--htpasswd", "htpasswd")
    async with probed(tmp_path, *arguments) as running:
        host, port = await address_of(running, "serving")
        refused = 0
        many = asyncio.Event()

        async def guess(number: int) -> None:
            nonlocal refused
            async with aiohttp.ClientSession(headers=login(f"user{number % 20}", "wrong")) as client:
                while True:
                    async with client.get(f"http://{host}:{port}/v2/") as reply:
                        assert reply.status in {401, 429, 503}
                    refused += 1
                    if refused >= 50:
                        many.set()

        answers: list[int] = []
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(guess(number)) for number in range(200)]
            async with asyncio.timeout(PATIENCE_SECONDS):
                await many.wait()
                async with aiohttp.ClientSession(headers=login("ann", "right")) as ann:
                    while answers.count(200) < 5:
                        async with ann.get(f"http://{host}:{port}/v2/team/app/manifests/v1") as reply:
                            answers.append(reply.status)
            for task in tasks:
                task.cancel()
        cost = await running.end()
    # She comes from the same address as all of them, so she is refused until one of its places is free, and comes again
    # at once, unlike a client that heeds Retry-After. Once known, she never is.
    first = answers.index(200)
    assert set(answers[:first]) <= {429, 503}
    assert answers[first:] == [200] * 5
    assert cost.code == 0
    assert (cost.peak < 300 << 20, cost.stall < 2.0) == (True, True)


MALFORMED = [
    b"\x16\x03\x01\x02\x00 not HTTP at all, 34 B\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nBad Header\r\n\r\n",
]


async def at_once(host: str, port: int, requests: Sequence[bytes]) -> list[bytes]:
    """What each is answered."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(host, port, each)) for each in requests]
    return [task.result() for task in tasks]


def request(path: str, host: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


@asynccontextmanager
async def started(folder: Path, command: str) -> AsyncIterator[tuple[Probed, str, int, str]]:
    """`serve` or an agent: the process, where it listens, and a path that answers 200 to everybody."""
    if command == "serve":
        await fill(folder / "shelf", "oci")
        arguments, said, path = ["serve", "./shelf", "--listen", "127.0.0.1:0"], "serving", "/v2/"
    else:
        nowhere = {"hub": "http://127.0.0.1:1", "fra": "http://127.0.0.1:1"}
        write_agent(Program(folder), nowhere, rule(more='interval = "1h"'))
        arguments, said, path = ["run", "--log-format", "json"], '"message":"listening"', "/healthz"
    async with probed(folder, *arguments) as running:
        host, port = await address_of(running, said)
        yield running, host, port, path


@pytest.mark.parametrize("command", ["serve", "run"])
async def test_what_is_not_http_costs_one_line_of_the_log(tmp_path: Path, command: str) -> None:
    async with started(tmp_path, command) as (running, host, port, path):
        for _ in range(10):
            answers = await at_once(host, port, [MALFORMED[number % 2] for number in range(30)])
            assert all(b" 400 " in answer.partition(b"\r\n")[0] for answer in answers if answer)
            assert not any(b"aiohttp" in answer or b"Python" in answer for answer in answers)
        good = await ask(host, port, request(path, host))
        cost = await running.end()
    assert b" 200 " in good.partition(b"\r\n")[0]
    told = [line for line in cost.stderr.splitlines() if "malformed" in line]
    assert len(told) == 1, told
    assert len(cost.stderr.splitlines()) < 30


@pytest.mark.parametrize("command", ["serve", "run"])
async def test_idle_connections_do_not_close_the_service(tmp_path: Path, command: str) -> None:
    async with started(tmp_path, command) as (running, host, port, path):
        idle = [await asyncio.open_connection(host, port) for _ in range(600)]
        for _, writer in idle[::2]:
            writer.write(b"GET / HTTP/1.1\r\nHost:")  # half of a head
        paths = ["/metrics", path] if command == "serve" else ["/metrics", "/healthz", "/api/v1/rules"]
        answers = [await ask(host, port, request(each, host)) for each in paths * 3]
        for _, writer in idle:
            writer.transport.abort()
        cost = await running.end()
    assert {answer.split(b" ", 2)[1] for answer in answers} == {b"200"}
    assert cost.stall < 2.0


def event(repository: str, tag: str) -> bytes:
    """An envelope of one push."""
    target = {"mediaType": OCI_MANIFEST, "repository": repository, "tag": tag}
    return json.dumps({"events": [{"id": "1", "action": "push", "target": target}]}).encode()


def post(body: bytes, token: str = HOOK_TOKEN, length: int | None = None) -> bytes:
    """A request of a sender; with a `length`, one whose body does not come."""
    head = f"POST /webhooks/hub HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
    size = len(body) if length is None else length
    return f"{head}Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n".encode() + body


BODIES = [
    b"[" * 900_000,
    b'{"events":[' + b"[]," * 300_000 + b"[]]}",
    b'{"events":[' + b'{"action":"push"},' * 50_000 + b"{}]}",
    b"\xff" * 1000,
    b'{"events":' + b"9" * 5000 + b"}",
    event("platform/\x1b[2J\u202e\r\n2026 INFO forged", "v1"),
    event("../" * 1000, "v1"),
    event("platform/app", "v" * 100_000),
    b" " * 1_100_000,
    json.dumps({"events": json.loads(event("platform/app", "v1"))["events"] * 3000}).encode(),
]


async def arrives(there: FakeRegistry, tag: str) -> None:
    """Waits for the tag of `platform/app`, which another process writes."""
    repositories = there.store.repositories
    async with asyncio.timeout(PATIENCE_SECONDS):
        while "platform/app" not in repositories or tag not in repositories["platform/app"].tags:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_hostile_sender_of_webhooks_does_not_keep_out_the_events_of_others(tmp_path: Path) -> None:
    async with FakeRegistry() as hub, FakeRegistry() as fra:
        load(hub.store, "platform/app", "v1", image("app"))
        hook = f'[webhook.hub]\nsite = "hub"\ntoken = "{HOOK_TOKEN}"\n'
        write_agent(Program(tmp_path), {"hub": hub.url, "fra": fra.url}, rule(more='interval = "1h"'), hook)
        async with probed(tmp_path, "run", "--log-format", "json") as running:
            host, port = await address_of(running, '"message":"listening"')
            await arrives(fra, "v1")
            trickling = [await asyncio.open_connection(host, port) for _ in range(100)]
            for number, (_, writer) in enumerate(trickling):
                writer.write(post(b"{", HOOK_TOKEN if number % 2 else f"wrong-{number}", length=9))
            answers = await at_once(host, port, [post(body) for body in BODIES])
            forged = await at_once(host, port, [post(event("platform/app", "v2"), "wrong")] * 100)
            load(hub.store, "platform/app", "v2", image("new"))
            good = await ask(host, port, post(event("platform/app", "v2")))
            await arrives(fra, "v2")
            for _, writer in trickling:
                writer.transport.abort()
            cost = await running.end()
    assert b" 202 " in good[:20]
    assert {answer[9:12] for answer in forged} <= {b"401", b"403", b"503"}
    assert {answer[9:12] for answer in answers} <= {b"202", b"400", b"413", b"503"}
    assert_clean(cost, tmp_path)
    assert HOOK_TOKEN not in cost.text
    assert (cost.peak < 300 << 20, cost.stall < 2.0) == (True, True)
