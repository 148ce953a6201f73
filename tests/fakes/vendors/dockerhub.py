"""Docker Hub, registry and API on one host."""

from __future__ import annotations

import re
from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Middleware

from tests.fakes import habits as field
from tests.fakes.vendors.vendor import PASSWORD, VendorRegistry, page_of


class DockerHub(VendorRegistry):
    """Its API has tokens of its own, lags behind the registry (`lag`), and leaves the digest of old tags out (`old`)."""

    kind = "dockerhub"
    api = r"/v2/(?:namespaces|auth)/.*"
    cannot = frozenset({"tell missing from hidden", "catalog", "delete_tag"})
    listing_path = r"/v2/namespaces/.*/tags"
    refusal = (403, "DENIED", "requested access to the resource is denied")

    def __init__(self, *quirks: Middleware, token_uses: int | None = None) -> None:
        super().__init__(*quirks, token_uses=token_uses)
        self.old: set[str] = set()

    def habits(self) -> Iterable[Middleware]:
        return (
            field.pull_quota(100_000),
            field.hides_unknown_repositories(401, until="blobs"),
            field.no_catalog(401),
            field.no_delete(),
        )

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        if request.path == "/v2/auth/token":
            body = await request.json()
            if body != {"identifier": self.user, "secret": PASSWORD}:
                return web.json_response({"detail": "Incorrect authentication credentials"}, status=401)
            return web.json_response({"access_token": "of-the-hub"})
        if re.fullmatch(r"/v2/namespaces/[^/]+/repositories", request.path):
            return await self._repository(request)
        match = re.fullmatch(r"/v2/namespaces/([^/]+)/repositories/([^/]+)/tags", request.path)
        if match is None:
            return None
        tags = self.listed(f"{match[1]}/{match[2]}")
        if tags is None or request.headers.get("Authorization") not in {None, "Bearer of-the-hub"}:
            return web.json_response({"message": "object not found"}, status=404)
        page, size = int(request.query["page"]), min(int(request.query["page_size"]), self.page)
        entries, more = page_of(tags, page, size)
        results = [
            {"name": tag, "tag_status": "active", **({} if tag in self.old else {"digest": digest})}
            for tag, digest in entries
        ]
        following = f"https://hub.docker.com{request.path}?page={page + 1}" if more else None
        return web.json_response(
            {"count": len(tags), "next": following, "previous": None, "results": results}
        )

    async def _repository(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != "Bearer of-the-hub":
            return web.json_response({"detail": "Unauthorized"}, status=401)
        asked = await request.json()
        match self.create(f"{asked['namespace']}/{asked['name']}", asked):
            case "forbidden":
                return web.json_response({"message": "access forbidden"}, status=403)
            case "exists":
                said = {"message": "Repository with this Name and Namespace already exists."}
                return web.json_response(said, status=400)
        return web.json_response({"name": asked["name"]}, status=201)
