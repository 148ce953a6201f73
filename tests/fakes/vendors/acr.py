"""Azure Container Registry."""

from __future__ import annotations

import re

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.demo import wire
from tests.fakes.places import MIB, session_of


def habits(*, largest_put: int = 20 * MIB) -> Middleware:
    """ACR [10]: a PUT that is too large is 413 in HTML; chunks need a Content-Length and a plain Content-Range."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if session_of(request) is None:
            return await handler(request)
        content_range = request.headers.get("Content-Range")
        if request.method == "PUT" and (request.content_length or 0) > largest_put:
            text = "<html>Request Entity Too Large - AzureContainerRegistry</html>"
            return web.Response(status=413, text=text, content_type="text/html")
        if content_range is not None and request.content_length is None:
            return wire.refusal("CONTENT_LENGTH_INVALID", "no Content-Length")
        if content_range is not None and not re.fullmatch(r"\d+-\d+", content_range):
            return wire.refusal("BLOB_UPLOAD_INVALID", "the format of Content-Range is invalid")
        return await handler(request)

    return quirk
