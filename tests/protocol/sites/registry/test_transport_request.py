from __future__ import annotations

import asyncio
import email.utils
import json

import pytest
from aiohttp import web
from yarl import URL

from replicator.errors import (
    Advice,
    AuthFailed,
    Corrupt,
    Denied,
    MissingReference,
    NotFound,
    Overloaded,
    Rejected,
    SiteError,
    Throttled,
    Transient,
    Unavailable,
    Unsupported,
)
from replicator.events import QuotaSeen, RequestDone, RetryPlanned
from replicator.flow.retry import Budget
from replicator.sites.registry.call import PAYLOAD_BYTES
from replicator.sites.registry.errormap import authority, network_failure
from replicator.sites.registry.http import Call
from replicator.sites.registry.settings import Quota
from tests.fakes.clock import FakeClock
from tests.fakes.scripted import QUICK, SHORT, head_of, raw, rig, scripted

READ = Call("read manifest", "GET", "/v2/a/b/manifests/latest", repository="a/b")
ONCE = Budget(attempts=1)


async def test_reply_has_status_headers_and_exact_body() -> None:
    async def answer(request: web.Request) -> web.Response:
        response = web.Response(body=b'{ "exact" :  1}')
        response.headers.add("Link", "<a>; rel=next")
        response.headers.add("Link", "<b>; rel=prev")
        return response

    async with scripted(answer) as server, rig(server.url) as here:
        reply = await here.transport.request(READ)
    assert (reply.status, reply.body) == (200, b'{ "exact" :  1}')
    assert reply.headers.getall("link") == ["<a>; rel=next", "<b>; rel=prev"]
    assert str(reply.url) == f"{server.url}/v2/a/b/manifests/latest"


async def test_path_prefix_and_odd_bytes_of_the_url_are_kept() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response()

    async with scripted(answer, ping=False) as server, rig(f"{server.url}/some/prefix") as here:
        await here.transport.request(Call("x", "GET", "/v2/a/tags/list?last=a%2Fb+c%7E&n=5", repository="a"))
        await here.transport.request(
            Call("x", "GET", f"{server.url}/opaque?_state=a%2fB%3D=+~", repository="a")
        )
    assert [seen.target for seen in server.seen] == [
        "/some/prefix/v2/",
        "/some/prefix/v2/a/tags/list?last=a%2Fb+c%7E&n=5",
        "/opaque?_state=a%2fB%3D=+~",
    ]


async def test_a_body_in_memory_is_sent_whole_however_large_the_blob_is() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    call = Call("upload blob", "PUT", "/v2/a/b", body=bytes(PAYLOAD_BYTES), blob_bytes=PAYLOAD_BYTES)
    async with scripted(answer) as server, rig(server.url) as here:
        assert int((await here.transport.request(call)).body) == PAYLOAD_BYTES


async def test_requests_say_who_asks_and_want_no_compression() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(headers={"Set-Cookie": "sid=1"})

    async with scripted(answer) as server, rig(server.url) as here:
        await here.transport.request(READ)
        await here.transport.request(READ)
    last = server.seen[-1].headers
    assert last["User-Agent"].startswith("replicator/")
    assert last["Accept-Encoding"] == "identity"
    assert "Cookie" not in last


def _errors(code: str, message: str = "", detail: object = None) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": detail}]}).encode()


