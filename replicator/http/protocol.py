"""aiohttp's server protocol, without version numbers in answers and without tracebacks for what clients send."""

from __future__ import annotations

import logging
import time
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

SERVER: Final = "replicator"
QUIET_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


class MalformedLog:
    """At most one log line for malformed requests per `QUIET_SECONDS`: clients can send any number of them."""

    def __init__(self) -> None:
        self._told_at = float("-inf")
        self._count = 0

    def note(self, peer: str | None, problem: str) -> None:
        """Counts a malformed request, and logs it if none was logged lately."""
        self._count += 1
        now = time.monotonic()
        if now - self._told_at < QUIET_SECONDS:
            return
        more = f", and {self._count - 1} more before it" if self._count > 1 else ""
        _log.warning("malformed HTTP request from %s: %s%s", peer or "unknown", problem, more)
        self._told_at, self._count = now, 0


_malformed: Final = MalformedLog()


class RequestHandler(web.RequestHandler):
    """See the module. Takes the arguments of aiohttp's."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """As aiohttp's; but a request that is not HTTP is its sender's fault: a line in the log and no traceback."""
        response: web.StreamResponse
        if isinstance(exc, HttpProcessingError | ValueError) and status < 500:
            _malformed.note(request.remote, type(exc).__name__)
            # RFC 9457, as the API answers; other clients see a JSON document all the same
            response = web.json_response(
                {"title": HTTPStatus(status).phrase, "status": status, "detail": "malformed HTTP request"},
                status=status,
                content_type="application/problem+json",
            )
            response.force_close()
        else:
            response = super().handle_error(request, status, exc, message)
        response.headers[hdrs.SERVER] = SERVER
        return response
