"""GitLab's container registry."""

from __future__ import annotations

import re
from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.demo import wire
from tests.fakes import places
from tests.fakes.vendors.vendor import VendorRegistry, after


class GitLab(VendorRegistry):
    """A registry with the metadata database, whose API takes the registry's own tokens; protected tags are 403."""

    kind = "gitlab"
    page = 1000
    listing_path = r"/gitlab/v1/repositories/.*/tags/list"
    refusal = (403, "DENIED", "requested access to the resource is denied: the tag is protected")

    def habits(self) -> Iterable[Middleware]:
        return (places.stateful_locations(), self.tags)

    @web.middleware
    async def tags(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The API, behind the registry's own guard."""
        match = re.fullmatch(r"/gitlab/v1/repositories/(.+)/tags/list/", request.path)
        if match is None:
            return await handler(request)
        if not 1 <= int(request.query["n"]) <= 1000:
            return wire.refusal("INVALID_QUERY_PARAMETER_VALUE", "n", status=400)
        tags = self.listed(match[1])
        if tags is None:
            return wire.refusal("NAME_UNKNOWN", "repository name not known to registry", status=404)
        entries, more = after(tags, request.query.get("last", ""), min(int(request.query["n"]), self.page))
        found = [{"name": tag, "digest": digest, "size_bytes": 1} for tag, digest in entries]
        following = f"{self.url}{request.path}?last={entries[-1][0] if entries else ''}&n={self.page}"
        return web.json_response(found, headers={"Link": f'<{following}>; rel="next"'} if more else {})

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        return None
