"""What all requests go through: they are told of, their errors are worded, users are asked for, writes refused."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.errors import ConfigError, NotFound, SiteError, Transient
from replicator.http import attempts
from replicator.http.attempts import TooManyAttempts
from replicator.http.distribution import Refused, refusal
from replicator.http.protocol import SERVER
from replicator.serve.answered import Answered, Audience, Transfer, current_transfer, start_transfer
from replicator.serve.connections import RETRY_AFTER_SECONDS
from replicator.serve.users import Users

_CLIENT_LEFT: Final = 499
"""nginx's word for a request whose client did not wait for the answer."""
_MAX_PATH: Final = 500
_READS: Final = frozenset({"GET", "HEAD"})
_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="replicator", charset="UTF-8"'}

Report = Callable[[str, Exception], None]
"""Is told what failed here, and not by the client's doing: which endpoint, and the error."""


class Answers:
    """The outermost middlewares.

    Attributes:
        quiet: set while no request is in progress.
        under_way: how many are.
    """

    def __init__(self, audience: Audience, report: Report) -> None:
        self._audience = audience
        self._report = report
        self.under_way = 0
        self.quiet = asyncio.Event()
        self.quiet.set()

    @web.middleware
    async def told(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Tells of every request, when its body is sent."""
        began = time.monotonic()
        transfer = Transfer(_operation(request), self._audience)
        start_transfer(transfer)
        self.under_way += 1
        self.quiet.clear()
        status = _CLIENT_LEFT
        try:
            response = await handler(request)
        except asyncio.CancelledError:  # the server ends, or the client has left
            transfer.whole = False
            status = transfer.status or status
            raise
        else:
            status = transfer.status or response.status
            if isinstance(response, web.Response) and isinstance(response.body, bytes):
                transfer.sent(0 if request.method == "HEAD" else len(response.body))
            return response
        finally:
            self.under_way -= 1
            if not self.under_way:
                self.quiet.set()
            self._audience.answered(
                Answered(
                    operation=transfer.operation,
                    method=request.method[:_MAX_PATH],
                    path=request.rel_url.raw_path_qs[:_MAX_PATH],
                    status=status,
                    size=transfer.size,
                    seconds=time.monotonic() - began,
                    whole=transfer.whole,
                    remote=request.remote or "",
                    user=transfer.user,
                )
            )

    @web.middleware
    async def spoken(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turns whatever goes wrong into an answer, or into a broken connection where one has begun."""
        transfer = current_transfer()
        try:
            response = await handler(request)
        except Refused as refused:
            cause = refused.__cause__
            if isinstance(cause, SiteError) and not isinstance(cause, NotFound):
                self._report(transfer.operation, cause)
            response = refusal(refused)
        except web.HTTPException as error:
            response = refusal(Refused("UNSUPPORTED", "unknown endpoint", status=error.status))
        except (SiteError, ConfigError) as error:
            self._report(transfer.operation, error)
            response = refusal(_failure(error))
        except (ConnectionError, TimeoutError):
            response = _nothing_more(request)
        if transfer.status and not response.prepared:
            transfer.whole = False
            return _nothing_more(request)
        return response


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """What every answer has, at the moment before it begins."""
    response.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
    response.headers["Server"] = SERVER
    response.headers["X-Content-Type-Options"] = "nosniff"


def known_to(users: Users) -> Middleware:
    """Lets nobody pass who is none of the users."""

    @web.middleware
    async def known(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            user = await users.knows(request.headers.get("Authorization", ""), request.remote or "")
        except TooManyAttempts:
            later = {"Retry-After": str(attempts.RETRY_AFTER_SECONDS)}
            raise Refused(
                "TOOMANYREQUESTS", "too many passwords to check", status=429, headers=later
            ) from None
        if user is None:
            raise Refused("UNAUTHORIZED", "authentication required", headers=_CHALLENGE)
        current_transfer().user = user
        return await handler(request)

    return known


@web.middleware
async def reads_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses whatever would write."""
    if request.method not in _READS:
        raise Refused("UNSUPPORTED", "this registry is read-only", status=405, headers={"Allow": "GET, HEAD"})
    return await handler(request)


def _operation(request: web.Request) -> str:
    if request.method not in _READS:
        return "write"
    return request.match_info.route.name or "other"


def _failure(error: SiteError | ConfigError) -> Refused:
    """What a client is told of a failure here: whether to come again; the rest is in the log."""
    if isinstance(error, Transient):
        wait = max(math.ceil(error.retry_after or 0), RETRY_AFTER_SECONDS)
        return Refused(
            "UNAVAILABLE", "the storage cannot be reached", status=503, headers={"Retry-After": str(wait)}
        )
    return Refused("UNKNOWN", "the storage failed; the server's log says how", status=500)


def _nothing_more(request: web.Request) -> web.Response:
    """Breaks the connection off, so that no client takes what it has for all of it. The response goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
