from __future__ import annotations

import asyncio
import dataclasses
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from msgspec.structs import replace
from yarl import URL

from replicator.errors import Advice, ConfigError, Rejected, Unavailable
from replicator.events import Warned
from replicator.flow.retry import Budget
from replicator.sites.registry.addresses import reach_of_host
from replicator.sites.registry.errormap import network_failure
from replicator.sites.registry.http import Call
from replicator.sites.registry.origin import refusal, resolve, upgraded
from replicator.sites.registry.probe import registry_url
from replicator.sites.registry.proxy import Proxies
from replicator.sites.registry.settings import TLS
from tests.fakes.scripted import Rig, head_of, login, raw, rig, scripted

pytestmark = pytest.mark.usefixtures("moved")

READ = Call("read manifest", "GET", "/v2/a/manifests/x", repository="a")
ONCE = Budget(attempts=1)


@dataclass(frozen=True)
class Pki:
    """An authority, a server's context, and a client's files."""

    authority: trustme.CA
    server: ssl.SSLContext
    ca: Path
    cert: Path
    key: Path


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    folder = tmp_path_factory.mktemp("pki")
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    client = authority.issue_cert("client@example")
    client.cert_chain_pems[0].write_to_path(str(folder / "client.pem"))
    client.private_key_pem.write_to_path(str(folder / "client.key"))
    return Pki(authority, server, folder / "ca.pem", folder / "client.pem", folder / "client.key")


async def _fine(request: web.Request) -> web.Response:
    return web.Response(body=b"fine")


async def test_own_authority_is_believed(pki: Pki) -> None:
    async with scripted(_fine, tls=pki.server) as server, rig(server.url, tls=TLS(ca=pki.ca)) as here:
        assert (await here.transport.request(READ)).body == b"fine"
    assert not [event for event in here.events if isinstance(event, Warned)]


async def test_unknown_authority_stops_the_site_and_says_what_to_set(pki: Pki) -> None:
    async with scripted(_fine, tls=pki.server) as server, rig(server.url) as here:
        with pytest.raises(
            Unavailable, match=r"certificate verification failed for 127\.0\.0\.1.*tls\.ca"
        ) as caught:
            await here.transport.request(READ)
    assert caught.value.advice is Advice.STOP_SITE
    assert server.seen == []


async def test_verification_can_be_turned_off_with_one_warning(pki: Pki) -> None:
    async with scripted(_fine, tls=pki.server) as server, rig(server.url, tls=TLS(verify=False)) as here:
        await here.transport.request(READ)
        await here.transport.request(READ)
    [warned] = [event for event in here.events if isinstance(event, Warned)]
    assert "not verified" in warned.text


def _wants_certificate(pki: Pki) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pki.authority.issue_cert("127.0.0.1").configure_cert(context)
    pki.authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def test_client_certificate_is_shown_to_the_registry(pki: Pki) -> None:
    tls = TLS(ca=pki.ca, cert=pki.cert, key=pki.key)
    async with scripted(_fine, tls=_wants_certificate(pki)) as server, rig(server.url, tls=tls) as here:
        assert (await here.transport.request(READ)).body == b"fine"


async def test_missing_client_certificate_is_unavailable(pki: Pki) -> None:
    tls = TLS(ca=pki.ca)
    async with (
        scripted(_fine, tls=_wants_certificate(pki)) as server,
        rig(server.url, tls=tls, budget=ONCE) as here,
    ):
        with pytest.raises(Unavailable):
            await here.transport.request(READ)
    assert server.seen == []


def test_alert_that_wants_a_client_certificate_says_what_to_set() -> None:
    alert = ssl.SSLError(1, "tlsv13 alert certificate required")
    alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    failure = network_failure(alert, "registry.test")
    assert "tls.cert" in failure.cause
    assert failure.advice is Advice.STOP_SITE


