"""What `serve` keeps within bounds: clients, users, time, and the damage of a broken store."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import bcrypt
import pytest
import trustme

from replicator.demo.images import image, layer
from replicator.errors import ConfigError, NotFound, Rejected, Throttled, Unavailable
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.http import protocol
from replicator.http.attempts import TooManyAttempts
from replicator.model.digest import digest_of
from replicator.ports import ObjectPage
from replicator.serve import sendfile, sending, server
from replicator.serve.users import Users
from replicator.sites.layouts.distribution.paths import blob_data
from replicator.sites.objects.local.store import LocalStore
from replicator.sites.objects.settings import LocalSettings
from tests.fakes.clock import FakeClock
from tests.fakes.layouts import put_image
from tests.fakes.objects import MemoryStore
from tests.fakes.serving import Served, layout_site, serving

BIG = layer("big", 24_000_000)
"""More than the kernel takes for a client that does not read."""
DIGEST = digest_of(BIG.data)
IMAGE = image("limits", [BIG])
BLOB = f"/v2/app/blobs/{DIGEST}"
PATIENCE_SECONDS = 60.0


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalStore]:
    store = LocalStore(LocalSettings("shelf", tmp_path / "shelf"), events=Events(), clock=SystemClock())
    await put_image(layout_site("distribution", store).repository("app"), IMAGE, "v1")
    yield store
    await store.aclose()


@pytest.fixture
async def memory() -> MemoryStore:
    store = MemoryStore()
    await put_image(layout_site("distribution", store).repository("app"), IMAGE, "v1")
    return store


async def until(true: Callable[[], bool]) -> None:
    """Waits for others' tasks."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not true():  # noqa: ASYNC110 - there is no event to wait for, on purpose of what is tested
            await asyncio.sleep(0.005)


