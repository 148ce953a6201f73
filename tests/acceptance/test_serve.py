"""`replicator serve` as a process."""

from __future__ import annotations

import asyncio
import re
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import bcrypt
import pytest
import trustme

from replicator.demo.images import image, layer
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.model.digest import digest_of
from replicator.sites.objects.local.store import LocalStore
from replicator.sites.objects.settings import LocalSettings
from tests.acceptance.program import Program, Running
from tests.fakes.layouts import put_image
from tests.fakes.serving import layout_site

BIG = layer("big", 24_000_000)
IMAGE = image("served", [BIG])
BLOB = f"/v2/team/app/blobs/{digest_of(BIG.data)}"


async def fill(path: Path, layout: str) -> None:
    store = LocalStore(LocalSettings("shelf", path), events=Events(), clock=SystemClock())
    try:
        await put_image(layout_site(layout, store).repository("team/app"), IMAGE, "v1")
    finally:
        await store.aclose()


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@asynccontextmanager
async def served(program: Program, *arguments: str) -> AsyncIterator[tuple[Running, str]]:
    """The running program, and its URL."""
    async with program.started("serve", *arguments, "--listen", "127.0.0.1:0") as running:
        line = await running.says("serving")
        match = re.search(r'url"?[=:]"?(https?://[0-9.:]+)', line)
        assert match is not None, line
        yield running, match[1]


async def get(url: str, **more: object) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as client, client.get(url, **more) as reply:  # type: ignore[arg-type]
        return reply.status, await reply.read()


@pytest.mark.parametrize("layout", ["distribution", "oci"])
async def test_directory_is_served_by_what_lies_there(program: Program, layout: str) -> None:
    await fill(program.folder / "shelf", layout)
    async with served(program, "./shelf") as (running, url):
        assert await get(f"{url}/v2/team/app/manifests/v1") == (200, IMAGE.manifest.body)
        assert await get(f"{url}{BLOB}") == (200, BIG.data)
        _, metrics = await get(f"{url}/metrics")
        assert b'replicator_serve_requests_total{code="200",operation="blob"} 1.0' in metrics
        [sent] = re.findall(rb'replicator_serve_bytes_total{operation="blob"} (.+)', metrics)
        assert float(sent) == len(BIG.data)
        assert b"replicator_serve_connections " in metrics
        running.signal(signal.SIGTERM)
        ended = await running.end()
    assert (ended.code, ended.stdout) == (0, "")
    assert (
        f"INFO request remote=127.0.0.1 method=GET path={BLOB} status=200 bytes={len(BIG.data)} "
        in ended.stderr
    )


async def test_single_layout_is_a_repository_of_its_folders_name(program: Program) -> None:
    await fill(program.folder / "shelf", "oci")
    async with served(program, "shelf/team/app") as (_, url):
        assert await get(f"{url}/v2/app/manifests/v1") == (200, IMAGE.manifest.body)


async def test_site_of_the_config_is_served(program: Program) -> None:
    await fill(program.folder / "somewhere", "distribution")
    config = program.write_config({"shelf": f"file://{program.folder}/somewhere"}, "")
    config.write_text(config.read_text() + '[site.hub]\nurl = "https://hub.invalid"\n')
    async with served(program, "shelf", "--layout", "distribution") as (_, url):
        assert (await get(f"{url}/v2/team/app/tags/list"))[0] == 200
    ended = await program("serve", "hub")
    assert ended.code == 2
    assert "hub: is already a registry" in ended.stderr
    ended = await program("serve", "other")
    assert ended.code == 2
    assert "other: neither a site (the config has hub, shelf) nor a directory" in ended.stderr


async def test_log_is_json_where_asked_for(program: Program) -> None:
    await fill(program.folder / "shelf", "oci")
    async with served(program, "./shelf", "--log-format", "json") as (running, url):
        await get(f'{url}/v2/?x="y')
        running.signal(signal.SIGINT)
        ended = await running.end()
    assert ended.code == 0
    assert '"message":"request"' in ended.stderr


async def test_users_are_asked_for_over_tls(program: Program) -> None:
    await fill(program.folder / "shelf", "oci")
    folder, authority = program.folder, trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    write(folder / "htpasswd", f"ann:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    options = ("--tls-cert", "cert.pem", "--tls-key", "key.pem", "--htpasswd", "htpasswd")
    async with served(program, "./shelf", *options) as (_, url):
        assert url.startswith("https://")
        assert (await get(f"{url}/v2/", ssl=trusting))[0] == 401
        login = {"Authorization": "Basic YW5uOnNlY3JldA=="}  # ann:secret
        assert await get(f"{url}{BLOB}", ssl=trusting, headers=login) == (200, BIG.data)


def write(path: Path, text: str) -> None:
    path.write_text(text)


async def test_first_signal_lets_a_pull_end(program: Program) -> None:
    await fill(program.folder / "shelf", "distribution")
    async with served(program, "./shelf") as (running, url):
        host, _, port = url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(f"GET {BLOB} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        running.signal(signal.SIGTERM)
        await running.says("SIGTERM: finishing transfers")
        assert await reader.readexactly(len(BIG.data)) == BIG.data
        writer.close()
        assert (await running.end()).code == 0


async def test_second_signal_ends_it_at_once(program: Program) -> None:
    await fill(program.folder / "shelf", "distribution")
    async with served(program, "./shelf") as (running, url):
        host, _, port = url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(f"GET {BLOB} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        running.signal(signal.SIGTERM)
        await running.says("SIGTERM: finishing transfers")
        running.signal(signal.SIGTERM)
        assert (await running.end()).code == 143
        writer.close()


async def test_open_mirror_beyond_loopback_is_told(program: Program) -> None:
    await fill(program.folder / "shelf", "oci")
    async with program.started("serve", "./shelf", "--listen", "0.0.0.0:0") as running:
        await running.says("WARNING no --htpasswd: everyone who can reach http://0.0.0.0:")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["./missing"], 2, "./missing: directory not found"),
        (["./files"], 1, "there are files here, but no OCI layout"),
        (["./files", "--layout", "distribution"], 1, "not the storage of a registry"),
        (["./files", "--listen", "nowhere"], 2, "invalid address"),
        (["./files", "--tls-cert", "files/one"], 2, "--tls-cert and --tls-key must be used together"),
        (["./files", "--tls-cert", "files/one", "--tls-key", "files/one"], 2, "--tls-cert files/one"),
        (["./files", "--htpasswd", "files/one"], 2, "files/one:1: expected USER:HASH"),
        (["./files", "--max-connections", "0"], 2, "0 is not in the range"),
    ],
)
async def test_what_cannot_be_served_is_said(
    program: Program, arguments: list[str], code: int, text: str
) -> None:
    write_one(program.folder / "files" / "one")
    ended = await program("serve", *arguments)
    assert ended.code == code
    assert text in ended.stderr
    assert ended.stdout == ""


def write_one(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("something\n")


async def test_address_that_is_taken_is_said(program: Program) -> None:
    await fill(program.folder / "shelf", "oci")
    async with served(program, "./shelf") as (_, url):
        address = url.removeprefix("http://")
        ended = await program("serve", "./shelf", "--listen", address)
    assert ended.code == 2
    assert f"--listen {address}: " in ended.stderr