@pytest.mark.parametrize(
    ("body", "doubtful"),
    [
        (_errors("NAME_UNKNOWN"), False),
        (_errors("NOT_FOUND"), False),
        (_errors("404"), True),
        (b'{"code": "404", "message": "no route"}', True),
        (b"<html><h1>404 Not Found</h1></html>", True),
        (b"", True),
        (b"{}", True),
    ],
)
async def test_not_found_in_other_words_than_the_registrys_own_is_doubtful(
    body: bytes, *, doubtful: bool
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=404, body=body)

    async with scripted(answer) as server, rig(server.url, budget=ONCE) as here:
        with pytest.raises(NotFound) as caught:
            await here.transport.request(READ)
    assert caught.value.doubtful is doubtful
    assert caught.value.about("tag v1").doubtful is doubtful


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("seconds", "advice"), [(300, Advice.RETRY), (301, Advice.STOP_SITE)])
async def test_site_that_wants_to_be_left_alone_for_long_is_asked_nothing_more_in_this_run(
    status: int, seconds: int, advice: Advice
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Retry-After": str(seconds)})

    async with scripted(answer) as server, rig(server.url, budget=ONCE) as here:
        with pytest.raises(Transient) as caught:
            await here.transport.request(READ)
    assert (caught.value.advice, caught.value.retry_after) == (advice, seconds)


@pytest.mark.parametrize(
    ("status", "body", "expected", "advice"),
    [
        (404, _errors("MANIFEST_UNKNOWN", "manifest unknown"), NotFound, Advice.LATER),
        (
            404,
            b"<html><head><title>404 Not Found</title></head><body>long</body></html>",
            NotFound,
            Advice.LATER,
        ),
        (404, _errors("BLOB_UPLOAD_UNKNOWN"), Rejected, Advice.GIVE_UP),
        (403, _errors("DENIED", "no"), Denied, Advice.GIVE_UP),
        (401, _errors("UNAUTHORIZED"), AuthFailed, Advice.GIVE_UP),
        (405, _errors("UNSUPPORTED"), Unsupported, Advice.GIVE_UP),
        (400, _errors("UNSUPPORTED"), Unsupported, Advice.GIVE_UP),
        (501, b"", Unsupported, Advice.GIVE_UP),
        (400, _errors("NAME_INVALID"), Rejected, Advice.GIVE_UP),
        (409, _errors("TAG_IMMUTABLE"), Rejected, Advice.GIVE_UP),
        (412, _errors("PRECONDITION"), Rejected, Advice.GIVE_UP),
        (413, b"<html>Request Entity Too Large</html>", Rejected, Advice.GIVE_UP),
        (416, _errors("RANGE_INVALID"), Rejected, Advice.GIVE_UP),
        (429, b"Too Many Requests", Throttled, Advice.LATER),
        (429, _errors("TOOMANYREQUESTS", "You have reached your pull rate limit."), Throttled, Advice.LATER),
        (
            400,
            b'{"__type":"com.amazonaws#ThrottlingException","message":"Rate exceeded"}',
            Throttled,
            Advice.LATER,
        ),
        (407, b"", Unavailable, Advice.STOP_SITE),
        (408, b"", Unavailable, Advice.RETRY),
        (500, _errors("UNKNOWN"), Unavailable, Advice.RETRY),
        (502, b"<h1>Bad Gateway</h1>", Unavailable, Advice.RETRY),
        (503, b"", Overloaded, Advice.LATER),
        (504, b"", Unavailable, Advice.RETRY),
        (520, b"", Unavailable, Advice.RETRY),
        (202, b"", Rejected, Advice.GIVE_UP),
    ],
)
async def test_status_and_codes_become_the_right_error(
    status: int, body: bytes, expected: type[SiteError], advice: Advice
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    async with scripted(answer) as server, rig(server.url, budget=ONCE) as here:
        with pytest.raises(SiteError) as caught:
            await here.transport.request(READ)
    error = caught.value
    assert type(error) is expected
    assert error.advice is advice
    assert (error.site, error.repository, error.operation) == ("here", "a/b", "read manifest")
    assert str(status) in error.cause
    assert "<" not in error.cause


async def test_codes_and_status_are_on_the_refusal() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=400, body=_errors("TAG_INVALID", "repository is immutable"))

    async with scripted(answer) as server, rig(server.url) as here:
        with pytest.raises(Rejected) as caught:
            await here.transport.request(READ)
    assert caught.value.codes == ("TAG_INVALID",)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "MANIFEST_BLOB_UNKNOWN", ""),
        (404, "MANIFEST_UNKNOWN", ""),
        (400, "MANIFEST_INVALID", "blob unknown to registry"),
    ],
)
async def test_missing_references_of_a_manifest_are_named(status: int, code: str, message: str) -> None:
    digests = [f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"]
    errors = [
        {"code": code, "message": message, "detail": {"digest": digest}} for digest in (*digests, digests[0])
    ]

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"errors": errors}, status=status)

    put = Call(
        "write manifest", "PUT", "/v2/a/b/manifests/v1", repository="a/b", actions="pull,push", body=b"{}"
    )
    async with scripted(answer) as server, rig(server.url) as here:
        with pytest.raises(MissingReference) as caught:
            await here.transport.request(put)
    assert list(caught.value.digests) == digests


