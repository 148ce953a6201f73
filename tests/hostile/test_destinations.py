"""Hostile destinations, token services and whole sites: they cost what goes to them, and `check` names them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from replicator.demo.images import image, load
from tests.acceptance.agent import running_agent, write_agent
from tests.acceptance.program import Program, rule
from tests.fakes.registry import FakeRegistry
from tests.hostile.measured import measured
from tests.hostile.server import (
    CHUNKED,
    Malice,
    broken_framing,
    dribble,
    endless,
    hostile,
    quotes,
    reset,
    says,
    silent,
)
from tests.hostile.test_sources import ESCAPES, PASSWORD, SIGNATURE, TIMEOUTS, assert_clean

OK = b"HTTP/1.1 200 OK\r\n"
UPLOADS: dict[str, Malice] = {
    "start-framing": broken_framing(b"-1\r\n"),
    "start-elsewhere": says(202, b"", Location=f"http://169.254.169.254/x?_state={SIGNATURE}"),
    "start-junk": says(202, b"", Location="http://[::1" + "9" * 5000),
    "start-flood": endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100),
    "start-quoting": quotes(500),
    "start-brackets": says(400, b"<" * 65536),
    "start-escapes": says(403, json.dumps({"errors": [{"code": "DENIED", "message": ESCAPES}]}).encode()),
    "start-endless": endless(b"HTTP/1.1 500 X\r\n\r\n", b"<" * 65536),
}
MANIFESTS: dict[str, Malice] = {
    "put-framing": broken_framing(b"zz\r\n"),
    "put-lies": says(201, b"", Docker_Content_Digest="sha256:" + "0" * 64),
    "put-endless": endless(CHUNKED, b"10000\r\n" + b"a" * 65536 + b"\r\n"),
    "put-reset": reset,
}


async def test_a_hostile_destination_costs_only_what_goes_to_it(tmp_path: Path) -> None:
    async with FakeRegistry() as hub, FakeRegistry() as fra, hostile(fra.url) as front:
        for name in (*UPLOADS, *MANIFESTS, "good0", "good1"):
            load(hub.store, f"platform/{name}", "v1", image(name))
        for name, malice in UPLOADS.items():
            front.on(f"POST /v2/platform/{name}/blobs/uploads", malice)
        for name, malice in MANIFESTS.items():
            front.on(f"PUT /v2/platform/{name}/manifests", malice)
        Program(tmp_path).write_config(
            {"hub": hub.url, "fra": f'{front.url}"\n{TIMEOUTS}username = "mirror"\npassword = "{PASSWORD}'},
            rule(),
        )
        cost = await measured(tmp_path, "sync", "--json", within=150)
        copied = {name for name, content in fra.store.repositories.items() if content.tags}
    report = msgspec.json.decode(cost.stdout)
    failures = [one for each in report["rules"][0]["destinations"] for one in each["failures"]]
    failed = {(one["repository"] or "").removeprefix("platform/") for one in failures}
    assert failed == {*UPLOADS, *MANIFESTS}
    assert copied == {"platform/good0", "platform/good1"}
    assert {one["site"] for one in failures} == {"fra"}
    assert cost.code == 1
    assert_clean(cost, tmp_path)
    assert (cost.peak < 300 << 20, cost.stall < 2.0) == (True, True)


TOKENS: dict[str, Malice] = {
    "quoting": quotes(403),
    "framing": broken_framing(b"-1\r\n"),
    "dribbled": dribble(OK + b"Content-Length: 100000\r\n\r\n", b" "),
    "endless": endless(CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "brackets": says(500, b"<" * 65536),
    "huge": says(200, json.dumps({"token": "x" * 60_000, "expires_in": 10**400}).encode()),
    "redirected": says(307, b"", Location="http://169.254.169.254/token"),
    "silent": silent,
}


@pytest.mark.parametrize("name", [name for name in TOKENS if name not in {"silent", "dribbled", "framing"}])
async def test_a_hostile_token_service_is_named_and_learns_nothing_more(tmp_path: Path, name: str) -> None:
    await _token_service(tmp_path, name)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["silent", "dribbled", "framing"])
async def test_a_token_service_that_lets_us_wait_is_named(tmp_path: Path, name: str) -> None:
    await _token_service(tmp_path, name)


async def _token_service(folder: Path, name: str) -> None:
    """One sync from a registry whose token service is hostile."""
    async with FakeRegistry() as hub, FakeRegistry() as fra, hostile(hub.url) as front:
        challenge = f'Bearer realm="{front.url}/token?x={SIGNATURE}",service="s"'
        front.on("/token", TOKENS[name])
        front.on("/v2/", says(401, b"", WWW_Authenticate=challenge))
        load(hub.store, "platform/app", "v1", image("app"))
        Program(folder).write_config(
            {"hub": f'{front.url}"\n{TIMEOUTS}username = "mirror"\npassword = "{PASSWORD}', "fra": fra.url},
            rule(),
        )
        cost = await measured(folder, "sync", "--json", within=100)
    failures = [
        one for each in json.loads(cost.stdout)["rules"][0]["destinations"] for one in each["failures"]
    ]
    assert cost.code == 1
    assert {one["site"] for one in failures} == {"hub"}
    assert_clean(cost, folder)
    assert (cost.peak < 300 << 20, cost.stall < 2.0) == (True, True)


CHECKS: dict[str, Malice] = {
    "framing": broken_framing(b"-1\r\n"),
    "brackets": says(500, b"<" * 65536, Content_Type="text/html"),
    "escapes": says(403, json.dumps({"errors": [{"code": "DENIED", "message": ESCAPES}]}).encode()),
    "challenge": says(401, b"", WWW_Authenticate='Bearer a="' * 5000),
}


async def test_check_and_copy_end_at_a_hostile_registry(tmp_path: Path) -> None:
    async with FakeRegistry() as honest, hostile() as front:
        load(honest.store, "platform/app", "v1", image("app"))
        for name, malice in CHECKS.items():
            front.on(f" /{name}/v2/", malice)
        sites = {name: f'{front.url}/{name}"\n{TIMEOUTS}docker_config = "' for name in CHECKS}
        text = {
            name: url.replace('docker_config = "', "docker_config = false #") for name, url in sites.items()
        }
        Program(tmp_path).write_config(text | {"hub": honest.url}, "")
        cost = await measured(tmp_path, "check", within=100)
        assert cost.code == 1
        assert all(name in cost.text for name in CHECKS)
        assert "\x1b" not in cost.text
        assert "INFO forged" not in [line[21:32] for line in cost.text.splitlines()]
        assert cost.stall < 2.0
        front.rules.clear()
        front.on("", says(500, b"<" * 65536))
        host = front.url.removeprefix("http://")
        source = honest.url.removeprefix("http://")
        cost = await measured(tmp_path, "copy", f"{source}/platform/app:v1", f"{host}/x/app:v1", within=100)
        assert cost.code == 1
        assert "500" in cost.stderr


async def test_an_agent_beside_a_hostile_source_stays_healthy_and_serves_its_other_rules(
    tmp_path: Path,
) -> None:
    async with FakeRegistry() as hub, FakeRegistry() as fra, hostile() as front:
        front.on("/tags/list|_catalog", says(500, b"<" * 65536))
        front.on("", broken_framing(b"-1\r\n"))
        load(hub.store, "platform/app", "v1", image("app"))
        evil = rule("evil", more='interval = "1s"').replace('source = "hub"', 'source = "evil"')
        program = Program(tmp_path)
        write_agent(
            program,
            {"hub": hub.url, "fra": fra.url, "evil": f'{front.url}"\n{TIMEOUTS}docker_config = false #'},
            evil + rule("good", more='interval = "1s"'),
        )
        async with running_agent(program) as agent:
            await agent.metric(
                'replicator_last_success_timestamp_seconds{destination="fra",rule="good"}', bool
            )
            slowest = 0.0
            for _ in range(30):
                began = asyncio.get_running_loop().time()
                await agent.metrics()
                slowest = max(slowest, asyncio.get_running_loop().time() - began)
                await asyncio.sleep(0.05)
            assert slowest < 3.0
            assert fra.store.content("platform/app").tags
