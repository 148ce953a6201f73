"""zot."""

from __future__ import annotations

import re
from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from tests.fakes import habits as field
from tests.fakes.vendors.vendor import VendorRegistry


class Zot(VendorRegistry):
    """GraphQL of the search extension; what it refuses has status 200 and errors."""

    kind = "zot"
    page = 1000
    listing_path = r"/v2/_zot/ext/search"

    def habits(self) -> Iterable[Middleware]:
        return (field.last_must_exist(), self.search)

    @web.middleware
    async def search(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The extension, behind the registry's own guard."""
        if request.path != "/v2/_zot/ext/search":
            return await handler(request)
        match = re.fullmatch(
            r'\{ImageList\(repo:"([^"]+)",requestedPage:\{limit:(\d+),offset:(\d+)\}\)\{Results\{Tag Digest\}\}\}',
            request.query["query"],
        )
        tags = None if match is None else self.listed(match[1])
        if match is None or tags is None:
            return web.json_response({"errors": [{"message": "repository not found"}], "data": None})
        start, size = int(match[3]), int(match[2])
        entries = list(tags.items())[start : start + size]
        results = [{"Tag": tag, "Digest": digest} for tag, digest in entries]
        return web.json_response({"data": {"ImageList": {"Results": results}}})

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        return None
