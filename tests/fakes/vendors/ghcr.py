"""GitHub's container registry."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.demo import wire
from tests.fakes.places import MIB, session_of


def habits(*, largest_chunk: int = 4 * MIB) -> Middleware:
    """GHCR [11]: a chunk with Content-Range over 4 MiB is 416; no catalog, no referrers, no deleting."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path == "/v2/_catalog" or "/referrers/" in request.path:
            return web.Response(status=404, text="404 page not found")
        if request.method == "DELETE" and session_of(request) is None:
            return wire.refusal("UNSUPPORTED", "not supported", status=405)
        ranged = session_of(request) is not None and "Content-Range" in request.headers
        if ranged and (request.content_length or 0) > largest_chunk:
            return wire.refusal("REQUESTED_RANGE_NOT_SATISFIABLE", "exceeds maximum of 4.00MiB", status=416)
        return await handler(request)

    return quirk
