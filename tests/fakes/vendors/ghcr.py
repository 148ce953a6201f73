"""GitHub's container registry."""

from __future__ import annotations

import re
from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.demo import wire
from tests.fakes import habits as field
from tests.fakes.places import MIB, session_of
from tests.fakes.vendors.vendor import PASSWORD, VendorRegistry, page_of


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


class Ghcr(VendorRegistry):
    """Packages of a user, not of an organization; versions without tags are listed too; registry and API on one host."""

    kind = "ghcr"
    page = 25
    api = r"/(?:orgs|users)/.*"
    cannot = frozenset({"tell missing from hidden", "catalog", "delete_tag", "referrers"})
    listing_path = r"/users/.*/versions"

    def habits(self) -> Iterable[Middleware]:
        return (habits(), field.hides_unknown_repositories(403, until="blobs"))

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        path = request.rel_url.raw_path
        if path.startswith("/orgs/"):
            return web.json_response({"message": "Not Found"}, status=404)
        match = re.fullmatch(r"/users/([^/]+)/packages/container/([^/]+)/versions", path)
        if match is None:
            return None
        if request.headers.get("Authorization") != f"Bearer {PASSWORD}":
            return web.json_response({"message": "Requires authentication"}, status=401)
        name = f"{match[1]}/{match[2].replace('%2F', '/')}"
        tags = self.listed(name)
        if tags is None:
            return web.json_response({"message": "Package not found."}, status=404)
        versions: dict[str, list[str]] = {digest: [] for digest in self.store.repositories[name].manifests}
        for tag, digest in tags.items():
            versions.setdefault(digest, []).append(tag)
        page, size = int(request.query["page"]), min(int(request.query["per_page"]), self.page)
        entries, more = page_of({digest: ",".join(names) for digest, names in versions.items()}, page, size)
        found = [
            {"name": digest, "metadata": {"container": {"tags": names.split(",") if names else []}}}
            for digest, names in entries
        ]
        link = f'<{self.url}{path}?page={page + 1}>; rel="next"'
        return web.json_response(found, headers={"Link": link} if more else {})