@asynccontextmanager
async def raw(served: Served) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which nothing is read before it is asked for."""
    host, _, port = served.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def request(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode()


# --- connections ---


@asynccontextmanager
async def busy(served: Served, count: int) -> AsyncIterator[None]:
    """That many connections that are being sent a blob, and take none of it."""
    async with contextlib.AsyncExitStack() as stack:
        before = len(served.answered)
        for number in range(1, count + 1):
            _, writer = await stack.enter_async_context(raw(served))
            writer.write(request(BLOB))
            await until(lambda number=number: served.under_way >= number)  # type: ignore[misc]
        assert len(served.answered) == before
        yield


async def test_connection_too_many_is_told_when_to_come_again(local: LocalStore) -> None:
    async with serving(layout_site("distribution", local), max_connections=1) as served:
        async with busy(served, 1):
            reply = await served.get("/v2/")
            assert reply.code == (503, "TOOMANYREQUESTS")
            assert reply.headers["Retry-After"] == "5"
            assert [one.operation for one in served.answered] == ["refused"]
        await until(lambda: served.server.connections == 0)
        assert (await served.get("/v2/")).status == 200


async def test_idle_connections_give_way(local: LocalStore) -> None:
    async with (
        serving(layout_site("distribution", local), max_connections=3) as served,
        raw(served) as (first, writer),
        raw(served),
        raw(served),
    ):
        writer.write(request("/v2/"))
        assert b"200" in await first.readline()
        await until(lambda: served.server.connections == 3)
        assert (await served.get("/v2/")).status == 200
        assert served.server.connections == 3
        assert {one.operation for one in served.answered} == {"ping"}


async def test_one_address_has_half_of_the_places_and_health_and_metrics_always_one(
    local: LocalStore,
) -> None:
    exposed = lambda _: (b"figures", "text/plain")  # noqa: E731 - short
    async with (
        serving(layout_site("distribution", local), max_connections=8, expose=exposed) as served,
        busy(served, 3),
    ):
        reply = await served.get(f"/v2/app/manifests/{IMAGE.digest}")
        assert reply.code == (503, "TOOMANYREQUESTS")
        assert (reply.headers["Retry-After"], reply.headers["Connection"]) == ("5", "close")
        for path in ("/v2/", "/metrics"):
            assert (await served.get(path)).status == 200


async def test_known_user_comes_before_strangers_who_hold_all_their_places(
    local: LocalStore, htpasswd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, right, wrong = Users(htpasswd), basic("ann", "secret"), basic("x", "y")
    async with serving(layout_site("distribution", local), max_connections=8, users=users) as served:
        first = await served.get("/v2/", Authorization=right, Connection="close")
        assert first.status == 200
        go_on, knows = asyncio.Event(), users.knows

        async def knows_later(authorization: str, peer: str = "") -> str | None:
            await go_on.wait()
            return await knows(authorization, peer)

        monkeypatch.setattr(users, "knows", knows_later)
        async with asyncio.TaskGroup() as tasks:
            strangers = [tasks.create_task(served.get("/v2/", Authorization=wrong)) for _ in range(3)]
            await until(lambda: served.under_way == 3)
            refused = await served.get("/v2/", Authorization=wrong)
            mine = tasks.create_task(served.get("/v2/", Authorization=right))
            await until(lambda: served.under_way == 4)
            go_on.set()
    assert refused.code == (503, "TOOMANYREQUESTS")
    assert mine.result().status == 200
    assert {one.result().status for one in strangers} == {401}


async def test_malformed_requests_are_one_line_in_the_log(
    local: LocalStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_malformed", protocol.MalformedLog())
    async with serving(layout_site("distribution", local)) as served:
        for _ in range(5):
            async with raw(served) as (reader, writer):
                writer.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
                answer = await reader.read()
                assert answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
                assert b"Server: replicator\r\n" in answer
        assert served.reported == []
    [line] = caplog.records
    assert line.exc_info is None
    assert line.getMessage().startswith("malformed HTTP request from 127.0.0.1")


async def test_many_connections_at_once_do_not_pass_the_limit(local: LocalStore) -> None:
    async with serving(layout_site("distribution", local), max_connections=3) as served:
        replies = await _at_once(served, 30)
        assert set(replies) <= {200, 503, None}  # None: idle, and its place was needed
        assert replies.count(200) >= 3
        assert served.server.connections <= 3


async def _at_once(served: Served, count: int) -> list[int | None]:
    """The statuses that so many connections get; None for one that was closed without an answer."""
    host, _, port = served.url.removeprefix("http://").partition(":")
    replies: list[int | None] = []
    everybody = asyncio.Barrier(count)

    async def ask() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        await everybody.wait()
        writer.write(request("/v2/"))
        try:
            status = (await reader.readline()).split()[1:2]
        except ConnectionError:
            status = []
        replies.append(int(status[0]) if status else None)
        await everybody.wait()
        writer.transport.abort()

    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(ask())
    return replies


@pytest.mark.parametrize("said", [b"", b"GET /v2/ HTTP/1.1\r\nHost:"], ids=["nothing", "half a head"])
async def test_connection_that_says_nothing_is_closed(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.05)
    async with serving(layout_site("distribution", local)) as served, raw(served) as (reader, writer):
        writer.write(said)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await reader.read() == b""
        assert served.answered == []


@pytest.mark.parametrize("files", [True, False], ids=["sendfile", "stream"])
async def test_client_that_takes_nothing_is_let_go(
    local: LocalStore, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch, *, files: bool
) -> None:
    for module in (sending, sendfile):
        monkeypatch.setattr(module, "STALL_SECONDS", 0.1)
    site = layout_site("distribution", local if files else memory)
    async with serving(site) as served, raw(served) as (_, writer):
        writer.write(request(BLOB))
        await until(lambda: len(served.answered) == 1)
    [told] = served.answered
    assert (told.status, told.whole) == (200, False)
    assert 0 < told.size < len(BIG.data)
    assert served.sent["blob"] == told.size


@pytest.mark.parametrize("files", [True, False], ids=["sendfile", "stream"])
async def test_client_that_leaves_is_told_of_as_not_served_whole(
    local: LocalStore, memory: MemoryStore, *, files: bool
) -> None:
    async with serving(layout_site("distribution", local if files else memory)) as served:
        async with raw(served) as (reader, writer):
            writer.write(request(BLOB))
            await reader.readline()
        await until(lambda: len(served.answered) == 1)
        assert not served.answered[0].whole
        assert (await served.get(BLOB)).body == BIG.data
        await until(lambda: len(served.answered) == 2)  # told of after the last byte is out
        assert served.answered[1].whole


async def test_work_for_a_client_that_has_left_ends(memory: MemoryStore) -> None:
    class Endless(MemoryStore):
        pages = 0

        async def list(self, prefix: str, *, delimiter: bool = False) -> AsyncIterator[ObjectPage]:
            while True:
                self.pages += 1
                yield ObjectPage((), ())
                await asyncio.sleep(0.001)

    store = Endless(objects=memory.objects)
    async with serving(layout_site("distribution", store)) as served:
        for path in ("/v2/_catalog", "/v2/app/tags/list"):
            before = store.pages
            async with raw(served) as (_, writer):
                writer.write(request(path))
                await until(lambda before=before: store.pages > before)  # type: ignore[misc]
            await until(lambda: not served.under_way)
            pages = store.pages
            await asyncio.sleep(0.05)
            assert store.pages == pages
        assert [told.whole for told in served.answered] == [False, False]


async def test_many_slow_clients_do_not_keep_others_waiting(local: LocalStore) -> None:
    async with serving(layout_site("distribution", local)) as served:
        connections = [raw(served) for _ in range(100)]  # more than the store has reads at once
        opened = [await one.__aenter__() for one in connections]
        for _, writer in opened:
            writer.write(request(BLOB))
        await until(lambda: served.sent.get("blob", 0) > 100 * 1000)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await served.get(BLOB)).body == BIG.data
        for one in connections:
            await one.__aexit__(None, None, None)
        await until(lambda: len(served.answered) == 101)


# --- the end ---


@pytest.mark.parametrize("files", [True, False], ids=["sendfile", "stream"])
async def test_end_waits_for_what_is_being_sent(
    local: LocalStore, memory: MemoryStore, *, files: bool
) -> None:
    ended = asyncio.Event()
    told: list[Served] = []

    async def serve() -> None:
        async with serving(layout_site("distribution", local if files else memory)) as served:
            told.append(served)
            await ended.wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve())
        await until(lambda: bool(told) and bool(told[0].url))
        async with raw(told[0]) as (reader, writer):
            writer.write(request(BLOB))
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"200 OK" in head
            ended.set()
            # Not earlier: asyncio (of Python 3.11) leaks a connection that comes while it stops listening.
            await until(lambda: told[0].server._door is not None and told[0].server._door._is_closed)
            with pytest.raises(ConnectionRefusedError):
                async with raw(told[0]):
                    pass
            assert not task.done()
            assert await reader.readexactly(len(BIG.data)) == BIG.data
            assert await reader.read() == b""


async def test_end_does_not_wait_for_ever(local: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DRAIN_SECONDS", 0.05)
    site = layout_site("distribution", local)
    async with asyncio.timeout(PATIENCE_SECONDS):
        async with serving(site) as served:
            stuck = raw(served)
            _, writer = await stuck.__aenter__()
            writer.write(request(BLOB))
            await until(lambda: served.sent.get("blob", 0) > 0)
    assert [one.whole for one in served.answered] == [False]
    await stuck.__aexit__(None, None, None)


# --- broken stores ---


async def test_store_that_fails_in_the_middle_breaks_the_connection(memory: MemoryStore) -> None:
    class Breaking(MemoryStore):
        @asynccontextmanager
        async def read(
            self, key: str, offset: int = 0, *, size: int | None = None
        ) -> AsyncIterator[AsyncIterator[bytes]]:
            async def chunks() -> AsyncIterator[bytes]:
                yield BIG.data[:100_000]
                raise Unavailable(self.site, "read object", "reset")

            yield chunks()

    store = Breaking(objects=memory.objects)
    async with serving(layout_site("distribution", store)) as served:
        with pytest.raises(aiohttp.ClientPayloadError):
            await served.get(BLOB)
        await until(lambda: len(served.answered) > 0)
        [told] = served.answered
        assert (told.status, told.size, told.whole) == (200, 100_000, False)
        assert [str(one) for one in served.reported] == ["store: app: read object: reset"]
        assert (await served.get("/v2/")).status == 200


@pytest.mark.parametrize(
    ("error", "status", "code", "retry"),
    [
        (Unavailable("store", "read", "secret of ours"), 503, "UNAVAILABLE", "5"),
        (Throttled("store", "read", "secret of ours", retry_after=41.5), 503, "UNAVAILABLE", "42"),
        (Rejected("store", "read", "secret of ours"), 404, "BLOB_UNKNOWN", None),
        (NotFound("store", "read", "secret of ours"), 404, "BLOB_UNKNOWN", None),
    ],
)
async def test_failure_of_the_store_is_worded_and_its_cause_kept(
    memory: MemoryStore, error: Unavailable, status: int, code: str, retry: str | None
) -> None:
    memory.fail("read", blob_data(DIGEST), error)
    async with serving(layout_site("distribution", memory)) as served:
        reply = await served.get(BLOB)
        assert reply.code == (status, code)
        assert reply.headers.get("Retry-After") == retry
        assert b"secret" not in reply.body
        assert served.reported == ([] if isinstance(error, NotFound) else [error])
        assert (await served.get(BLOB)).body == BIG.data


async def test_altered_content_is_not_served_where_it_can_be_told(local: LocalStore, tmp_path: Path) -> None:
    config = IMAGE.manifest.config
    assert config is not None
    for digest in (IMAGE.digest, config.digest):
        path = tmp_path / "shelf" / blob_data(digest)
        path.write_bytes(path.read_bytes().replace(b"e", b"f", 1))
    async with serving(layout_site("distribution", local)) as served:
        for path_ in ("manifests/v1", f"manifests/{IMAGE.digest}", f"blobs/{config.digest}"):
            reply = await served.get(f"/v2/app/{path_}")
            assert reply.code == (500, "UNKNOWN")
        assert len(served.reported) == 3


async def test_blob_that_becomes_shorter_is_not_taken_for_whole(local: LocalStore, tmp_path: Path) -> None:
    async with serving(layout_site("distribution", local)) as served:
        assert (await served.head(BLOB)).status == 200
        with (tmp_path / "shelf" / blob_data(DIGEST)).open("r+b") as file:
            file.truncate(1_000_000)
        assert (await served.get(BLOB)).code == (500, "UNKNOWN")


async def test_link_out_of_the_root_is_not_followed(local: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(BIG.data)
    path = tmp_path / "shelf" / blob_data(DIGEST)
    path.unlink()
    path.symlink_to(outside)
    async with serving(layout_site("distribution", local)) as served:
        assert (await served.get(BLOB)).code == (404, "BLOB_UNKNOWN")
        assert len(served.reported) == 1


async def test_deleted_content_is_gone_after_a_minute(memory: MemoryStore) -> None:
    clock = FakeClock()
    async with serving(layout_site("distribution", memory), clock=clock) as served:
        for path in (f"/v2/app/manifests/{IMAGE.digest}", BLOB):
            assert (await served.head(path)).status == 200
        memory.objects.clear()
        clock.advance(59)
        assert (await served.head(f"/v2/app/manifests/{IMAGE.digest}")).status == 200
        assert (await served.get(BLOB)).code == (404, "BLOB_UNKNOWN")  # it is looked for when it is sent
        clock.advance(1)
        for path in (f"/v2/app/manifests/{IMAGE.digest}", BLOB):
            assert (await served.head(path)).status == 404


async def test_manifest_by_digest_is_read_once(memory: MemoryStore) -> None:
    async with serving(layout_site("distribution", memory)) as served:
        await served.get("/v2/app/manifests/v1")
        before = memory.calls.total()
        for _ in range(5):
            assert (await served.get(f"/v2/app/manifests/{IMAGE.digest}")).body == IMAGE.manifest.body
        assert memory.calls.total() == before


async def test_listing_is_paged_from_one_look(memory: MemoryStore) -> None:
    repository = layout_site("distribution", memory).repository("app")
    for number in range(20):
        await repository.write_manifest(IMAGE.manifest, f"t{number:02}")
    async with serving(layout_site("distribution", memory)) as served:
        following, found = "/v2/app/tags/list?n=4", []
        before = memory.calls["list"]
        while following:
            reply = await served.get(following)
            found += reply.json["tags"]
            following = reply.headers.get("Link", "").partition(">")[0].removeprefix("<")
        assert found == [*(f"t{number:02}" for number in range(20)), "v1"]
        assert memory.calls["list"] - before == 1


# --- users ---


def hashed(password: bytes, prefix: bytes = b"2b") -> str:
    made = bcrypt.hashpw(password, bcrypt.gensalt(4))
    return made.replace(b"$2b$", b"$%b$" % prefix).decode()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def change(path: Path, text: str | None) -> None:
    """Writes the file, or removes it."""
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    path.write_text(f"# who may pull\n\nann:{hashed(b'secret')}\nben:{hashed('pä:ss'.encode(), b'2y')}\n")
    return path


async def test_every_wrong_password_costs_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in rounds of bcrypt: seconds say little on a busy machine."""
    rounds: list[int] = []
    checkpw = bcrypt.checkpw

    def counting(password: bytes, hashed: bytes) -> bool:
        rounds.append(2 ** int(hashed[4:6]))
        return checkpw(password, hashed)

    path = tmp_path / "htpasswd"
    hashes = {user: bcrypt.hashpw(b"secret", bcrypt.gensalt(cost)) for user, cost in (("ann", 4), ("ben", 6))}
    path.write_text("".join(f"{user}:{hashed.decode()}\n" for user, hashed in hashes.items()))
    users = Users(path)
    monkeypatch.setattr(bcrypt, "checkpw", counting)
    for user in ("ann", "ben", "nobody"):
        rounds.clear()
        assert await users.knows(basic(user, "wrong")) is None
        assert sum(rounds) == 2**6


