"""Quay."""

from __future__ import annotations

import re
from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.demo import wire
from tests.fakes import habits as field
from tests.fakes.auth import Bearer
from tests.fakes.places import session_of
from tests.fakes.registry import Auth, fake_of
from tests.fakes.vendors.vendor import PASSWORD, VendorRegistry, page_of

TOKEN = "application-token"
"""Of the OAuth application that may create repositories."""


def habits() -> Middleware:
    """Quay [13]: odd answers about uploads, and 400 for referrers of what is not there.

    It never sends OCI-Subject. A POST says `bytes=0--1`; a status has no Location and counts one too far. Its pages have 100 entries at most:
    add `page_size(100)`.
    """

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if "/referrers/" in request.path:
            name, digest = request.match_info["name"], request.match_info["digest"]
            content = fake_of(request).store.repositories.get(name)
            if content is None or digest not in content.manifests:
                return wire.refusal("MANIFEST_INVALID", "manifest invalid")
        response = await handler(request)
        response.headers.popall("OCI-Subject", None)
        session = session_of(request)
        if session == "" and response.status == 202:
            response.headers["Range"] = "bytes=0--1"
        elif session and request.method == "GET" and response.status == 204:
            response.headers.popall("Location", None)
            size = fake_of(request).store.uploads[session].size
            response.headers["Range"] = f"bytes=0-{size}"
        return response

    return quirk


class Quay(VendorRegistry):
    """With an application's token as login, which its API wants as a bearer token."""

    kind = "quay"
    user = "$oauthtoken"
    api = r"/api/v1/.*"
    cannot = frozenset({"tell missing from hidden"})
    listing_path = r"/api/v1/repository/.*/tag/"
    refusal = (409, "TAG_IMMUTABLE", "tag is immutable")

    def __init__(self, *quirks: Middleware, token_uses: int | None = None) -> None:
        self.created_by_tokens: set[str] = set()
        super().__init__(*quirks, token_uses=token_uses)

    def login(self, token_uses: int | None) -> Auth:
        return Bearer({self.user: PASSWORD}, grant=self._grant, good_for=token_uses)

    def _grant(self, user: str, scope: str) -> str:
        """Whoever is given a token to push gets the repository as well."""
        name = scope.partition(":")[2].rpartition(":")[0]
        if user and "push" in scope and name not in self.store.repositories:
            self.created_by_tokens.add(name)
        return scope

    def habits(self) -> Iterable[Middleware]:
        return (habits(), field.page_size(100), field.hides_unknown_repositories(401, until="blobs"))

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        if request.path == "/api/v1/repository" and request.method == "POST":
            return await self._repository(request)
        match = re.fullmatch(r"/api/v1/repository/(.+)/tag/", request.path)
        if match is None:
            return None
        if request.headers.get("Authorization") != f"Bearer {PASSWORD}":
            return web.json_response({"message": "Requires authentication"}, status=401)
        tags = self.listed(match[1])
        if tags is None:
            return web.json_response({"error_message": "Not Found"}, status=404)
        page, size = int(request.query["page"]), min(int(request.query["limit"]), self.page)
        entries, more = page_of(tags, page, size)
        found = [
            {"name": tag, "manifest_digest": digest, "start_ts": 2, "immutable": self.is_fixed(match[1], tag)}
            for tag, digest in entries
        ]
        if request.query.get("onlyActiveTags") != "true":
            found += [{"name": "gone", "manifest_digest": f"sha256:{'0' * 64}", "start_ts": 1, "end_ts": 2}]
        return web.json_response({"tags": found, "page": page, "has_additional": more})

    def missing(self, name: str) -> web.Response:
        return wire.refusal("UNAUTHORIZED", "access to the requested resource is not authorized", status=401)

    async def _repository(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"error_type": "invalid_token"}, status=401)
        asked = await request.json()
        assert asked["description"]
        match self.create(f"{asked['namespace']}/{asked['repository']}", asked):
            case "forbidden":
                return web.json_response({"error_message": "Unauthorized"}, status=403)
            case "exists":
                return web.json_response({"error_message": "Repository already exists"}, status=400)
        return web.json_response({"namespace": asked["namespace"], "name": asked["repository"]}, status=201)
