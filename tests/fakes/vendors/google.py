"""Google Artifact Registry and gcr.io."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.demo import wire
from tests.fakes import places
from tests.fakes.registry import fake_of
from tests.fakes.vendors.vendor import PASSWORD, VendorRegistry, after


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
    user = "oauth2accesstoken"
    api = r"/v1/.*"
    page = 10_000
    listing_path = r"/tags/list"
    refusal = (400, "FAILED_PRECONDITION", "the repository has immutable tags")

    def __init__(self, *quirks: Middleware, token_uses: int | None = None) -> None:
        super().__init__(*quirks, token_uses=token_uses)
        self.operations: dict[str, tuple[str, dict[str, Any]]] = {}
        self.polls: dict[str, int] = {}

    def habits(self) -> Iterable[Middleware]:
        return (habits(), places.blobs_in_storage())

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        if not request.path.startswith("/v1/projects/"):
            return None
        if request.headers.get("Authorization") != f"Bearer {PASSWORD}":
            return _status(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        tags = re.fullmatch(
            r"/v1/projects/([^/]+)/locations/europe/repositories/([^/]+)/packages/([^/]+)/tags",
            request.rel_url.raw_path,
        )
        if tags is not None:
            return self._tags(request, f"{tags[1]}/{tags[2]}/{unquote(tags[3])}")
        if request.method == "GET":
            return self._operation(request.path.removeprefix("/v1/"))
        return await self._repository(request)

    async def _repository(self, request: web.Request) -> web.Response:
        match = re.fullmatch(r"/v1/projects/([^/]+)/locations/([^/]+)/repositories", request.path)
        assert match is not None
        asked = await request.json()
        assert asked["format"] == "DOCKER"
        unit = f"{match[1]}/{request.query['repositoryId']}"
        if unit in self.forbidden:
            said = f"Permission 'artifactregistry.repositories.create' denied on 'projects/{match[1]}'"
            return _status(403, "PERMISSION_DENIED", said)
        if self.units is not None and unit in self.units:
            return _status(409, "ALREADY_EXISTS", "the repository already exists")
        name = f"projects/{match[1]}/locations/{match[2]}/operations/{len(self.operations)}"
        self.operations[name] = (unit, asked)
        return web.json_response({"name": name, "metadata": {}})

    def _tags(self, request: web.Request, repository: str) -> web.Response:
        """Artifact Registry's own listing, two tags a page."""
        names = self.listed(repository)
        if names is None:
            return _status(404, "NOT_FOUND", "Requested entity was not found.")
        path = request.rel_url.raw_path.removeprefix("/v1/").removesuffix("/tags")
        entries, more = after(names, request.query.get("pageToken", ""), 2)
        found = [
            {"name": f"{path}/tags/{tag}", "version": f"{path}/versions/{digest}"} for tag, digest in entries
        ]
        following = {"nextPageToken": entries[-1][0]} if more else {}
        return web.json_response({"tags": found, **following})

    def _operation(self, name: str) -> web.Response:
        """In progress when first asked for, done when asked again."""
        self.polls[name] = self.polls.get(name, 0) + 1
        if self.polls[name] == 1:
            return web.json_response({"name": name, "done": False})
        if self.create(*self.operations[name]) == "exists":
            return web.json_response({"name": name, "done": True, "error": {"code": 6, "message": "exists"}})
        return web.json_response({"name": name, "done": True, "response": {}})

    def unit(self, name: str) -> str:
        return "/".join(name.split("/")[:2])

    def missing(self, name: str) -> web.Response:
        said = f'Repository "{name.split("/")[1]}" not found'
        return wire.refusal("NAME_UNKNOWN", said, status=404)


def _status(code: int, status: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "status": status, "message": message}}, status=code)
