"""Serves HTTP at `agent.listen`, within bounds of connections, requests and time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from replicator.config.certificate import server_context
from replicator.config.settings import Loaded, ServerTLS
from replicator.daemon.http.agent import Agent
from replicator.daemon.http.api.facts import Facts
from replicator.daemon.http.api.finding import Finder
from replicator.daemon.http.api.live import WATCHED, Live
from replicator.daemon.http.api.routes import API, openapi
from replicator.daemon.http.api.stream import Stream
from replicator.daemon.http.api.why import WhyAPI
from replicator.daemon.http.auth import TRUSTED, Doorkeeper, is_loopback
from replicator.daemon.http.page.page import Page
from replicator.daemon.http.page.search import SearchPage
from replicator.daemon.http.page.why import WhyPage
from replicator.daemon.http.problems import Problem
from replicator.daemon.http.routes import Parameter, Route
from replicator.daemon.http.webhooks.endpoint import Notification, Webhooks
from replicator.daemon.http.webhooks.hints import Hints
from replicator.errors import ConfigError, ReplicatorError
from replicator.events import Event, Events
from replicator.events.agent import ConfigRead
from replicator.http.connections import Connections
from replicator.http.protocol import SERVER, RequestHandler
from replicator.sites.registry.vendors.senders import MEDIA_TYPES

MAX_CONNECTIONS: Final = 512
MAX_LINE_BYTES: Final = 8 * 1024
MAX_HEADERS: Final = 64
HEADER_SECONDS: Final = 10.0
"""From connecting until the headers of the first request have arrived; later ones have `KEEPALIVE_SECONDS`."""
KEEPALIVE_SECONDS: Final = 75.0
SHUTDOWN_SECONDS: Final = 3.0
RESERVED_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Always answered, however many other requests are in progress."""
REPEAT_SECONDS: Final = 60.0
"""For this time, the same failure is not logged again."""

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

_log = logging.getLogger(__name__)
_OPTIONS: Final[dict[str, Any]] = {
    "access_log": None,
    "logger": logging.getLogger(f"{__name__}.protocol"),
    "auto_decompress": False,
    "keepalive_timeout": KEEPALIVE_SECONDS,
    "lingering_time": 1.0,
    "max_line_size": MAX_LINE_BYTES,
    "max_field_size": MAX_LINE_BYTES,
    "max_headers": MAX_HEADERS,
}


@dataclass
class Bound:
    """An address that is taken and does not answer yet. `context`: for TLS; None for plain HTTP."""

    server: asyncio.Server
    context: ssl.SSLContext | None
    connect: Callable[[], asyncio.Protocol] | None = None
    """Makes the protocol of a new connection."""


@contextlib.asynccontextmanager
async def listen(app: Agent) -> AsyncIterator[str]:
    """Serves the agent until the context is left; yields the URL it listens at. Raises ConfigError, as `bind` does."""
    async with bind(app.config) as bound, serve(app, bound) as url:
        yield url


@contextlib.asynccontextmanager
async def bind(config: Loaded) -> AsyncIterator[Bound]:
    """Takes the address `agent.listen`, before any work begins: a second agent must find out here, not during a run.

    Until `serve`, connections are refused.

    Raises:
        ConfigError: the address is not available, or the certificate cannot be read.
    """
    host, port = config.agent.listen
    context = None if config.http.tls is None else _tls(config.http.tls)

    def connect() -> asyncio.Protocol:
        assert bound.connect is not None  # noqa: S101 - set before the server starts
        return bound.connect()

    try:
        server = await asyncio.get_running_loop().create_server(
            connect,
            host,
            port,
            ssl=context,
            ssl_handshake_timeout=None if context is None else HEADER_SECONDS,
            start_serving=False,
        )
    except OSError as error:
        raise _not_available(host, port, error) from None
    bound = Bound(server, context)
    try:
        yield bound
    finally:
        server.close()


