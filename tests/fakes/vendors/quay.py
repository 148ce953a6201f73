"""Quay."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.demo import wire
from tests.fakes.places import session_of
from tests.fakes.registry import fake_of


def habits() -> Middleware:
    """Quay [13]: odd answers about uploads, and 400 for referrers of what is not there.

    A POST says `bytes=0--1`; a status has no Location and counts one too far. Its pages have 100 entries at most:
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
        session = session_of(request)
        if session == "" and response.status == 202:
            response.headers["Range"] = "bytes=0--1"
        elif session and request.method == "GET" and response.status == 204:
            response.headers.popall("Location", None)
            size = fake_of(request).store.uploads[session].size
            response.headers["Range"] = f"bytes=0-{size}"
        return response

    return quirk
