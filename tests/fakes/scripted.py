"""Servers whose every answer a test writes, and a transport that talks to them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from multidict import CIMultiDictProxy

from replicator.events import Event, Events, InFlight
from replicator.flow.clock import SystemClock
from replicator.flow.limits import SiteLimits
from replicator.flow.retry import Budget
from replicator.flow.settings import DEFAULT_CONCURRENCY, LimitSettings
from replicator.ports import Clock
from replicator.sites.registry.http import Transport
from replicator.sites.registry.settings import TLS, Login, Quota, RegistrySettings
from replicator.sites.timeouts import Timeouts

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

QUICK = Budget(attempts=3, seconds=10.0, wait_initial=0.001, wait_max=0.002)
SHORT = Timeouts(connect=5.0, first_byte=0.3, read=0.3, commit=0.3)
"""For what never comes. What comes has more time than any machine needs."""


@dataclass
class Seen:
    """One request as it came in; `target` is the raw request line's."""

    method: str
    target: str
    headers: CIMultiDictProxy[str]
    body: bytes


@dataclass
class Scripted:
    """A running server."""

    url: str
    seen: list[Seen] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def to(self, prefix: str) -> list[Seen]:
        """The requests to targets that begin so."""
        return [seen for seen in self.seen if seen.target.startswith(prefix)]


@asynccontextmanager
async def scripted(
    answer: Answer, *, tls: ssl.SSLContext | None = None, ping: bool = True
) -> AsyncIterator[Scripted]:
    """A server on a free loopback port. It reads each request's body first; unless told not to, it pings."""
    server = Scripted("")

    async def take(request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, web.Request)
        body = await request.read()
        server.seen.append(Seen(request.method, request.raw_path, request.headers, body))
        if ping and request.raw_path == "/v2/":
            return web.json_response({})
        return await answer(request)

    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw(talk: Talk, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A TCP server for what no HTTP server would do; the connection is closed when `talk` returns. Gives its URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await talk(reader, writer)
        except (asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await server.wait_closed()


async def head_of(reader: asyncio.StreamReader) -> bytes:
    """A request up to the empty line."""
    return await reader.readuntil(b"\r\n\r\n")


@dataclass
class Rig:
    """A transport and what it told."""

    transport: Transport
    events: list[Event]
    limits: SiteLimits


@asynccontextmanager
async def rig(  # one keyword a thing that tests vary
    url: str,
    *,
    login: Login | None = None,
    docker_config: bool = False,
    clock: Clock | None = None,
    timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
    tls: TLS | None = None,
    proxy: str | None = "",
    quota: Quota | None = None,
    budget: Budget = QUICK,
    realm: str | None = None,
    concurrency: int = DEFAULT_CONCURRENCY,
) -> AsyncIterator[Rig]:
    """A transport for the site "here" at a URL, closed in the end; its gates must then be free."""
    events = Events()
    told: list[Event] = []
    events.subscribe(told.append)
    clock = clock or SystemClock()
    bounds = LimitSettings(concurrency=concurrency)
    limits = SiteLimits("here", bounds, events=events, clock=clock)
    settings = RegistrySettings(
        "here",
        url,
        login,
        docker_config=docker_config,
        tls=tls or TLS(),
        proxy=proxy,
        quota=quota or Quota(),
        realm=realm,
        limits=bounds,
    )
    transport = Transport(
        settings, limits=limits, events=events, clock=clock, timeouts=timeouts, budget=budget
    )
    try:
        yield Rig(transport, told, limits)
    finally:
        await transport.aclose()
        in_use = sum(event.change for event in told if isinstance(event, InFlight))
        assert in_use == 0, "a slot was not given back"


def login(username: str = "user", password: str = "secret") -> Login:  # noqa: S107 - opens nothing
    """A login of fixed words."""
    return Login(username=username, password=lambda: password)
