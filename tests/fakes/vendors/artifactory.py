"""JFrog Artifactory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Middleware

from replicator.model.digest import Digest
from replicator.model.manifest import Kind
from tests.fakes import habits as field
from tests.fakes import places
from tests.fakes.vendors.vendor import VendorRegistry


class Artifactory(VendorRegistry):
    """Items by its query language: a folder for each tag, two files in that of an index."""

    kind = "artifactory"
    repository = "docker-local/team/app"
    page = 1000
    api = r"/artifactory/.*"
    cannot = frozenset({"tell missing from hidden"})
    listing_path = r"/artifactory/api/search/aql"
    refusal = (403, "MANIFEST_INVALID", "manifest invalid")
    detail = "HTTP 403 Forbidden"

    def habits(self) -> Iterable[Middleware]:
        return (
            field.artifactory(),
            field.hides_unknown_repositories(403, until="blobs"),
            places.no_location(),
        )

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        if request.path != "/artifactory/api/search/aql":
            return None
        if not self.may(request):
            return web.json_response({"errors": [{"status": 401, "message": "Unauthorized"}]}, status=401)
        query = await request.text()
        match = re.fullmatch(
            r"items\.find\((.*)\)\.include\(\"path\",\"name\",\"sha256\"\)\.sort\(.*\)\.limit\((\d+)\)\.offset\((\d+)\)",
            query,
        )
        if match is None or request.content_type != "text/plain":
            return web.Response(status=400, text="Failed to parse query")
        criteria = json.loads(match[1])
        folder = criteria["path"]["$match"].removesuffix("/*")
        items = self._items(criteria["repo"], folder)
        start, size = int(match[3]), int(match[2])
        return web.json_response({"results": items[start : start + size], "range": {"total": len(items)}})

    def _items(self, key: str, folder: str) -> list[dict[str, str]]:
        name = f"{key}/{folder}"
        found = []
        for tag, digest in sorted((self.listed(name) or {}).items(), reverse=True):
            item = {"path": f"{folder}/{tag}", "sha256": digest.partition(":")[2]}
            if self.store.repositories[name].manifests[Digest(digest)].kind is Kind.INDEX:
                other = {"path": f"{folder}/{tag}", "name": "manifest.json", "sha256": "0" * 64}
                found += [other, {**item, "name": "list.manifest.json"}]
            else:
                found.append({**item, "name": "manifest.json"})
        found.append({"path": f"{folder}/sha256__{'0' * 64}", "name": "manifest.json", "sha256": "0" * 64})
        return found