@pytest.mark.parametrize(
    ("status", "code", "message", "detail", "expected"),
    [
        (
            401,
            "UNAUTHORIZED",
            "authentication required",
            [{"Type": "repository", "Class": "", "Name": "a/b", "Action": "pull"}],
            "401 Unauthorized: UNAUTHORIZED: authentication required",
        ),
        (
            404,
            "NAME_UNKNOWN",
            "repository name not known to registry",
            {"name": "a/b"},
            "404 Not Found: NAME_UNKNOWN: repository name not known to registry (name a/b)",
        ),
        (400, "TAG_INVALID", "", None, "400 Bad Request: TAG_INVALID"),
        (400, "", "", [{"a": {"deep": 1}, "b": 2, "c": ""}, "x"], "400 Bad Request: b 2"),
    ],
)
async def test_error_is_told_in_words_not_in_json(
    status: int, code: str, message: str, detail: object, expected: str
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, body=_errors(code, message, detail))

    async with scripted(answer) as server, rig(server.url, budget=ONCE) as here:
        with pytest.raises(SiteError) as caught:
            await here.transport.request(READ)
    assert caught.value.cause.startswith(expected)
    assert not set('{}[]"') & set(caught.value.cause)


async def test_error_shows_nothing_of_what_is_not_text() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=206, body=bytes(range(256)) * 100)

    async with scripted(answer) as server, rig(server.url) as here:
        with pytest.raises(Rejected) as caught:
            await here.transport.request(READ)
    assert caught.value.cause == "unexpected answer 206 Partial Content"


async def test_error_shows_little_and_only_printable_text() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=400, body=_errors("X", "\x1b[31mred\nline " + "y" * 5000))

    async with scripted(answer) as server, rig(server.url) as here:
        with pytest.raises(Rejected) as caught:
            await here.transport.request(READ)
    assert "\x1b" not in caught.value.cause
    assert "\n" not in caught.value.cause
    assert len(caught.value.cause) < 260


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "7"}, 7.0),
        (
            {
                "Retry-After": email.utils.formatdate(1_700_000_030, usegmt=True),
                "Date": email.utils.formatdate(1_700_000_000, usegmt=True),
            },
            30.0,
        ),
        ({"X-Retry-After": "1700000012"}, 12.0),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_read_in_all_its_forms(
    headers: dict[str, str], expected: float | None, status: int
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers)

    async with scripted(answer) as server, rig(server.url, budget=ONCE, clock=FakeClock()) as here:
        with pytest.raises(Throttled if status == 429 else Unavailable) as caught:
            await here.transport.request(READ)
    assert caught.value.retry_after == expected


async def test_safe_requests_are_tried_again_and_told() -> None:
    statuses = [503, 500, 200]

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=statuses.pop(0), body=b"done")

    async with scripted(answer) as server, rig(server.url) as here:
        assert (await here.transport.request(READ)).body == b"done"
    assert [e.code for e in here.events if isinstance(e, RequestDone)] == ["200", "503", "500", "200"]
    assert [e.reason for e in here.events if isinstance(e, RetryPlanned)] == ["unavailable", "unavailable"]


