"""Sonatype Nexus Repository 3: the connector of one hosted repository, with "disable redeploy" where tags are fixed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.demo import wire
from replicator.demo.store import Content
from replicator.model.digest import Digest
from tests.fakes import habits as field
from tests.fakes.auth import Bearer
from tests.fakes.registry import Auth, fake_of
from tests.fakes.vendors.vendor import PASSWORD, VendorRegistry


def habits() -> Middleware:
    """It gives itself away, lists all tags in one answer whatever `n` asks for, and has no referrers API."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if "/referrers/" in request.path:
            response: web.StreamResponse = web.Response(status=404, text="<html>Not Found</html>")
        elif request.path.endswith("/tags/list"):
            content = fake_of(request).store.repositories.get(request.match_info["name"])
            if content is None:
                response = await handler(request)
            else:
                response = web.json_response(
                    {"name": request.match_info["name"], "tags": sorted(content.tags)}
                )
        else:
            response = await handler(request)
        response.headers["Server"] = "Nexus/3.87.1-01 (COMMUNITY)"
        return response

    return quirk


class Nexus(VendorRegistry):
    """Its realm of tokens is on; its API finds components by `search`, 50 a page, where the URL names the repository."""

    kind = "nexus"
    key: ClassVar[str] = "docker-hosted"
    user = "mirror"
    page = 50
    api = r"/service/rest/.*"
    cannot = frozenset({"delete_tag", "referrers"})
    listing_path = r"/service/rest/v1/search"
    refusal = (400, "BLOB_UPLOAD_INVALID", "blob upload invalid")
    detail = "Repository does not allow updating assets: docker-hosted"

    updates: bool = True
    """Without "disable redeploy"."""

    def habits(self) -> Iterable[Middleware]:
        return (habits(), field.delete_by_digest_only(), self.keeps)

    @web.middleware
    async def keeps(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Blobs belong to all images; where nothing may be updated, the second upload of one is refused at its end."""
        match = re.fullmatch(r"/v2/(.+)/blobs/uploads/[^/]+", request.path)
        digest = request.query.get("digest", "")
        others = [one for one in self.store.repositories.values() if digest in one.blobs]
        if self.updates or request.method != "PUT" or match is None or not others:
            return await handler(request)
        await request.read()
        self.store.repositories.setdefault(match[1], Content()).blobs.add(Digest(digest))
        detail = f"{self.key}/v2/-/blobs/{digest} cannot be updated"
        return wire.refusal(self.refusal[1], self.refusal[2], detail, status=400)

    def login(self, token_uses: int | None) -> Auth:
        return Bearer({self.user: PASSWORD}, good_for=token_uses)

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        if request.path != "/service/rest/v1/search":
            return None
        if not self.may(request):
            return web.Response(status=401)
        assert (request.query["repository"], request.query["format"]) == (self.key, "docker")
        name = request.query["name"]
        start = int(request.query.get("continuationToken", "0"))
        entries = list((self.listed(name) or {}).items())
        items = [self._component(name, tag, digest) for tag, digest in entries[start : start + self.page]]
        items.append(self._component(f"{name}-other", "v1", f"sha256:{'0' * 64}"))
        more = start + self.page < len(entries)
        return web.json_response(
            {"items": items, "continuationToken": str(start + self.page) if more else None}
        )

    def _component(self, name: str, tag: str, digest: str) -> dict[str, object]:
        """A tag, with its manifest among its files."""
        files = [
            (f"/v2/{name}/manifests/{tag}", digest),
            (f"/v2/-/blobs/sha256:{'1' * 64}", "sha256:" + "1" * 64),
        ]
        assets = [
            {"path": path, "checksum": {"sha1": "x", "sha256": of.removeprefix("sha256:")}}
            for path, of in files
        ]
        return {"repository": self.key, "format": "docker", "name": name, "version": tag, "assets": assets}
