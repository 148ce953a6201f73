"""Habits of registries in the field about places and uploads, as middlewares that compose: `FakeRegistry(no_location(), auth=Bearer())`.

Each names the vendor and, in brackets, the mode of the fakes' list it stands for. Reading, listing and deleting are in
`tests.fakes.habits`, whole vendors in `tests.fakes.vendors`.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.demo import wire
from tests.fakes.registry import fake_of

_UPLOADS: Final = re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<session>[^/]*)")
MANIFEST: Final = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)")
MIB: Final = 1024 * 1024


def session_of(request: web.Request) -> str | None:
    """The upload session a request is about, "" where it starts one, None where it is about something else."""
    match = _UPLOADS.fullmatch(request.path)
    return match["session"] if match else None


def _session_in(location: str) -> str:
    return location.partition("?")[0].rpartition("/")[2]


# --- where things are ---


def stateful_locations() -> Middleware:
    """distribution, ACR, Harbor [1]: `_state` in the Location is opaque, needed, byte-exact, and outdated by each chunk."""
    states: dict[str, list[str]] = {}

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        session = session_of(request)
        if session:
            query = request.rel_url.raw_query_string
            given = query.partition("&digest=")[0]
            if given not in states.get(session, []):
                return wire.refusal("BLOB_UPLOAD_INVALID", "invalid _state")
            if given != states[session][-1]:
                return wire.refusal("RANGE_INVALID", "a _state of another offset", status=416)
        response = await handler(request)
        location = response.headers.get("Location", "")
        if "/blobs/uploads/" in location:
            token = base64.b64encode(secrets.token_bytes(8)).decode()
            # The characters that a careless client decodes, encodes or loses.
            state = f"_state={token.rstrip('=')}%2F%3D+~%20:"
            states.setdefault(_session_in(location), []).append(state)
            response.headers["Location"] = f"{location}?{state}"
        return response

    return quirk


def absolute_locations(*, scheme: str = "") -> Middleware:
    """Location as a whole URL; with a `scheme` of its own as behind a proxy that ends TLS."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        location = response.headers.get("Location", "")
        if location.startswith("/"):
            url = fake_of(request).url
            if scheme:
                url = f"{scheme}://{url.partition('://')[2]}"
            response.headers["Location"] = url + location
        return response

    return quirk


def blobs_in_storage() -> Middleware:
    """Blobs live at a second origin [2, 3]: 307 to a signed URL, for GET and for HEAD."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if (
            request.method in {"GET", "HEAD"}
            and "/blobs/sha" in request.path
            and response.status in {200, 206}
        ):
            url = fake_of(request).signed_url(request.rel_url.raw_path, request.method)
            return web.Response(status=307, headers={"Location": url})
        return response

    return quirk


def uploads_in_storage() -> Middleware:
    """GAR and others [2]: an upload's Location is at a second origin, which rejects Authorization."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        location = response.headers.get("Location", "")
        if location.startswith("/") and "/blobs/uploads/" in location:
            response.headers["Location"] = fake_of(request).storage_url + location
        return response

    return quirk


def manifests_in_storage() -> Middleware:
    """GitLab's dependency proxy: manifests redirect to a URL signed for GET, so that HEAD gets 403 there."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method in {"GET", "HEAD"} and MANIFEST.fullmatch(request.path):
            url = fake_of(request).signed_url(request.rel_url.raw_path, "GET")
            return web.Response(status=307, headers={"Location": url})
        return await handler(request)

    return quirk


# --- uploads ---


def no_location() -> Middleware:
    """Artifactory [17]: 202 with Docker-Upload-UUID alone."""
    return _on_upload_answers(lambda response: response.headers.popall("Location", None))


def min_chunk(size: int) -> Middleware:
    """Announces OCI-Chunk-Min-Length, and holds clients to it for all chunks but the last (a PUT's own or followed by one)."""
    short: set[str] = set()

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        session = session_of(request)
        if session and request.method == "PATCH":
            if session in short:
                return wire.refusal("SIZE_INVALID", "an earlier chunk was too short", status=400)
            if request.content_length is not None and request.content_length < size:
                short.add(session)
        response = await handler(request)
        if session == "" and response.status == 202:
            response.headers["OCI-Chunk-Min-Length"] = str(size)
        return response

    return quirk


def _on_upload_answers(change: Callable[[web.StreamResponse], object]) -> Middleware:
    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if session_of(request) is not None and response.status in {202, 204}:
            change(response)
        return response

    return quirk
