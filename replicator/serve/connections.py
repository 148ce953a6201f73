"""How many clients at once: one too many is told so, and when to come again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from aiohttp import web

from replicator.serve.answered import Answered, Audience

IDLE_SECONDS: Final = 30.0
"""How long a connection may say nothing, before its first request and between two; a request's head is included."""
RETRY_AFTER_SECONDS: Final = 5

_REFUSED_SECONDS: Final = 5.0
_REFUSED_AT_ONCE: Final = 64
"""Further connections are closed without an answer."""

_BODY: Final = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"too many connections","detail":null}]}'
_ANSWER: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Retry-After: %d\r\nContent-Length: %d\r\n\r\n%b" % (RETRY_AFTER_SECONDS, len(_BODY), _BODY)
)


class Door:
    """Makes the protocols of new connections.

    Args:
        server: serves those that are let in.
        limit: how many may be in at once.
        audience: is told of those that are not.
        options: of aiohttp's `RequestHandler`.
    """

    def __init__(self, server: web.Server, limit: int, audience: Audience, **options: Any) -> None:
        self._server = server
        self._limit = limit
        self._audience = audience
        self._options = options
        self._turned_away: set[_TurnedAway] = set()
        self._is_closed = False

    def __call__(self) -> asyncio.Protocol:
        """A protocol for one connection that is being accepted."""
        return _Entrant(self._server, self.enter, loop=asyncio.get_running_loop(), **self._options)

    @property
    def inside(self) -> int:
        """How many are let in now."""
        return len(self._server.connections)

    def close(self) -> None:
        """Lets nobody in any more, and those go who were not let in."""
        self._is_closed = True
        for one in self._turned_away:
            one.abort()

    def enter(self, transport: asyncio.Transport) -> bool:
        """Whether the connection is let in; one that is not is seen to."""
        if not self._is_closed and self.inside < self._limit:
            return True
        if self._is_closed or len(self._turned_away) >= _REFUSED_AT_ONCE:
            transport.abort()
        refused = _TurnedAway(transport, self._turned_away.discard)
        self._turned_away.add(refused)
        transport.set_protocol(refused)
        peer = transport.get_extra_info("peername")
        remote = str(peer[0]) if peer else ""
        self._audience.answered(Answered("refused", "-", "-", 503, 0, 0.0, whole=True, remote=remote))
        return False


class _Entrant(web.RequestHandler):
    """aiohttp's protocol, once it is let in. Asked when the connection is there: many are accepted in one go."""

    __slots__ = ("_enter",)

    def __init__(
        self, server: web.Server, enter: Callable[[asyncio.Transport], bool], **options: Any
    ) -> None:
        super().__init__(server, **options)
        self._enter = enter

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Goes on as aiohttp does, or hands the connection over."""
        if self._enter(cast("asyncio.Transport", transport)):
            super().connection_made(transport)


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
