"""Who may do what: the token, other web sites' pages, and bounds on what comes in."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from replicator.config.secrets import Secret
from replicator.config.settings import HTTPSettings, Loaded, ServerTLS, WebhookSettings
from replicator.daemon.http import server as server_module
from replicator.daemon.http.auth import is_known_host, same
from replicator.daemon.http.server import MAX_LINE_BYTES, listen
from replicator.errors import ConfigError
from replicator.events.agent import ConfigRead
from tests.fakes.agent import HOOK_TOKEN, TOKEN, FakeAgent, config, literal

ANYWHERE = ("0.0.0.0", 0)  # noqa: S104 - what is tested is that it asks for a token there
READS = ["/", "/static/page.css", "/api/v1/rules", "/api/v1/runs", "/api/v1/sites", "/api/v1/lag", "/api/v1/status",
         "/api/v1/openapi.json", "/api/v1/events", "/api/v1/rules/platform"]  # fmt: skip
CHANGES = ["/api/v1/sync", "/api/v1/rules/platform/sync", "/api/v1/rules/platform/pause",
           "/api/v1/rules/platform/resume"]  # fmt: skip
BEARER = {"Authorization": f"Bearer {TOKEN}"}
BASIC = {"Authorization": "Basic " + base64.b64encode(f"anybody:{TOKEN}".encode()).decode()}
WRONG = [
    {"Authorization": "Bearer wrong"},
    {"Authorization": TOKEN},
    {"Authorization": f"Digest {TOKEN}"},
    {"Authorization": "Basic " + base64.b64encode(f"{TOKEN}:".encode()).decode()},
    {"Authorization": "Basic %%%"},
    {"Authorization": "Bearer \udcff"},
    {"Authorization": ""},
]


@asynccontextmanager
async def served(loaded: Loaded | None = None) -> AsyncIterator[tuple[FakeAgent, aiohttp.ClientSession]]:
    agent = FakeAgent(loaded=loaded)
    async with listen(agent) as url, aiohttp.ClientSession(url.replace("0.0.0.0", "127.0.0.1")) as session:  # noqa: S104
        yield agent, session


async def status(
    session: aiohttp.ClientSession, method: str, path: str, headers: Mapping[str, str] | None = None
) -> int:
    data = b"{}" if method == "POST" else None
    given_headers = {"Content-Type": "application/json"} if method == "POST" else {}
    async with session.request(
        method, path, data=data, headers={**given_headers, **(headers or {})}
    ) as answer:
        return answer.status


async def test_beyond_loopback_everything_but_health_needs_the_token() -> None:
    async with served(config(listen=ANYWHERE)) as (_, session):
        for path in [*READS, "/metrics"]:
            assert await status(session, "GET", path) == 401, path
            for headers in WRONG:
                assert await status(session, "GET", path, headers) == 401, (path, headers)
            assert await status(session, "GET", path, BEARER) == 200, path
            assert await status(session, "GET", path, BASIC) == 200, path
        for path in ("/healthz", "/readyz"):
            assert await status(session, "GET", path) == 200


async def test_refusal_tells_browsers_to_ask_for_the_token() -> None:
    async with served(config(listen=ANYWHERE)) as (_, session), session.get("/") as answer:
        assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
        assert answer.content_type == "application/problem+json"


async def test_metrics_open_opens_metrics_and_nothing_else() -> None:
    http = HTTPSettings(token=literal(TOKEN), metrics_open=True)
    async with served(config(listen=ANYWHERE, http=http)) as (_, session):
        assert await status(session, "GET", "/metrics") == 200
        assert await status(session, "GET", "/api/v1/lag") == 401


async def test_on_loopback_reading_is_free_and_changing_needs_the_token() -> None:
    async with served() as (agent, session):
        for path in [*READS, "/metrics"]:
            assert await status(session, "GET", path) == 200, path
        for path in CHANGES:
            assert await status(session, "POST", path) == 401, path
            for headers in WRONG:
                assert await status(session, "POST", path, headers) == 401, (path, headers)
        assert not agent.paused
        assert not len(agent.triggers)
        for path in CHANGES:
            assert await status(session, "POST", path, BEARER) in {200, 202}, path


async def test_wrong_token_is_refused_even_where_none_is_needed() -> None:
    async with served() as (_, session):
        assert await status(session, "GET", "/api/v1/rules", {"Authorization": "Bearer wrong"}) == 401


async def test_without_a_configured_token_nothing_can_be_changed() -> None:
    async with served(config(http=HTTPSettings())) as (agent, session):
        for path in CHANGES:
            assert await status(session, "POST", path, BEARER) == 403
        assert not agent.paused
        assert await status(session, "GET", "/api/v1/rules") == 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/json; charset=utf-8"}, 202),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[broken"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 202),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ({"Host": "replicator.example"}, 202),
        ({"Host": "replicator.example:9650", "Origin": "http://replicator.example:9650"}, 202),
        ({"Host": "replicator.example", "Origin": "https://replicator.example"}, 202),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, 403),
        ({"Host": ""}, 403),
    ],
)
async def test_changes_are_not_taken_from_other_sites_pages(headers: dict[str, str], expected: int) -> None:
    http = HTTPSettings(token=literal(TOKEN), hosts=("replicator.example",))
    async with served(config(http=http)) as (_, session):
        assert await status(session, "POST", "/api/v1/sync", {**BASIC, **headers}) == expected


async def test_rebound_name_reads_nothing_without_the_token() -> None:
    async with served() as (_, session):
        for path in [*READS, "/metrics"]:
            assert await status(session, "GET", path, {"Host": "evil.example"}) == 403, path
        assert await status(session, "GET", "/api/v1/rules", {"Host": "scraped.example", **BEARER}) == 200
        assert await status(session, "GET", "/healthz", {"Host": "probe.example"}) == 200


async def test_reasons_for_not_being_ready_are_told_to_who_may_read() -> None:
    async with served(config(listen=ANYWHERE)) as (agent, session):
        agent.problems = ["the state /var/lib/x cannot be written"]
        async with session.get("/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "not ready\n")
        async with session.get("/readyz", headers=BEARER) as answer:
            assert "/var/lib/x" in await answer.text()


async def test_every_answer_forbids_frames_and_foreign_content() -> None:
    async with served() as (_, session):
        for path in ("/", "/api/v1/rules", "/nowhere", "/metrics", "/api/v1/events"):
            async with session.get(path) as answer:
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "frame-ancestors 'none'" in policy
                assert "unsafe" not in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Referrer-Policy"] == "no-referrer"
                assert "Access-Control-Allow-Origin" not in answer.headers


async def test_token_is_read_again_for_each_request(tmp_path: Path) -> None:
    place = tmp_path / "token"
    place.write_text("first\n")
    http = HTTPSettings(token=Secret("file", str(place), {}))
    async with served(config(http=http)) as (_, session):
        assert await status(session, "POST", "/api/v1/sync", {"Authorization": "Bearer first"}) == 202
        place.write_text("second\n")
        assert await status(session, "POST", "/api/v1/sync", {"Authorization": "Bearer first"}) == 401
        place.unlink()
        async with session.post(
            "/api/v1/sync", json={}, headers={"Authorization": "Bearer second"}
        ) as answer:
            assert answer.status == 503
            assert str(tmp_path) not in await answer.text()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> ServerTLS:
    """Files with a certificate for 127.0.0.1 and its key."""
    files = ServerTLS(tmp_path / "cert.pem", tmp_path / "key.pem")
    issue(authority, files)
    return files


def issue(authority: trustme.CA, files: ServerTLS) -> None:
    issued = authority.issue_cert("127.0.0.1")
    files.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    files.key.write_bytes(issued.private_key_pem.bytes())


async def test_serves_https_where_a_certificate_is_configured(
    authority: trustme.CA, certificate: ServerTLS
) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    agent = FakeAgent(loaded=config(http=HTTPSettings(token=literal(TOKEN), tls=certificate)))
    async with listen(agent) as url, aiohttp.ClientSession(url) as session:
        assert url.startswith("https://")
        async with session.get("/healthz", ssl=context) as answer:
            assert answer.status == 200
        headers = {**BEARER, "Origin": url.replace("https", "http")}
        async with session.post("/api/v1/sync", json={}, headers=headers, ssl=context) as answer:
            assert answer.status == 403


async def test_renewed_certificate_is_shown_after_a_reload(
    authority: trustme.CA, certificate: ServerTLS, caplog: pytest.LogCaptureFixture
) -> None:
    agent = FakeAgent(loaded=config(http=HTTPSettings(token=literal(TOKEN), tls=certificate)))

    async with listen(agent) as url:
        port = urlsplit(url).port
        assert port is not None

        async def shown() -> str:
            return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))

        before = await shown()
        issue(authority, certificate)
        agent.events.emit(ConfigRead(successful=False, at=0))
        assert await shown() == before
        agent.events.emit(ConfigRead(successful=True, at=0))
        after = await shown()
        assert after != before
        assert certificate.cert.read_text().startswith(after.strip())

        certificate.key.write_text("half of a pair that is being exchanged")
        agent.events.emit(ConfigRead(successful=True, at=0))
        assert await shown() == after
        assert "http.tls" in caplog.text


async def test_bad_certificate_and_taken_address_are_config_errors(tmp_path: Path) -> None:
    missing = ServerTLS(tmp_path / "cert.pem", tmp_path / "key.pem")
    with pytest.raises(ConfigError, match=r"http\.tls"):
        async with listen(FakeAgent(loaded=config(http=HTTPSettings(tls=missing)))):
            pass
    async with listen(FakeAgent()) as url:
        port = urlsplit(url).port
        assert port is not None
        taken = config(listen=("127.0.0.1", port))
        with pytest.raises(ConfigError, match=r"agent\.listen"):
            async with listen(FakeAgent(loaded=taken)):
                pass


async def raw(url: str, data: bytes) -> bytes:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(data)
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("twice", [
    "Origin: http://localhost\r\nOrigin: http://evil.example", "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site",
    "Host: evil.example", "Authorization: Bearer wrong",
])  # fmt: skip
async def test_who_says_two_things_is_refused(twice: str) -> None:
    agent = FakeAgent()
    async with listen(agent) as url:
        head = (
            f"POST /api/v1/sync HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n{twice}\r\n"
        )
        more = "Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
        assert b" 400 " in (await raw(url, (head + more).encode())).partition(b"\r\n")[0]
    assert not len(agent.triggers)


async def test_secret_that_cannot_be_read_is_logged_once_however_many_ask(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = WebhookSettings("hub", "hub", token=Secret("file", str(tmp_path / "gone"), {}))
    async with served(config(webhooks={"hub": hook})) as (agent, session):
        for _ in range(5):
            assert await status(session, "POST", "/webhooks/hub") == 503
        assert [record.getMessage() for record in caplog.records] == [
            f"POST /webhooks/hub: secret file {tmp_path}/gone cannot be read: No such file or directory"
        ]
        agent.clock.advance(60)
        assert await status(session, "POST", "/webhooks/hub") == 503
        assert len(caplog.records) == 2


async def test_connection_that_sends_no_headers_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HEADER_SECONDS", 0.2)
    async with listen(FakeAgent()) as url:
        async with asyncio.timeout(30):
            assert await raw(url, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ") == b""


async def test_huge_headers_are_refused() -> None:
    async with listen(FakeAgent()) as url:
        long = b"x" * (MAX_LINE_BYTES + 100)
        answer = await raw(url, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + long + b"\r\n\r\n")
        assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))


async def test_what_is_no_http_is_refused_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with listen(FakeAgent()) as url:
        for data in (
            b"\x16\x03\x01\x02\x00\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: \x00\r\n\r\n",
            b"GET  / \r\n\r\n",
        ):
            assert b" 400 " in await raw(url, data)
    assert not caplog.records


async def test_more_connections_than_allowed_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 2)
    async with listen(FakeAgent()) as url:
        parts = urlsplit(url)
        held = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(2)]
        assert await raw(url, b"") == b""
        for _, writer in held:
            writer.close()
            await writer.wait_closed()
        async with aiohttp.ClientSession(url) as session:
            assert await status(session, "GET", "/healthz") == 200


@given(st.text(max_size=40), st.text(max_size=40))
def test_two_secrets_are_the_same_only_if_they_are(first: str, second: str) -> None:
    assert same(first, second) == (first == second)
    assert same(first, first)


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1", True), ("127.0.0.1:9650", True), ("[::1]:9650", True), ("10.1.2.3", True),
        ("LOCALHOST:80", True), ("agent.example.", True), ("Agent.Example:1", True),
        ("evil.example", False), ("127.0.0.1.evil.example", False), ("agent.example.evil", False),
        ("agent.example:99999999", False), ("agent.example@evil", False), ("", False), ("[::1", False),
        ("agent.example, evil", False), ("127.1", False), ("0x7f000001", False),
    ],
)  # fmt: skip
def test_host_is_known_by_address_or_name(host: str, known: bool) -> None:  # noqa: FBT001
    assert is_known_host(host, ("agent.example",)) is known


async def test_idle_connections_do_not_keep_health_from_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 4)
    async with served() as (_, session):
        base = session._base_url
        assert base is not None
        idle = [await asyncio.open_connection(base.host, base.port) for _ in range(12)]
        assert await status(session, "GET", "/healthz") == 200
        for _, writer in idle:
            writer.close()


async def test_no_answer_names_versions_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async with served() as (_, session):
        for path in ("/healthz", "/nothing", "/"):
            async with session.get(path) as answer:
                assert answer.headers["Server"] == "replicator"
        base = session._base_url
        assert base is not None
        for _ in range(5):
            reader, writer = await asyncio.open_connection(base.host, base.port)
            writer.write(b"\x16\x03\x01 not HTTP at all\r\n\r\n")
            answered = await reader.read()
            assert b"400" in answered.partition(b"\r\n")[0]
            assert b"aiohttp" not in answered
            writer.close()
    assert "Traceback" not in caplog.text
    assert len([record for record in caplog.records if "malformed" in record.message]) <= 1


async def test_requests_in_progress_do_not_keep_out_health_metrics_and_the_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 16)
    async with served() as (_, session):
        base = session._base_url
        assert base is not None
        trickling = []
        for _ in range(40):
            reader, writer = await asyncio.open_connection(base.host, base.port)
            writer.write(b"POST /webhooks/hub HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n")
            writer.write(f"Authorization: Bearer {HOOK_TOKEN}\r\n\r\n{{".encode())
            trickling.append((reader, writer))
        # Those that are refused are answered and closed; the others wait for the rest of their body.
        loop = asyncio.get_running_loop()
        refused = {loop.create_task(reader.read()) for reader, _ in trickling}
        while sum(task.done() for task in refused) < 30:
            await asyncio.wait(
                [task for task in refused if not task.done()], return_when=asyncio.FIRST_COMPLETED
            )
        assert all(b" 503 " in task.result() for task in refused if task.done() and task.result())
        for path in ("/healthz", "/readyz", "/metrics"):
            assert await status(session, "GET", path) == 200
        assert await status(session, "GET", "/api/v1/rules") == 503
        assert await status(session, "GET", "/api/v1/rules", BEARER) == 200
        for _, writer in trickling:
            writer.close()
        await asyncio.wait(refused)


async def test_wrong_tokens_from_many_connections_do_not_keep_out_the_right_one() -> None:
    async with served(config(listen=ANYWHERE)) as (_, owner):
        base = owner._base_url
        assert base is not None
        connector = aiohttp.TCPConnector(limit=200)
        async with (
            aiohttp.ClientSession(base, connector=connector) as attacker,
            asyncio.TaskGroup() as tasks,
        ):

            async def guess(number: int) -> int:
                headers = {"Authorization": f"Bearer wrong-{number}"}
                return await status(attacker, "GET", "/api/v1/rules", headers)

            guesses = [tasks.create_task(guess(number)) for number in range(400)]
            assert await status(owner, "GET", "/api/v1/rules", BEARER) == 200
        assert {guess.result() for guess in guesses} <= {401, 503}
