"""GitLab's container registry."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.demo import wire
from tests.fakes import places
from tests.fakes.vendors.vendor import VendorRegistry, after

TOKEN = "personal-token"
"""Of a user who may create projects."""


class GitLab(VendorRegistry):
    """A registry with the metadata database, whose API takes the registry's own tokens; protected tags are 401."""

    kind = "gitlab"
    api = r"/api/v4/.*"
    page = 1000
    listing_path = r"/gitlab/v1/repositories/.*/tags/list"
    refusal = (401, "PROTECTED_TAG", "insufficient permissions to push or delete protected tag")
    detail = 'tag "v1" is protected'

    def __init__(self, *quirks: Middleware, token_uses: int | None = None) -> None:
        super().__init__(*quirks, token_uses=token_uses)
        self.groups: list[str] = []

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
        found: list[dict[str, object]] = [
            {"name": tag, "digest": digest, "size_bytes": 1} for tag, digest in entries
        ]
        if request.query.get("referrers") == "true":
            for entry, (_, digest) in zip(found, entries, strict=True):
                referrers = self.referrers_of(match[1], digest)
                told = [{"artifactType": one.artifact_type, "digest": one.digest} for one in referrers]
                entry.update({"referrers": told} if told else {})
        following = f"{self.url}{request.path}?last={entries[-1][0] if entries else ''}&n={self.page}"
        return web.json_response(found, headers={"Link": f'<{following}>; rel="next"'} if more else {})

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        return await self._project(request) if request.path.startswith("/api/v4/") else None

    async def _project(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("PRIVATE-TOKEN") != TOKEN:
            return web.json_response({"message": "401 Unauthorized"}, status=401)
        if request.method == "GET":
            group = unquote(request.rel_url.raw_path.rpartition("/")[2])
            if group not in self.groups:
                return web.json_response({"message": "404 Namespace Not Found"}, status=404)
            return web.json_response({"id": self.groups.index(group), "full_path": group, "kind": "group"})
        asked = await request.json()
        match self.create(f"{self.groups[asked['namespace_id']]}/{asked['path']}", asked):
            case "forbidden":
                return web.json_response({"message": "403 Forbidden"}, status=403)
            case "exists":
                said = {"message": {"path": ["has already been taken"]}}
                return web.json_response(said, status=400)
        return web.json_response({"id": 7}, status=201)

    def missing(self, name: str) -> web.Response:
        return wire.refusal("UNAUTHORIZED", "authentication required", status=401)
