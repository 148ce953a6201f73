"""S3 on this machine: moto as a server, versitygw for the interop tests, and a proxy in front of it that misbehaves on demand."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from aiobotocore.session import AioSession
from aiohttp import web
from moto.server import ThreadedMotoServer
from yarl import URL

from replicator.sites.objects.settings import S3Keys, S3Settings
from tests.fakes.process import free_port, require, running

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_HOP = frozenset({"host", "connection", "content-length", "transfer-encoding", "date", "server"})


def _conditions_in_turn(app: WSGIApplication) -> WSGIApplication:
    """S3 answers conditional writes one after the other; moto looks and writes in two steps, on many threads."""
    turn = threading.Lock()

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        is_conditional = "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MATCH" in environ
        with turn if is_conditional else contextlib.nullcontext():
            return app(environ, start)

    return answer


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """The endpoint of a fresh moto on a free port. Everything it keeps is in this process's memory."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    http = server._server
    assert http is not None
    http.app = _conditions_in_turn(http.app)
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


KEYS = S3Keys(lambda: "AKIAEXAMPLE", lambda: "secret")


@contextlib.contextmanager
def versitygw(folder: Path) -> Iterator[str]:
    """The endpoint of a versitygw, an S3 server whose buckets are the folders of a directory."""
    buckets, port = folder / "buckets", free_port()
    buckets.mkdir()
    # ETags are extended attributes: in a folder beside (--sidecar) they would not change at once with the content.
    backend = ["posix", str(buckets)]
    login = {"ROOT_ACCESS_KEY": KEYS.access_key(), "ROOT_SECRET_KEY": KEYS.secret_key()}
    command = [require("versitygw"), "--port", f"127.0.0.1:{port}", "--quiet", *backend]
    with running(command, folder / "log", **login) as process:
        process.wait_until_listening(port)
        yield f"http://127.0.0.1:{port}"


def settings(endpoint: str, bucket: str, **more: Any) -> S3Settings:
    """A site called "bucket"; `more` is any other field."""
    known: dict[str, Any] = {"name": "bucket", "region": "us-east-1", "keys": KEYS}
    return S3Settings(bucket=bucket, endpoint=endpoint, **(known | more))


@contextlib.asynccontextmanager
async def raw_client(endpoint: str) -> AsyncIterator[Any]:
    """A client beside ours, to prepare and to look."""
    session = AioSession()
    async with session.create_client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="AKIAEXAMPLE",
        aws_secret_access_key="secret",
    ) as client:
        yield client


Reply = Callable[[web.Request, "Forward"], Any]


@dataclass
class Forward:
    """What the real server says: asked only if the fault wants it."""

    session: aiohttp.ClientSession
    target: str
    request: web.Request

    async def __call__(self, **changed: str | None) -> tuple[int, dict[str, str], bytes]:
        headers = {name: value for name, value in self.request.headers.items() if name.lower() not in _HOP}
        for name, value in changed.items():
            headers.pop(name.replace("_", "-"), None)
            if value is not None:
                headers[name.replace("_", "-")] = value
        url = URL(self.target + self.request.raw_path, encoded=True)
        body = io.BytesIO(await self.request.read())  # aiohttp warns of large bytes
        async with self.session.request(self.request.method, url, headers=headers, data=body) as reply:
            kept = {name: value for name, value in reply.headers.items() if name.lower() not in _HOP}
            if self.request.method == "HEAD":
                kept["Content-Length"] = reply.headers["Content-Length"]
            return reply.status, kept, await reply.read()


@dataclass
class Fault:
    """What goes wrong with requests of `method` whose path and query contain `where`, `times` times."""

    method: str
    where: str
    reply: Reply
    times: int = 1


@dataclass
class Faulty:
    """A proxy in front of an S3 endpoint. `faults` are looked through in order; `seen` is every request."""

    endpoint: str = ""
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)

    def on(self, method: str, where: str, reply: Reply, times: int = 1) -> None:
        self.faults.append(Fault(method, where, reply, times))

    def count(self, method: str, where: str = "") -> int:
        return sum(method == seen and where in path for seen, path in self.seen)


@contextlib.asynccontextmanager
async def faulty(target: str) -> AsyncIterator[Faulty]:
    """A `Faulty` before the endpoint `target`."""
    proxy = Faulty()
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def handle(request: web.Request) -> web.StreamResponse:
            proxy.seen.append((request.method, request.raw_path))
            forward = Forward(session, target, request)
            for fault in proxy.faults:
                if fault.times and fault.method == request.method and fault.where in request.raw_path:
                    fault.times -= 1
                    return await fault.reply(request, forward)  # type: ignore[no-any-return]
            status, headers, body = await forward()
            return _response(request, status, headers, body)

        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            proxy.endpoint = f"http://127.0.0.1:{port}"
            yield proxy
        finally:
            await runner.cleanup()


def _response(request: web.Request, status: int, headers: dict[str, str], body: bytes) -> web.Response:
    if request.method == "HEAD":
        return web.Response(status=status, headers=headers)
    return web.Response(status=status, headers=headers, body=body)


# --- faults -------------------------------------------------------------------------------------------------


def error(status: int, code: str, message: str = "no", inside: str = "", **headers: str) -> Reply:
    """S3's error document, with any status (200 too)."""
    text = f"<?xml version='1.0' encoding='UTF-8'?>\n<Error><Code>{code}</Code><Message>{message}</Message>{inside}</Error>"

    async def reply(request: web.Request, _: Forward) -> web.Response:
        await request.read()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return _response(request, status, sent | {"Content-Type": "application/xml"}, text.encode())

    return reply


async def lost_answer(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The request is done; its answer never arrives."""
    await forward()
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def reset(request: web.Request, _: Forward) -> web.StreamResponse:
    """The connection breaks in the middle of the request."""
    await request.content.read(1000)
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def broken_body(request: web.Request, forward: Forward) -> web.StreamResponse:
    """Half of the answer's body, then a broken connection."""
    status, headers, body = await forward()
    response = web.StreamResponse(status=status, headers=headers | {"Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.close()
    return response


async def without_conditions(request: web.Request, forward: Forward) -> web.StreamResponse:
    """As a store that never heard of conditional writes."""
    return _response(request, *await forward(If_None_Match=None, If_Match=None))