@contextlib.asynccontextmanager
async def serve(app: Agent, bound: Bound) -> AsyncIterator[str]:
    """Serves the agent at a bound address until the context is left; yields its URL.

    Raises:
        ConfigError: another process has begun to listen at the address in the meantime.
    """
    (host, port), tls, context = app.config.agent.listen, app.config.http.tls, bound.context
    names = frozenset({host, socket.gethostname(), app.config.agent.name})
    door = Doorkeeper(is_loopback(host), "http" if context is None else "https", names)
    served = _Served(app, door)
    runner = web.AppRunner(served.application, shutdown_timeout=SHUTDOWN_SECONDS, **_OPTIONS)
    await runner.setup()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        if context is not None and tls is not None:
            stack.enter_context(_renewed(context, tls, app.events))
        bound.connect = lambda: served.connect(runner)
        try:
            await bound.server.start_serving()
        except OSError as error:
            raise _not_available(host, port, error) from None
        passing_on = asyncio.create_task(served.hints.run())
        try:
            yield _url(host, bound.server, context)
        finally:
            bound.server.close()
            served.stream.close()
            passing_on.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await passing_on


class _Served:
    """The application, and who is connected to it."""

    def __init__(self, app: Agent, door: Doorkeeper) -> None:
        self._app = app
        self._door = door
        self._silent: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}
        self._connections = Connections(MAX_CONNECTIONS)
        self._told: dict[str, float] = {}
        """What was logged lately, and when (seconds of the steady clock)."""
        live = Live(app.clock)
        app.events.subscribe(live, to=WATCHED)
        facts = Facts(app, live)
        self.stream = Stream(facts, app.clock)
        self.hints = Hints(app)
        self.application = web.Application(middlewares=[self._answer], client_max_size=0)
        self.application.on_response_prepare.append(_add_headers)
        self._add(self._routes(facts))

    def connect(self, runner: web.AppRunner) -> asyncio.Protocol:
        """A protocol for a new connection, which is closed if it stays silent, or when its place is needed."""
        server = runner.server
        assert server is not None  # noqa: S101 - set up before
        return _Entrant(self, server, loop=asyncio.get_running_loop(), **_OPTIONS)

    def enter(self, protocol: _Entrant, transport: asyncio.Transport) -> bool:
        """Whether the connection is admitted."""
        peer = transport.get_extra_info("peername")
        admitted, victim = self._connections.admit(protocol, str(peer[0]) if peer else "")
        if victim is not None:
            self._abort(cast("_Entrant", victim))
        if admitted:
            loop = asyncio.get_running_loop()
            self._silent[protocol] = loop.call_later(HEADER_SECONDS, self._abort, protocol)
        return admitted

    def left(self, protocol: _Entrant) -> None:
        """The connection is closed."""
        self._connections.leave(protocol)
        timer = self._silent.pop(protocol, None)
        if timer is not None:
            timer.cancel()

    def _abort(self, protocol: _Entrant) -> None:
        self._silent.pop(protocol, None)
        if protocol.transport is not None:
            protocol.transport.abort()

    def _routes(self, facts: Facts) -> list[Route]:
        finder = Finder(self._app)
        routes = [*API(self._app, facts, self._door).routes(), *finder.routes(), *WhyAPI(self._app).routes()]
        routes += [
            Route("GET", "/api/v1/events", self.stream.serve, "listen", "The status, sent again whenever it changes",
                  "text/event-stream", refuses={503: "Too many clients are connected to the stream"}),
            Route("POST", "/webhooks/{name}", Webhooks(self._app, self.hints).accept, "hook", "Accept notifications of a site", "",
                  status=202, takes=Notification, media_types=MEDIA_TYPES,
                  parameters=(Parameter("name", "path", "Name of the webhook", {"type": "string", "minLength": 1}),), refuses={404: "Unknown webhook"}),
        ]  # fmt: skip
        return [
            *routes,
            openapi(routes),
            *Page(facts, self._app.clock).routes(),
            *SearchPage(self._app, finder).routes(),
            *WhyPage(self._app).routes(),
        ]

    def _add(self, routes: Sequence[Route]) -> None:
        for route in routes:

            async def serve(request: web.Request, route: Route = route) -> web.StreamResponse:
                self._door.admit(request, route.need, self._app.config.http)
                return await route.serve(request)

            if route.method == "GET":
                self.application.router.add_get(route.path, serve)
            else:
                self.application.router.add_post(route.path, serve)

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turns refusals into problem details (RFC 9457)."""
        timer = self._silent.pop(request.protocol, None)
        if timer is not None:
            timer.cancel()
        if not self._may_begin(request):
            headers = {"Retry-After": "1", "Connection": "close"}
            return Problem(503, "too many requests in progress", headers=headers).response()
        try:
            return await handler(request)
        except Problem as problem:
            return problem.response()
        except web.HTTPException as refusal:  # the router's: 404, 405
            return Problem(refusal.status, refusal.reason, headers=_allowed(refusal)).response()
        except ReplicatorError as error:
            # the file of a secret is missing, or the state cannot be written: not the client's fault
            self._complain(request, error)
            what = "a secret cannot be read" if isinstance(error, ConfigError) else str(error)
            return Problem(503, what).response()
        finally:
            self._connections.end(request.protocol, trusted=request.get(TRUSTED, False))

    def _may_begin(self, request: web.Request) -> bool:
        """Whether there is room for the request. A token is only looked at if strangers have no room."""
        if self._connections.begin(request.protocol, reserved=request.path in RESERVED_PATHS):
            return True
        if not self._door.has_token(request, self._app.config.http):
            return False
        return self._connections.begin(request.protocol, trusted=True)

    def _complain(self, request: web.Request, error: ReplicatorError) -> None:
        """Logs the failure once per `REPEAT_SECONDS`: clients without a token may cause it at any rate."""
        now, text = self._app.clock.monotonic(), str(error)
        self._told = {told: at for told, at in self._told.items() if now - at < REPEAT_SECONDS}
        if text not in self._told:
            self._told[text] = now
            _log.error("%s %s: %s", request.method, request.path, text)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
    response.headers[hdrs.SERVER] = SERVER


class _Entrant(RequestHandler):
    """The protocol of a connection, once it is admitted; the peer is only known when the connection is made."""

    __slots__ = ("_served",)

    def __init__(self, served: _Served, server: web.Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._served = served

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Continues as aiohttp does, or closes the connection if all others are serving requests."""
        if self._served.enter(self, cast("asyncio.Transport", transport)):
            super().connection_made(transport)
        else:
            transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is closed."""
        self._served.left(self)
        if self.transport is not None:
            super().connection_lost(exc)


def _not_available(host: str, port: int, error: OSError) -> ConfigError:
    text = "address already in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
    return ConfigError([f"agent.listen: cannot listen on {host} port {port}: {text}"])


def _tls(files: ServerTLS) -> ssl.SSLContext:
    try:
        return server_context(files.cert, files.key)
    except ValueError as error:
        raise ConfigError([f"http.tls: {error}"]) from None


@contextlib.contextmanager
def _renewed(context: ssl.SSLContext, files: ServerTLS, events: Events) -> Iterator[None]:
    """Uses renewed certificate files for new connections after each successful reload."""

    def renew(event: Event) -> None:
        if isinstance(event, ConfigRead) and event.successful:
            try:
                # Checked first: of a pair that does not match, a context would use the certificate and keep the key.
                _tls(files)
                context.load_cert_chain(files.cert, files.key, password=str)
            except (ConfigError, OSError) as error:  # replaced again since the config was checked
                _log.error("%s; the previous certificate stays in use", error)

    events.subscribe(renew, to={ConfigRead})
    try:
        yield
    finally:
        events.unsubscribe(renew)


def _url(host: str, server: asyncio.Server, context: ssl.SSLContext | None) -> str:
    port = server.sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    return f"{'http' if context is None else 'https'}://{shown}:{port}"


def _allowed(refusal: web.HTTPException) -> dict[str, str]:
    return {hdrs.ALLOW: refusal.headers[hdrs.ALLOW]} if hdrs.ALLOW in refusal.headers else {}