async def test_post_that_was_refused_for_the_load_was_not_taken_and_is_tried_again() -> None:
    statuses = iter((503, 429, 202))

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=next(statuses))

    expected = frozenset({202})
    post = Call("start upload", "POST", "/v2/a/blobs/uploads/", repository="a", expected=expected)
    async with scripted(answer) as server, rig(server.url) as here:
        assert (await here.transport.request(post)).status == 202
        assert len(server.to("/v2/a")) == 3


async def test_post_is_not_tried_again_unless_said_to_be_safe() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=500)

    post = Call("start upload", "POST", "/v2/a/blobs/uploads/", repository="a", actions="pull,push")
    async with scripted(answer) as server, rig(server.url) as here:
        with pytest.raises(Unavailable):
            await here.transport.request(post)
        assert len(server.to("/v2/a")) == 1
        with pytest.raises(Unavailable):
            await here.transport.request(Call("x", "POST", "/v2/b/", repository="b", idempotent=True))
        assert len(server.to("/v2/b")) == QUICK.attempts


async def test_ping_before_a_post_is_tried_again() -> None:
    statuses = [503, 200]

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=statuses.pop(0) if request.raw_path == "/v2/" else 202)

    post = Call("start upload", "POST", "/v2/a/blobs/uploads/", repository="a", expected=frozenset({202}))
    async with scripted(answer, ping=False) as server, rig(server.url) as here:
        assert (await here.transport.request(post)).status == 202
    assert [seen.target for seen in server.seen] == ["/v2/", "/v2/", "/v2/a/blobs/uploads/"]


@pytest.mark.parametrize("with_length", [0, 1])
async def test_too_long_a_reply_is_corrupt_and_not_read(with_length: int) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if with_length:
            return web.Response(body=b"x" * 1001)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x" * 1001)
        return response

    call = Call("read manifest", "GET", "/v2/a/manifests/x", repository="a", max_bytes=1000)
    async with scripted(answer) as server, rig(server.url) as here:
        with pytest.raises(Corrupt, match="longer than the 1000 bytes"):
            await here.transport.request(call)


async def test_head_of_something_large_is_no_large_reply() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(headers={"Content-Length": str(10**12)})

    async with scripted(answer) as server, rig(server.url) as here:
        reply = await here.transport.request(Call("look", "HEAD", "/v2/a/blobs/x", repository="a"))
    assert reply.headers["Content-Length"] == str(10**12)


async def test_server_that_says_nothing_is_given_up() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await reader.read()

    async with raw(talk) as url, rig(url, timeouts=SHORT, budget=ONCE) as here:
        with pytest.raises(Unavailable, match="no answer"):
            await here.transport.request(READ)
    assert [e.code for e in here.events if isinstance(e, RequestDone)] == ["timeout"]


