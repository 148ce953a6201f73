"""zot."""

from __future__ import annotations

import re
from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.model.companion import fallback_tag
from replicator.model.digest import Digest
from tests.fakes import habits as field
from tests.fakes.vendors.vendor import VendorRegistry

TOLD = r"Digest Referrers\{Digest\} SignatureInfo\{Tool\}"
HIDDEN = re.compile(r"sha256-[0-9a-f]{64}(\.sig)?")
"""Tags that it does not list."""


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
            r'\{ImageList\(repo:"([^"]+)",requestedPage:\{limit:(\d+),offset:(\d+)\}\)\{Results\{Tag '
            rf"{TOLD} Manifests\{{{TOLD}\}}\}}\}}\}}",
            request.query["query"],
        )
        tags = None if match is None else self.listed(match[1])
        if match is None or tags is None:
            return web.json_response({"errors": [{"message": "repository not found"}], "data": None})
        start, size = int(match[3]), int(match[2])
        shown = [(tag, digest) for tag, digest in tags.items() if not HIDDEN.fullmatch(tag)]
        entries = shown[start : start + size]
        results = [{"Tag": tag, **self._image(match[1], digest)} for tag, digest in entries]
        return web.json_response({"data": {"ImageList": {"Results": results}}})

    def _image(self, name: str, digest: str) -> dict[str, object]:
        manifest = self.store.repositories[name].manifests.get(Digest(digest))
        children = [child.digest for child in manifest.children] if manifest is not None else []
        platforms = [self._manifest(name, child) for child in children or [Digest(digest)]]
        return {**self._manifest(name, digest), "Manifests": platforms}

    def _manifest(self, name: str, digest: str) -> dict[str, object]:
        """As pkg/meta/parse.go of zot has it: of some signatures only how many there are."""
        signature = self.store.repositories[name].tags.get(f"{fallback_tag(Digest(digest))}.sig")
        return {
            "Digest": digest,
            "Referrers": [{"Digest": one.digest} for one in self.referrers_of(name, digest)],
            "SignatureInfo": [{"Tool": "cosign"}] if signature else [],
        }

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        return None
