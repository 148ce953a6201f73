"""Hostile proxies cost the sites behind them, and never learn or show more than their own login."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from replicator.demo.images import image, load
from tests.acceptance.program import Program, rule
from tests.fakes.registry import FakeRegistry
from tests.hostile.measured import measured
from tests.hostile.server import (
    CHUNKED,
    Asked,
    Malice,
    broken_framing,
    dribble,
    endless,
    hostile,
    reset,
    says,
    silent,
)
from tests.hostile.test_sources import ESCAPES, OK, PASSWORD, SIGNATURE, TIMEOUTS, assert_clean


async def quotes_login(asked: Asked) -> None:
    """A 407 that quotes what it was shown."""
    sent = asked.headers.get("proxy-authorization", "none")
    text = f"you sent {sent} ({sent.encode().hex()}) {PASSWORD}\r\n{ESCAPES}"
    await asked.answer(407, text.encode(), Proxy_Authenticate='Basic realm="x"', X_Sent=sent)


PLAIN: dict[str, Malice] = {
    "quoting": quotes_login,
    "framing": broken_framing(b"-1\r\n"),
    "brackets": says(502, b"<" * 65536, Content_Type="text/html"),
    "escapes": says(502, json.dumps({"errors": [{"code": "X\x1b[1m", "message": ESCAPES}]}).encode()),
    "endless": endless(CHUNKED, b"10000\r\n" + b"<" * 65536 + b"\r\n"),
    "endless-head": endless(OK, b"X-A: " + b"a" * 60_000 + b"\r\n"),
    "interim-flood": endless(b"", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" * 100),
    "redirect": says(307, b"", Location=f"http://169.254.169.254/?X-Amz-Signature={SIGNATURE}"),
    "maintenance": says(200, b'{"status":"maintenance"}', Content_Type="application/json"),
    "reset": reset,
    "dribbled": dribble(OK + b"Content-Length: 100000\r\n\r\n", b" "),
    "silent": silent,
}
TUNNELS: dict[str, Malice] = {
    "tls-quoting": quotes_login,
    "tls-junk": endless(b"HTTP/1.1 200 OK\r\n\r\n", b"\x00" * 65536),
    "tls-endless-head": endless(b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"a" * 60_000 + b"\r\n"),
    "tls-reset": reset,
    "tls-silent": silent,
    "tls-dribbled": dribble(b"HTTP/1.1 200 ", b"O"),
}
SLOW = frozenset({"silent", "dribbled", "tls-silent", "tls-dribbled", "endless", "framing"})
"""Their retries wait for deadlines."""


async def test_a_hostile_proxy_costs_only_what_is_behind_it(tmp_path: Path) -> None:
    await _sync(tmp_path, lambda name: name not in SLOW)


@pytest.mark.soak
async def test_a_proxy_that_lets_us_wait_costs_only_what_is_behind_it(tmp_path: Path) -> None:
    await _sync(tmp_path, lambda name: name in SLOW)


async def _sync(folder: Path, chosen: Callable[[str], bool]) -> None:
    """One sync of a rule for each site behind the proxy, and of one for a registry without."""
    names = [name for name in (*PLAIN, *TUNNELS) if chosen(name)]
    async with FakeRegistry() as hub, FakeRegistry() as fra, hostile() as proxy:
        for name, malice in PLAIN.items():
            proxy.on(f"http://{name}.test/", malice)
        for name, malice in TUNNELS.items():
            proxy.on(f"CONNECT {name}.test:443", malice)
        load(hub.store, "platform/app", "v1", image("app"))
        login = f"mirror:{quote(PASSWORD, safe='')}"
        address = proxy.url.removeprefix("http://")
        more = f'proxy = "http://{login}@{address}"\ndocker_config = false\n{TIMEOUTS}'
        config = Program(folder).write_config({"hub": hub.url, "fra": fra.url}, rule("good"))
        for name in names:
            scheme = "https" if name in TUNNELS else "http"
            one = (
                rule(name)
                .replace('source = "hub"', f'source = "{name}"')
                .replace("platform/**", f"platform/{name}")
            )
            text = f'[site.{name}]\nurl = "{scheme}://{name}.test"\n{more}{one}'
            config.write_text(config.read_text() + text)
        cost = await measured(folder, "sync", "--json", within=150)
        assert fra.store.content("platform/app").tags
        assert list(fra.store.repositories) == ["platform/app"]
    report = json.loads(cost.stdout)
    failed = {
        each["rule"]: {one["site"] for there in each["destinations"] for one in there["failures"]}
        for each in report["rules"]
    }
    assert failed == {"good": set()} | {name: {name} for name in names}
    assert proxy.count("169.254") == 0
    assert_clean(cost, folder)
    assert login not in cost.text
    assert (cost.peak < 300 << 20, cost.stall < 2.0) == (True, True)


CHECKS = ("quoting", "brackets", "escapes", "endless-head", "redirect", "reset", "tls-quoting", "tls-junk")


async def test_check_and_copy_end_behind_a_hostile_proxy(tmp_path: Path) -> None:
    async with FakeRegistry() as hub, hostile() as proxy:
        load(hub.store, "platform/app", "v1", image("app"))
        for name in CHECKS:
            is_tunnel = name in TUNNELS
            here = f"CONNECT {name}.test:443" if is_tunnel else f"http://{name}.test/"
            proxy.on(here, TUNNELS[name] if is_tunnel else PLAIN[name])
        login = f"mirror:{quote(PASSWORD, safe='')}"
        through = f"http://{login}@{proxy.url.removeprefix('http://')}"
        sites = "".join(
            f'[site.{name}]\nurl = "{"https" if name in TUNNELS else "http"}://{name}.test"\n'
            f'proxy = "{through}"\ndocker_config = false\n{TIMEOUTS}'
            for name in CHECKS
        )
        Program(tmp_path).write_config({}, sites)
        costs = [await measured(tmp_path, "check", within=100)]
        assert all(name in costs[0].text for name in CHECKS)
        good, bad = (
            f"{hub.url.removeprefix('http://')}/platform/app:v1",
            "tls-quoting.test/platform/app:v1",
        )
        for ends in (good, bad), (bad, good):
            environ = {"HTTPS_PROXY": through}
            costs.append(await measured(tmp_path, "copy", *ends, within=100, environ=environ))
            assert "tls-quoting" in costs[-1].stderr
    assert proxy.count("169.254") == 0
    for cost in costs:
        assert cost.code == 1
        assert cost.stall < 2.0
        for evil in (PASSWORD, login, SIGNATURE, "\x1b", "\x9b", "\u202e"):
            assert evil not in cost.text