async def test_body_that_hangs_is_given_up() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/v2/ " in await head_of(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await reader.read()

    async with raw(talk) as url, rig(url, timeouts=SHORT, budget=ONCE) as here:
        with pytest.raises(Unavailable, match="sent nothing"):
            await here.transport.request(READ)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
)
async def test_truncated_reply_is_never_taken_for_whole(reply: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/v2/ " in await head_of(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await head_of(reader)
        writer.write(reply)

    async with raw(talk) as url, rig(url, budget=ONCE) as here:
        with pytest.raises(Unavailable, match="broke off"):
            await here.transport.request(READ)


@pytest.mark.parametrize("reply", [b"220 smtp.example ESMTP\r\n", b"\x00\x01\x02", b""])
async def test_what_is_no_http_is_an_error_of_the_site(reply: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(reply)

    async with raw(talk) as url, rig(url, budget=ONCE) as here:
        with pytest.raises(Unavailable):
            await here.transport.request(READ)


async def test_connection_closed_while_idle_costs_no_failure() -> None:
    """A registry behind nginx closes idle connections whenever it likes; the next request must not fail for it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await head_of(reader)  # taken, and not answered

    async with raw(talk) as url, rig(url, budget=ONCE) as here:
        await here.transport.request(READ)
        assert (await here.transport.request(READ)).status == 200


async def test_refused_connection_names_host_port_and_reason() -> None:
    async with raw(lambda _r, _w: asyncio.sleep(0)) as url:
        pass
    async with rig(url, budget=ONCE) as here:
        with pytest.raises(Unavailable) as caught:
            await here.transport.request(READ)
    place = url.removeprefix("http://").rstrip("/")
    assert caught.value.cause == f"cannot connect to {place}: Connection refused"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://registry.example/v2/", "registry.example:443"),
        ("http://u:secret@[::1]:5000/v2/", "[::1]:5000"),
    ],
)
def test_place_that_cannot_be_reached_is_named_with_its_port_and_without_secrets(
    url: str, place: str
) -> None:
    failure = network_failure(TimeoutError(), authority(URL(url)))
    assert failure.cause == f"no answer from {place} in time"


async def test_congestion_reaches_the_gate_of_its_kind() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=429)

    async with scripted(answer) as server, rig(server.url, budget=ONCE) as here:
        with pytest.raises(Throttled):
            await here.transport.request(READ)
        widths = {kind: here.limits.slot(kind).gate.width for kind in ("requests", "reads")}  # type: ignore[attr-defined]
    assert widths == {"requests": 8, "reads": 16}


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (404, {}, b"not found"),
        (200, {"Content-Type": "text/html"}, b"<html>Welcome to nginx!</html>"),
        (302, {"Location": "https://elsewhere.example/login?token=x"}, b""),
    ],
)
async def test_what_is_no_registry_is_said_so_and_asked_no_more(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers, body=body)

    async with scripted(answer, ping=False) as server, rig(server.url) as here:
        with pytest.raises(Unsupported, match="not a registry") as caught:
            await here.transport.request(READ)
    assert caught.value.advice is Advice.STOP_SITE
    assert "token=x" not in str(caught.value)
    assert len(server.seen) == 1


# --- quota --------------------------------------------------------------------------------------------------


async def _hub(request: web.Request, remaining: list[int]) -> web.Response:
    told = remaining.pop(0) if len(remaining) > 1 else remaining[0]
    return web.Response(headers={"ratelimit-limit": "100;w=21600", "ratelimit-remaining": f"{told};w=21600"})


async def test_remaining_pulls_are_told() -> None:
    async with scripted(lambda r: _hub(r, [76])) as server, rig(server.url) as here:
        await here.transport.request(READ)
    assert [e.remaining for e in here.events if isinstance(e, QuotaSeen)] == [76]


async def test_manifests_wait_while_only_the_reserve_is_left_and_ask_by_head() -> None:
    clock = FakeClock()
    remaining = [11, 10, 10, 12, 11]
    quota = Quota(reserve=10, below="wait")
    async with (
        scripted(lambda r: _hub(r, remaining)) as server,
        rig(server.url, quota=quota, clock=clock) as here,
    ):
        await here.transport.request(READ)
        await here.transport.request(READ)
        await here.transport.request(READ)
    assert [seen.method for seen in server.to("/v2/a")] == ["GET", "GET", "HEAD", "HEAD", "GET"]
    assert clock.slept == [216.0, 216.0]


async def test_manifests_stop_the_site_where_that_is_configured() -> None:
    clock = FakeClock()
    remaining = [10, 50]
    quota = Quota(reserve=10, below="stop")
    async with (
        scripted(lambda r: _hub(r, remaining)) as server,
        rig(server.url, quota=quota, clock=clock) as here,
    ):
        await here.transport.request(READ)
        with pytest.raises(Throttled, match="10 pulls left") as caught:
            await here.transport.request(READ)
        assert caught.value.advice is Advice.STOP_SITE
        await here.transport.request(Call("look", "HEAD", READ.url, repository="a/b"))
        await here.transport.request(READ)
    assert clock.slept == []
