"""A hostile source costs its own tags and nothing else: time, memory, the loop, secrets, and its neighbours."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest

from replicator.demo.images import BuiltImage, image, layer, load
from replicator.model.manifest import parse_manifest
from replicator.model.mediatypes import OCI_MANIFEST
from tests.acceptance.program import Program, rule
from tests.fakes.auth import Basic
from tests.fakes.registry import FakeRegistry
from tests.fakes.watched import WatchedStore
from tests.hostile.measured import Cost, measured
from tests.hostile.server import (
    CHUNKED,
    Malice,
    bomb,
    broken_framing,
    dribble,
    endless,
    hostile,
    quotes,
    reset,
    says,
    silent,
)

PASSWORD = "planted+secret/0815 ü"
SIGNATURE = "PLANTED-SIGNATURE"
ESCAPES = "\x1b[2J\x9b31m\u202eevil\r\n2026-01-01T00:00:00Z INFO forged line"
TIMEOUTS = 'timeouts = { connect = "2s", first_byte = "2s", read = "1s", commit = "2s" }\n'
OK = b"HTTP/1.1 200 OK\r\n"
HUGE = json.dumps(
    {"schemaVersion": 2, "config": {"digest": f"sha256:{'0' * 64}", "size": 10**400}, "layers": []}
)

MANIFESTS: dict[str, Malice] = {
    "minus-one": broken_framing(b"5\r\nhello\r\n-1\r\n"),
    "http-in-body": broken_framing(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"),
    "dribbled": dribble(OK + b"Content-Length: 100000\r\n\r\n", b" "),
    "dribbled-head": dribble(OK + b"X-A: ", b"a"),
    "interim": dribble(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "interim-flood": endless(b"", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" * 100),
    "silent": silent,
    "reset": reset,
    "endless": endless(CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "endless-head": endless(OK, b"X-A: " + b"a" * 60_000 + b"\r\n"),
    "brackets": says(500, b"<" * 65536, Content_Type="text/html"),
    "quoting": quotes(403),
    "escapes": says(400, json.dumps({"errors": [{"code": "X\x1b[1m", "message": ESCAPES}]}).encode()),
    "maintenance": says(200, b'{"status":"maintenance"}', Content_Type="application/json"),
    "bomb": bomb(100_000_000),
    "401-digits": says(200, HUGE.encode(), Content_Type="application/json"),
    "nested": says(200, b"[" * 1_000_000, Content_Type="application/json"),
    "lists": says(200, b'{"schemaVersion":2,"manifests":[' + b"[]," * 2_000_000 + b"[]]}"),
    "metadata": says(307, b"", Location=f"http://169.254.169.254/latest?X-Amz-Signature={SIGNATURE}"),
    "numbers": says(200, b"{}", Docker_Content_Digest="sha256:" + "9" * 60_000, Retry_After="9" * 60_000),
}
TAGS: dict[str, Malice] = {
    "page-of-lists": says(200, b'{"name":"x","tags":[' + b"[]," * 4_000_000 + b"[]]}"),
    "link": says(200, b'{"name":"x","tags":["v1"]}', Link="<x>;" * 15_000),
    "no-list": says(200, b"[" * 1_000_000),
}
BLOBS: dict[str, Malice] = {
    "blob-minus-one": broken_framing(b"5\r\nhello\r\n-1\r\n"),
    "blob-dribbled": dribble(OK + b"Content-Length: 100000\r\n\r\n", b"a"),
    "blob-endless": endless(CHUNKED, b"10000\r\n" + b"a" * 65536 + b"\r\n"),
    "blob-silent": silent,
    "blob-signed": says(
        307, b"", Location=f"http://127.0.0.1:1/x?X-Amz-Signature={SIGNATURE}&_state={SIGNATURE}"
    ),
    "blob-quoting": quotes(400),
}


def assert_clean(cost: Cost, folder: Path) -> None:
    """No secret and nothing that steers a terminal, in anything that is shown or kept."""
    with closing(sqlite3.connect(folder / "state.db")) as state:
        kept = "\n".join(state.iterdump())
    assert "INSERT" in kept
    told = cost.text + kept
    basic = base64.b64encode(f"mirror:{PASSWORD}".encode()).decode()
    for secret in (PASSWORD, quote(PASSWORD, safe=""), basic, basic.encode().hex(), SIGNATURE):
        assert secret not in told
    for evil in ("\x1b", "\x9b", "\u202e"):
        assert evil not in told
    # JSON escapes them where the report is written: none must be in it either.
    assert "\\u001b" not in cost.stdout
    assert not any(line.startswith("2026-01-01T00:00:00Z INFO forged") for line in cost.text.splitlines())


SLOW = frozenset(
    {
        "blob-silent",
        "blob-signed",
        "blob-dribbled",
        "silent",
        "dribbled",
        "dribbled-head",
        "interim",
        "blob-minus-one",
    }
)
"""Their retries wait for deadlines; each alone takes ten seconds and more."""


async def test_a_hostile_source_costs_only_its_own_tags(tmp_path: Path) -> None:
    await _source(tmp_path, lambda name: name not in SLOW)


@pytest.mark.soak
async def test_a_source_that_lets_us_wait_costs_only_its_own_tags(tmp_path: Path) -> None:
    await _source(tmp_path, lambda name: name in SLOW)


def _config(program: Program, hub: str, fra: str) -> None:
    config = program.write_config({"hub": hub, "fra": fra}, rule())
    login = f'username = "mirror"\npassword = {{ file = "password" }}\n{TIMEOUTS}'
    config.write_text(config.read_text().replace("[site.fra]", f"{login}[site.fra]\n{TIMEOUTS}", 1))
    (program.folder / "password").write_text(PASSWORD)


async def _source(folder: Path, chosen: Callable[[str], bool]) -> None:
    """One sync from a hub with four good repositories and one for each malice."""
    good = image("good")
    async with (
        FakeRegistry(auth=Basic({"mirror": PASSWORD})) as hub,
        FakeRegistry() as fra,
        hostile(hub.url) as front,
        hostile() as internal,
    ):
        dangling = fra.store.watch_dangling()
        internal.on("", says(200, good.manifest.body, Content_Type=good.manifest.media_type))
        manifests = MANIFESTS | {"internal": says(307, b"", Location=f"{internal.url}/v2/x/manifests/v1")}
        bad: set[str] = set()
        for kind, cases in (("manifests", manifests), ("tags", TAGS), ("blobs/sha256", BLOBS)):
            for name in filter(chosen, cases):
                bad.add(name)
                load(hub.store, f"platform/{name}", "v1", image(name))
                front.on(f"(GET|HEAD) /v2/platform/{name}/{kind}", cases[name])
        for number in range(4):
            load(hub.store, f"platform/good{number}", "v1", image(f"good{number}"))
        _config(Program(folder), front.url, fra.url)
        cost = await measured(folder, "sync", "--json", within=150)
        copied = {name for name, content in fra.store.repositories.items() if content.tags}
    failures = _failures(cost)
    failed = {(one["repository"] or "").removeprefix("platform/") for one in failures}
    assert failed == bad - {"link"}
    assert copied == {
        f"platform/{name}" for name in {*(f"good{number}" for number in range(4)), *(bad & {"link"})}
    }
    assert dangling == []
    assert cost.code == 1
    assert {one["site"] for one in failures} == {"hub"}
    assert internal.seen == []
    assert_clean(cost, folder)
    assert cost.peak < 300 << 20
    assert cost.stall < 2.0, "the watchdog would think that the agent hangs"


async def test_a_wrong_size_in_one_manifest_never_fails_its_neighbours(tmp_path: Path) -> None:
    shared = layer("shared", 300_000)
    store = WatchedStore(refuses_dangling=False)
    async with FakeRegistry(store=store) as hub, FakeRegistry() as fra, FakeRegistry() as ber:
        for number in range(8):
            built = image(f"good{number}", [shared, layer(f"own{number}", 1000)])
            load(store, "platform/app", f"good{number}", built)
        body = json.loads(image("bad", [shared]).manifest.body)
        for lie in (1, 10_000_000):
            wrong = {**body, "layers": [{**one, "size": lie} for one in body["layers"]]}
            manifest = parse_manifest(json.dumps(wrong).encode(), OCI_MANIFEST)
            load(store, "platform/app", f"bad{lie}", BuiltImage(manifest, image("bad", [shared]).blobs))
        program = Program(tmp_path)
        program.write_config(
            {"hub": hub.url, "fra": fra.url, "ber": ber.url}, rule(destinations=("fra", "ber"))
        )
        await measured(tmp_path, "sync", "--json", within=60)
        for there in (fra, ber):
            tags = there.store.content("platform/app").tags
            assert {f"good{number}" for number in range(8)} <= set(tags)


def _failures(cost: Cost) -> list[dict[str, str]]:
    report = msgspec.json.decode(cost.stdout)
    return [one for rule in report["rules"] for each in rule["destinations"] for one in each["failures"]]
