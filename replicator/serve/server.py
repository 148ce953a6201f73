"""The server: where it listens, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from replicator.http.connections import Connections
from replicator.serve.answered import Audience
from replicator.serve.answers import Answers, Report, add_headers, known_to, reads_only
from replicator.serve.connections import IDLE_SECONDS, Door, in_turn
from replicator.serve.content import Content
from replicator.serve.registry import ReadOnlyRegistry
from replicator.serve.sendfile import FileSender
from replicator.serve.users import Users

DRAIN_SECONDS: Final = 25.0
"""Seconds that transfers in progress have left at shutdown: a little less than orchestrators wait."""
DEFAULT_CONNECTIONS: Final = 400
"""Each may have a file open, and 1,024 descriptors are a common limit of a process."""

_HANDSHAKE_SECONDS: Final = 10.0
_LINGER_SECONDS: Final = 2.0
_CLEANUP_SECONDS: Final = 0.1
_BACKLOG: Final = 512

Expose = Callable[[str], tuple[bytes, str]]
"""Metrics in a format that an `Accept` header names, and its media type."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Where and for whom. `users` None: everybody may pull. `tls` None: plain HTTP. Port 0 takes a free one."""

    host: str
    port: int
    users: Users | None = None
    tls: ssl.SSLContext | None = None
    max_connections: int = DEFAULT_CONNECTIONS


class RegistryServer:
    """A content as a registry on one socket.

    Args:
        content: what is served.
        audience: is told of each request.
        report: is told of failures.
        expose: what `/metrics` answers; None: the endpoint does not exist.
    """

    def __init__(
        self, content: Content, *, audience: Audience, report: Report, expose: Expose | None = None
    ) -> None:
        self._content = content
        self._audience = audience
        self._expose = expose
        self._answers = Answers(audience, report)
        self._door: Door | None = None

    @property
    def connections(self) -> int:
        """How many clients are connected now."""
        return self._door.inside if self._door else 0

    @property
    def under_way(self) -> int:
        """How many requests are being answered."""
        return self._answers.under_way

    @contextlib.asynccontextmanager
    async def listening(self, listener: Listener) -> AsyncIterator[str]:
        """Serves until the context is left; gives the URL. What is being sent then may end (`DRAIN_SECONDS`).

        Raises:
            OSError: it cannot listen there.
        """
        files = FileSender()
        connections = Connections(listener.max_connections)
        runner = web.AppRunner(
            self._application(listener, connections, files),
            access_log=None,
            shutdown_timeout=_CLEANUP_SECONDS,
            # Walking a tree for a client that has left would let anybody cause any amount of work at once.
            handler_cancellation=True,
        )
        await runner.setup()
        server: asyncio.Server | None = None
        try:
            handling = runner.server
            assert handling is not None  # noqa: S101 - `setup` made it
            options = {
                "access_log": None,
                "keepalive_timeout": IDLE_SECONDS,
                "lingering_time": _LINGER_SECONDS,
            }
            self._door = Door(handling, connections, self._audience, **options)
            server = await asyncio.get_running_loop().create_server(
                self._door,
                listener.host,
                listener.port,
                ssl=listener.tls,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS if listener.tls else None,
                backlog=_BACKLOG,
            )
            yield _url(listener, server.sockets[0].getsockname()[1])
            server.close()
            self._door.close()
            handling.pre_shutdown()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self._answers.quiet.wait()
        finally:
            if server is not None:
                server.close()
            if self._door is not None:
                self._door.close()
            await runner.cleanup()
            files.close()

    def _application(
        self, listener: Listener, connections: Connections, files: FileSender
    ) -> web.Application:
        middlewares: list[Middleware] = [
            self._answers.told,
            self._answers.spoken,
            in_turn(connections, listener.users),
        ]
        if listener.users is not None:
            middlewares.append(known_to(listener.users))
        app = web.Application(middlewares=[*middlewares, reads_only])
        app.on_response_prepare.append(add_headers)
        app.add_routes(ReadOnlyRegistry(self._content, files).routes())
        if self._expose is not None:
            app.add_routes([web.get("/metrics", self._metrics, name="metrics")])
        return app

    async def _metrics(self, request: web.Request) -> web.Response:
        assert self._expose is not None  # noqa: S101 - the route exists only with it
        body, media_type = self._expose(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": media_type})


def _url(listener: Listener, port: int) -> str:
    host = f"[{listener.host}]" if ":" in listener.host else listener.host
    return f"{'https' if listener.tls else 'http'}://{host}:{port}"