async def test_wrong_passwords_from_many_connections_do_not_keep_out_others(htpasswd: Path) -> None:
    users = Users(htpasswd)
    known, outcomes = basic("ann", "secret"), list[str]()
    assert await users.knows(known, "attacker") == "ann"

    async def guess(number: int) -> None:
        try:
            await users.knows(basic("ann", f"wrong {number}"), "attacker")
            outcomes.append("wrong")
        except TooManyAttempts:
            outcomes.append("refused")

    async with asyncio.TaskGroup() as tasks:
        guesses = [tasks.create_task(guess(number)) for number in range(200)]
        await asyncio.sleep(0)
        assert await users.knows(known, "attacker") == "ann"  # was right before: costs no turn
        assert await users.knows(basic("ben", "pä:ss"), "elsewhere") == "ben"
        assert not all(guess.done() for guess in guesses)
        for each in guesses:
            each.cancel()
    assert outcomes.count("refused") > 100


async def test_only_users_may_pull(memory: MemoryStore, htpasswd: Path) -> None:
    site, users = layout_site("distribution", memory), Users(htpasswd)
    async with serving(site, users=users, expose=lambda _: (b"metrics", "text/plain")) as served:
        for path in ("/v2/", "/v2/_catalog", BLOB, "/metrics", "/nothing"):
            reply = await served.get(path)
            assert reply.code == (401, "UNAUTHORIZED")
            assert reply.headers["WWW-Authenticate"].startswith('Basic realm="')
        assert (await served.get(BLOB, "PUT")).code == (401, "UNAUTHORIZED")
        for user, password in (("ann", "secret"), ("ann", "secret"), ("ben", "pä:ss")):
            assert (
                await served.get("/v2/app/manifests/v1", Authorization=basic(user, password))
            ).status == 200
            assert served.answered[-1].user == user
        assert (await served.get("/metrics", Authorization=basic("ann", "secret"))).body == b"metrics"


