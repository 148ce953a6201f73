"""Azure Container Registry."""

from __future__ import annotations

import re
from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.demo import wire
from tests.fakes.places import MIB, session_of
from tests.fakes.vendors.vendor import VendorRegistry, after


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


class Acr(VendorRegistry):
    """Its API wants a token of the registry, for `metadata_read`; tags may be locked."""

    kind = "acr"
    cannot = frozenset({"delete_tag"})
    listing_path = r"/acr/v1/.*/_tags"
    refusal = (405, "UNSUPPORTED", "The operation is disallowed on this registry, repository or image.")

    def habits(self) -> Iterable[Middleware]:
        return (habits(), self.tags)

    @web.middleware
    async def tags(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The API, behind the registry's own guard."""
        match = re.fullmatch(r"/acr/v1/(.+)/_tags", request.path)
        if match is None:
            return await handler(request)
        tags = self.listed(match[1])
        if tags is None:
            return wire.refusal("NAME_UNKNOWN", "repository name not known to registry", status=404)
        entries, more = after(tags, request.query.get("last", ""), min(int(request.query["n"]), self.page))
        found = [
            {
                "name": tag,
                "digest": digest,
                "changeableAttributes": {
                    "deleteEnabled": True,
                    "writeEnabled": not self.is_fixed(match[1], tag),
                    "readEnabled": True,
                },
            }
            for tag, digest in entries
        ]
        link = f'<{request.path}?last={entries[-1][0] if entries else ""}&n={self.page}&orderby=>; rel="next"'
        body = {"registry": "mine.azurecr.io", "imageName": match[1], "tags": found}
        return web.json_response(body, headers={"Link": link} if more else {})

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        return None
