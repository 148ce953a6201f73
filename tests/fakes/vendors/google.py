"""Google Artifact Registry and gcr.io."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.demo import wire
from tests.fakes.registry import fake_of
from tests.fakes.vendors.vendor import VendorRegistry


def habits() -> Middleware:
    """Artifact Registry [12]: one piece or nothing; the tag list carries a map of manifests with numbers as strings."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "PATCH":
            return wire.refusal("UNSUPPORTED", "chunked uploads are not supported", status=405)
        if request.path.endswith("/tags/list"):
            name = request.match_info["name"]
            content = fake_of(request).store.repositories.get(name)
            if content is not None:
                return web.json_response(
                    {"name": name, "tags": sorted(content.tags), "manifest": _gar_map(content.tags)}
                )
        return await handler(request)

    return quirk


def _gar_map(tags: Mapping[str, str]) -> dict[str, object]:
    by_digest: dict[str, list[str]] = {}
    for tag, digest in tags.items():
        by_digest.setdefault(digest, []).append(tag)
    return {
        digest: {"imageSizeBytes": "1", "timeUploadedMs": "1", "timeCreatedMs": "0", "tag": names}
        for digest, names in by_digest.items()
    }


class Google(VendorRegistry):
    """The tag list is the bulk listing, in one answer."""

    kind = "google"
    repository = "project/team/app"
    page = 10_000
    listing_path = r"/tags/list"
    refusal = (400, "FAILED_PRECONDITION", "the repository has immutable tags")

    def habits(self) -> Iterable[Middleware]:
        return (habits(),)

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        return None