async def test_client_certificate_is_not_shown_elsewhere(pki: Pki) -> None:
    shown: list[object] = []

    async def storage(request: web.Request) -> web.Response:
        assert request.transport is not None
        shown.append(request.transport.get_extra_info("peercert"))
        return web.Response(body=b"blob")

    optional = _wants_certificate(pki)
    optional.verify_mode = ssl.CERT_OPTIONAL
    tls = TLS(ca=pki.ca, cert=pki.cert, key=pki.key)
    async with scripted(storage, tls=optional, ping=False) as other:

        async def answer(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": f"{other.url}/x"})

        async with scripted(answer, tls=_wants_certificate(pki)) as server, rig(server.url, tls=tls) as here:
            assert (await here.transport.request(replace(READ, verified=True))).body == b"blob"
    assert shown in ([None], [{}])


async def test_redirect_from_https_to_http_is_refused(pki: Pki) -> None:
    async with scripted(_fine, ping=False) as plain:

        async def answer(request: web.Request) -> web.Response:
            return web.Response(status=302, headers={"Location": plain.url.replace("127.0.0.1", "localhost")})

        async with scripted(answer, tls=pki.server) as server, rig(server.url, tls=TLS(ca=pki.ca)) as here:
            with pytest.raises(Rejected, match="leaves https for http"):
                await here.transport.request(READ)
    assert plain.seen == []


async def test_location_of_the_registry_itself_in_http_is_asked_by_https(pki: Pki) -> None:
    """A registry behind a proxy that ends TLS writes http into its Locations (I.8)."""

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/v2/a/manifests/x":
            return web.Response(status=302, headers={"Location": f"http://{request.host}/there?x=%2F"})
        return web.Response(body=request.raw_path.encode())

    async with scripted(answer, tls=pki.server) as server, rig(server.url, tls=TLS(ca=pki.ca)) as here:
        assert (await here.transport.request(READ)).body == b"/there?x=%2F"


async def test_https_to_a_plain_server_says_so() -> None:
    async with scripted(_fine) as server, rig(server.url.replace("http:", "https:"), budget=ONCE) as here:
        with pytest.raises(Unavailable, match="does it speak plain HTTP"):
            await here.transport.request(READ)


async def test_a_broken_record_in_the_middle_is_tried_again(pki: Pki) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b"/v2/ " in await head_of(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 10_000)
        await writer.drain()
        os.write(writer.get_extra_info("socket").fileno(), b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
        writer.transport.abort()

    async with raw(talk, tls=pki.server) as url, rig(url, tls=TLS(ca=pki.ca), budget=ONCE) as here:
        with pytest.raises(Unavailable) as caught:
            await _read_stream(here)
    assert caught.value.advice is Advice.RETRY


async def _read_stream(here: Rig) -> None:
    async with here.transport.stream(READ) as reply:
        async for _ in reply.chunks():
            pass


@pytest.mark.parametrize("which", ["ca", "cert", "key"])
@pytest.mark.parametrize("content", [None, b"no pem"])
async def test_unusable_tls_files_are_config_errors(
    pki: Pki, tmp_path: Path, which: str, content: bytes | None
) -> None:
    bad = tmp_path / "bad.pem"
    if content is not None:
        bad.write_bytes(content)
    tls = dataclasses.replace(TLS(ca=pki.ca, cert=pki.cert, key=pki.key), **{which: bad})  # type: ignore[arg-type]  # all paths
    with pytest.raises(ConfigError, match=rf"site\.here\.tls\.{which.replace('key', 'cert')}.*bad\.pem"):
        async with rig("https://127.0.0.1:1", tls=tls):
            pass


# --- proxies ------------------------------------------------------------------------------------------------


async def test_configured_proxy_is_asked_also_for_loopback() -> None:
    async with scripted(_fine, ping=False) as proxy:
        with_user = proxy.url.replace("http://", "http://me:pw@")
        async with rig("http://127.0.0.1:1", proxy=with_user) as here:
            assert (await here.transport.request(READ)).body == b"fine"
    assert [seen.target for seen in proxy.seen] == [
        "http://127.0.0.1:1/v2/",
        "http://127.0.0.1:1/v2/a/manifests/x",
    ]
    assert proxy.seen[0].headers["Proxy-Authorization"] == "Basic bWU6cHc="


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)


async def test_tls_goes_through_the_proxy_unread(moved: str, pki: Pki) -> None:
    asked: list[bytes] = []

    async with scripted(_fine, tls=pki.server) as server:

        async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append((await head_of(reader)).split(b"\r\n")[0])
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")

            pumps = [
                asyncio.create_task(_pump(reader, to_writer)),
                asyncio.create_task(_pump(to_reader, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in pumps:
                    task.cancel()
                await asyncio.wait(pumps)
                to_writer.close()

        async with raw(tunnel) as proxy, rig(server.url, proxy=proxy, tls=TLS(ca=pki.ca)) as here:
            assert (await here.transport.request(READ)).body == b"fine"
    connections = 2 if moved == "threads" else 1  # the ping has one of its own
    assert asked == [b"CONNECT 127.0.0.1:%d HTTP/1.1" % server.port] * connections


async def test_tls_goes_through_a_proxy_that_speaks_tls_itself(pki: Pki) -> None:
    """TLS within TLS; threads leave that to the event loop."""
    asked: list[bytes] = []

    async with scripted(_fine, tls=pki.server) as server:

        async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append((await head_of(reader)).split(b"\r\n")[0])
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(CONNECTED)
            try:
                async with asyncio.TaskGroup() as pumps:
                    pumps.create_task(_pump(reader, to_writer))
                    pumps.create_task(_pump(to_reader, writer))
            finally:
                to_writer.close()

        async with (
            raw(tunnel, tls=pki.server) as proxy,
            rig(server.url, proxy=proxy, tls=TLS(ca=pki.ca)) as here,
        ):
            assert (await here.transport.request(READ)).body == b"fine"
    assert asked == [b"CONNECT 127.0.0.1:%d HTTP/1.1" % server.port]


CONNECTED = b"HTTP/1.1 200 Connected\r\n\r\n"


@pytest.mark.parametrize(
    "said",
    [
        CONNECTED + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        CONNECTED + b"x",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2_000_000,
        b"HTTP/1.1 103 Hints\r\n\r\n" * 200,
    ],
    ids=["answer", "byte", "endless", "interim"],
)
async def test_what_a_proxy_says_before_the_handshake_is_no_answer_of_the_registry(
    moved: str, pki: Pki, said: bytes
) -> None:
    says = [CONNECTED, said]

    async with scripted(_fine, tls=pki.server) as server:

        async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(says.pop(0))
            try:
                async with asyncio.TaskGroup() as pumps:
                    pumps.create_task(_pump(reader, to_writer))
                    pumps.create_task(_pump(to_reader, writer))
            finally:
                to_writer.close()

        tls = TLS(ca=pki.ca)
        async with raw(tunnel) as proxy, rig(server.url, proxy=proxy, tls=tls, budget=ONCE) as here:
            if moved == "loop":  # over the ping's connection
                assert (await here.transport.request(READ)).body == b"fine"
            else:
                with pytest.raises(Unavailable, match="does not answer in HTTP"):
                    await here.transport.request(READ)


async def test_proxy_that_wants_a_password_stops_the_site() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    async with raw(refuse) as proxy, rig("https://registry.test", proxy=proxy) as here:
        with pytest.raises(Unavailable, match="the proxy refused") as caught:
            await here.transport.request(READ)
    assert caught.value.advice is Advice.STOP_SITE


async def test_proxy_of_the_environment_is_asked_as_no_proxy_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
    monkeypatch.setenv("HTTPS_PROXY", "secure.test:3129")
    monkeypatch.setenv("NO_PROXY", ".inside.test,other.test:5000")
    proxies = Proxies("here", None, URL("https://registry.test"))

    def proxy(url: str) -> str | None:
        found = proxies.find(URL(url))
        return None if found is None else str(found)

    assert proxy("http://registry.test") == "http://proxy.test:3128"
    assert proxy("https://registry.test") == "http://secure.test:3129"
    assert proxy("https://a.inside.test") is None
    assert proxy("https://other.test:5000") is None
    assert proxy("https://other.test") == "http://secure.test:3129"
    assert proxy("http://127.0.0.1:5000") is None
    assert Proxies("here", "", URL("https://registry.test")).find(URL("https://registry.test")) is None


@pytest.mark.parametrize("setting", ["socks5://user:pw@proxy:1080", "http://", "http://[::1"])
def test_unusable_proxy_is_a_config_error_that_shows_no_password(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"site\.here\.proxy") as caught:
        Proxies("here", setting, URL("https://registry.test"))
    assert "pw" not in str(caught.value)


# --- where a URL leads --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://other.test/x?sig=a%2Fb+c%7E==#f", "https://other.test/x?sig=a%2Fb+c%7E=="),
        ("//other.test/x", "https://other.test/x"),
        ("/v2/a/uploads/1?_state=x%2F%3d", "https://reg.test:5000/v2/a/uploads/1?_state=x%2F%3d"),
        ("uploads/2", "https://reg.test:5000/v2/a/uploads/2"),
        ("?page=2", "https://reg.test:5000/v2/a/list?page=2"),
    ],
)
def test_locations_are_resolved_without_touching_their_bytes(location: str, expected: str) -> None:
    assert str(resolve(URL("https://reg.test:5000/v2/a/list?n=1", encoded=True), location)) == expected


@pytest.mark.parametrize(
    "host",
    ["10.0.0.1", "192.168.1.1", "169.254.169.254", "127.0.0.1", "localhost", "::1", "fe80::1", "::ffff:10.0.0.1",
     "0x7f000001", "2130706433", "127.1", "0.0.0.1", "fd00::1",
     "localhost.", "127.0.0.1.", "LOCALHOST", "a.localhost", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "2002:a00:1::",
     "::10.0.0.1", "0", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "100.64.0.1"],
)  # fmt: skip
def test_private_addresses_are_known_in_every_notation(host: str) -> None:
    assert reach_of_host(host) not in {None, "public"}
    bracketed = f"[{host}]" if ":" in host else host
    assert refusal(URL("https://registry.test"), URL(f"https://{bracketed}/x", encoded=True)) is not None
    reach = reach_of_host(host)
    by_private = refusal(URL("https://10.1.1.1"), URL(f"https://{bracketed}/x", encoded=True))
    by_loopback = refusal(URL("https://127.9.9.9"), URL(f"https://{bracketed}/x", encoded=True))
    assert (by_private is None, by_loopback is None) == (reach == "private", reach != "never")


@pytest.mark.parametrize("host", ["registry.test", "8.8.8.8", "2606:4700::1111", "10.example.test"])
def test_public_hosts_are_not_taken_for_private(host: str) -> None:
    assert reach_of_host(host) in {None, "public"}


@pytest.mark.parametrize(
    ("registry", "target", "expected"),
    [
        ("https://r.test", "http://r.test/x?a=%2F", "https://r.test/x?a=%2F"),
        ("https://r.test:5000", "http://r.test:5000/x", "https://r.test:5000/x"),
        ("https://r.test", "http://other.test/x", "http://other.test/x"),
        ("https://r.test:5000", "http://r.test/x", "http://r.test/x"),
        ("http://r.test", "http://r.test/x", "http://r.test/x"),
    ],
)
def test_only_the_registry_itself_is_upgraded(registry: str, target: str, expected: str) -> None:
    assert str(upgraded(URL(registry), URL(target, encoded=True))) == expected


async def test_default_port_is_the_same_origin() -> None:
    async with rig("https://registry.test", login=login()) as here:
        assert here.transport.is_own_origin(URL("https://registry.test:443/v2/x?y=%2F", encoded=True))
        assert here.transport.is_own_origin(URL("https://REGISTRY.test/x", encoded=True))
        assert not here.transport.is_own_origin(URL("http://registry.test/", encoded=True))
        assert not here.transport.is_own_origin(URL("https://registry.test:5000/", encoded=True))


# --- names to URLs ------------------------------------------------------------------------------------------


async def test_registry_names_become_urls_without_asking_anybody() -> None:
    assert await registry_url("docker.io") == "https://registry-1.docker.io"
    assert await registry_url("quay.io") == "https://quay.io"
    assert await registry_url("registry.test:5000") == "https://registry.test:5000"


async def test_loopback_is_http_unless_it_speaks_tls(pki: Pki) -> None:
    async with scripted(_fine) as plain, scripted(_fine, tls=pki.server) as secure:
        assert await registry_url(f"127.0.0.1:{plain.port}") == plain.url
        assert await registry_url(f"127.0.0.1:{secure.port}") == secure.url
        assert (
            await registry_url(f"localhost:{plain.port}", insecure=True) == f"http://localhost:{plain.port}"
        )
