"""Sonatype Nexus Repository 3: the connector of one hosted repository, with "disable redeploy" where tags are fixed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

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

    def habits(self) -> Iterable[Middleware]:
        return (habits(), field.delete_by_digest_only())

    def login(self, token_uses: int | None) -> Auth:
        return Bearer({self.user: PASSWORD}, good_for=token_uses)

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        return None
