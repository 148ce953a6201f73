"""Habits of registries in the field, as middlewares that compose: `FakeRegistry(ghcr(), auth=Bearer())`.

Each names the vendor and, in brackets, the mode of the fakes' list it stands for. Here: whole vendors, and what is
about places and uploads; reading, listing and deleting are in `tests.fakes.habits`.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable, Mapping
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


def acr(*, largest_put: int = 20 * MIB) -> Middleware:
    """ACR [10]: a PUT that is too large is 413 in HTML; chunks need a Content-Length and a plain Content-Range."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if session_of(request) is None:
            return await handler(request)
        content_range = request.headers.get("Content-Range")
        if request.method == "PUT" and (request.content_length or 0) > largest_put:
            text = "<html>Request Entity Too Large - AzureContainerRegistry</html>"
            return web.Response(status=413, text=text, content_type="text/html")
        if content_range is not None and request.content_length is None:
            return wire.refusal("CONTENT_LENGTH_INVALID", "no Content-Length")
        if content_range is not None and not re.fullmatch(r"\d+-\d+", content_range):
            return wire.refusal("BLOB_UPLOAD_INVALID", "the format of Content-Range is invalid")
        return await handler(request)

    return quirk


def ghcr(*, largest_chunk: int = 4 * MIB) -> Middleware:
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


def gar() -> Middleware:
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


def ecr(*repositories: str) -> Middleware:
    """ECR [9]: repositories exist beforehand; a PATCH is 201 with a Range that sticks at the first chunk; n is capped."""
    first: dict[str, str] = {}

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        match = re.match(r"/v2/(.+?)/(?:blobs|manifests|tags|referrers)/", request.path)
        if match is not None and match[1] not in repositories:
            return wire.refusal(
                "NAME_UNKNOWN", f"The repository with name '{match[1]}' does not exist", status=404
            )
        if int(request.query.get("n", "1")) > 1_000:
            return wire.refusal("UNSUPPORTED", "Invalid parameter at 'maxResults'", status=400)
        response = await handler(request)
        session = session_of(request)
        if session and request.method == "PATCH" and response.status == 202:
            response.headers["Range"] = first.setdefault(session, response.headers["Range"])
            response.set_status(201)
        return response

    return quirk


def quay() -> Middleware:
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


def _on_upload_answers(change: Callable[[web.StreamResponse], object]) -> Middleware:
    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if session_of(request) is not None and response.status in {202, 204}:
            change(response)
        return response

    return quirk