async def test_wrong_credentials_prove_nobody(htpasswd: Path) -> None:
    users = Users(htpasswd)
    assert await users.knows(basic("ann", "secret")) == "ann"
    for wrong in (
        "",
        "Basic",
        "Basic !!!",
        "Bearer abc",
        "Basic " + base64.b64encode(b"ann").decode(),
        "Basic " + base64.b64encode(b"\xff:secret").decode(),
        basic("ann", ""),
        basic("ann", "Secret"),
        basic("ann", "se\0cret"),
        basic("ben", "secret"),
        basic("", "secret"),
        basic("nobody", "secret"),
    ):
        assert await users.knows(wrong) is None
    assert await users.knows(basic("ann", "secret").replace("Basic", "bAsIc")) == "ann"


async def test_password_is_cut_off_where_htpasswd_cuts_it_off(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(f"ann:{hashed(b'x' * 72)}\n")
    assert await Users(path).knows(basic("ann", "x" * 100)) == "ann"


async def test_changed_file_counts_at_once(htpasswd: Path) -> None:
    users = Users(htpasswd)
    assert await users.knows(basic("ann", "secret")) == "ann"
    change(htpasswd, f"ann:{hashed(b'another secret')}\n")
    assert await users.knows(basic("ann", "secret")) is None
    assert await users.knows(basic("ben", "pä:ss")) is None
    assert await users.knows(basic("ann", "another secret")) == "ann"


async def test_file_that_became_unusable_lets_nobody_in(memory: MemoryStore, htpasswd: Path) -> None:
    async with serving(layout_site("distribution", memory), users=Users(htpasswd)) as served:
        assert (await served.get("/v2/", Authorization=basic("ann", "secret"))).status == 200
        change(htpasswd, "ann:{SHA}nope\n")
        assert (await served.get("/v2/", Authorization=basic("ann", "secret"))).code == (500, "UNKNOWN")
        change(htpasswd, None)
        assert (await served.get("/v2/", Authorization=basic("ann", "secret"))).code == (500, "UNKNOWN")
        assert [type(one) for one in served.reported] == [ConfigError, ConfigError]


def test_every_line_that_is_no_user_is_an_error_that_keeps_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(f"ann:{hashed(b'x')}\nben:$apr1$abc$def\ncem\ndan:$2y$05$short\n:{hashed(b'x')}\n")
    with pytest.raises(ConfigError) as caught:
        Users(path)
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == [
        f"{path}:{number}" for number in (2, 3, 4, 5)
    ]
    assert "bcrypt" in caught.value.problems[0]
    assert "apr1" not in str(caught.value)
    path.write_text("# nobody\n")
    with pytest.raises(ConfigError, match="nobody could pull"):
        Users(path)


# --- TLS ---


async def test_tls_serves_the_same(local: LocalStore) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    connector = aiohttp.TCPConnector(ssl=trusting)
    async with serving(layout_site("distribution", local), tls=context, connector=connector) as served:
        assert served.url.startswith("https://")
        assert (await served.get(BLOB)).body == BIG.data
        assert (await served.get(BLOB, Range="bytes=23000000-23000009")).body == BIG.data[23000000:23000010]
        assert (await served.get("/v2/app/manifests/v1")).body == IMAGE.manifest.body
