"""How many clients at once, so that nobody keeps others out by being there.

Idle connections give way to new ones; where all are being answered, one too many is told so, and when to come again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.http.connections import Connections
from replicator.http.distribution import Refused
from replicator.http.protocol import RequestHandler
from replicator.serve.answered import Answered, Audience, current_transfer
from replicator.serve.users import Users

IDLE_SECONDS: Final = 30.0
"""How long a connection may say nothing, before its first request and between two; a request's head is included."""
RETRY_AFTER_SECONDS: Final = 5
RESERVED_PATHS: Final = frozenset({"/metrics", "/v2/"})
"""Metrics, and what health checks of a registry ask for: answered however many other requests are in progress."""

_REFUSED_SECONDS: Final = 5.0
_REFUSED_AT_ONCE: Final = 64
"""Further connections are closed without an answer."""

_BODY: Final = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"too many connections","detail":null}]}'
_ANSWER: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Retry-After: %d\r\nContent-Length: %d\r\n\r\n%b" % (RETRY_AFTER_SECONDS, len(_BODY), _BODY)
)


def in_turn(connections: Connections, users: Users | None) -> Middleware:
    """Answers 503 where too many requests are in progress, in all or of one address.

    Known users come before strangers. Their password is only checked when no places for strangers are left, and then
    only whether it was right before: a check would take the processor that an attack is after.
    """

    @web.middleware
    async def placed(request: web.Request, handler: Handler) -> web.StreamResponse:
        key = request.protocol
        is_reserved = request.path in RESERVED_PATHS
        if not connections.begin(key, reserved=is_reserved and users is None):
            known = users is not None and users.remembers(request.headers.get("Authorization", ""))
            if not known or not connections.begin(key, trusted=True, reserved=is_reserved):
                later = {"Retry-After": str(RETRY_AFTER_SECONDS), "Connection": "close"}
                raise Refused("TOOMANYREQUESTS", "too many requests in progress", status=503, headers=later)
        try:
            return await handler(request)
        finally:
            connections.end(key, trusted=bool(current_transfer().user))

    return placed


class Door:
    """Makes the protocols of new connections.

    Args:
        server: serves those that are let in.
        connections: decides who is.
        audience: is told of those that are not.
        options: of aiohttp's `RequestHandler`.
    """

    def __init__(
        self, server: web.Server, connections: Connections, audience: Audience, **options: Any
    ) -> None:
        self._server = server
        self._connections = connections
        self._audience = audience
        self._options = options
        self._turned_away: set[_TurnedAway] = set()
        self._is_closed = False

    def __call__(self) -> asyncio.Protocol:
        """A protocol for one connection that is being accepted."""
        return _Entrant(self, self._server, loop=asyncio.get_running_loop(), **self._options)

    @property
    def inside(self) -> int:
        """How many are let in now."""
        return len(self._connections)

    def close(self) -> None:
        """Lets nobody in any more, and those go who were not let in."""
        self._is_closed = True
        for one in self._turned_away:
            one.abort()

    def enter(self, protocol: _Entrant, transport: asyncio.Transport) -> bool:
        """Whether the connection is let in; one that is not is seen to."""
        peer = transport.get_extra_info("peername")
        remote = str(peer[0]) if peer else ""
        if not self._is_closed:
            is_admitted, idle = self._connections.admit(protocol, remote)
            if idle is not None:
                cast("_Entrant", idle).abort()
            if is_admitted:
                return True
        if self._is_closed or len(self._turned_away) >= _REFUSED_AT_ONCE:
            transport.abort()
        refused = _TurnedAway(transport, self._turned_away.discard)
        self._turned_away.add(refused)
        transport.set_protocol(refused)
        self._audience.answered(Answered("refused", "-", "-", 503, 0, 0.0, whole=True, remote=remote))
        return False

    def left(self, protocol: _Entrant) -> None:
        """The connection is closed."""
        self._connections.leave(protocol)


class _Entrant(RequestHandler):
    """The protocol of a connection that is let in. Asked when it is there: many are accepted in one go."""

    __slots__ = ("_door",)

    def __init__(self, door: Door, server: web.Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Goes on as aiohttp does, or hands the connection over."""
        if self._door.enter(self, cast("asyncio.Transport", transport)):
            super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is closed."""
        self._door.left(self)
        super().connection_lost(exc)

    def abort(self) -> None:
        """Closes it, for another one."""
        if self.transport is not None:
            self.transport.abort()


class _TurnedAway(asyncio.Protocol):
    """Answers whatever comes first with 503."""

    def __init__(self, transport: asyncio.Transport, gone: Callable[[_TurnedAway], None]) -> None:
        self._transport = transport
        self._gone = gone
        self._timer = asyncio.get_running_loop().call_later(_REFUSED_SECONDS, transport.abort)

    def abort(self) -> None:
        """Closes it without a word."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - whatever it is
        """Answers, once; what comes after the answer is thrown away until the client closes."""
        if not self._transport.is_closing():
            self._transport.write(_ANSWER)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """It is gone."""
        self._timer.cancel()
        self._gone(self)
