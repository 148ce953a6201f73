"""How the demo's registry reads requests and words answers. OCI distribution-spec 1.1."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from replicator.demo.store import Blob, StoreError, Upload
from replicator.http import distribution
from replicator.http.distribution import Refused, digest_in
from replicator.model.digest import Digest, algorithm, digest_of, is_digest
from replicator.model.manifest import Manifest, parse_manifest
from replicator.model.names import is_tag
from replicator.model.schema1 import signed_digest

MAX_PAGE: Final = 1_000

_CHUNK: Final = re.compile(r"([0-9]+)-([0-9]+)")


# --- requests ---


def reference_of(request: web.Request) -> str:
    """The tag or digest in the path. Raises `Refused` (DIGEST_INVALID, MANIFEST_INVALID)."""
    reference = request.match_info["reference"]
    if ":" in reference:
        return digest_in(reference)
    if not is_tag(reference):
        raise StoreError("MANIFEST_INVALID", "invalid tag", {"tag": reference})
    return reference


def manifest_from(body: bytes, media_type: str, reference: str) -> Manifest:
    """The body of a PUT. Raises `StoreError` (DIGEST_INVALID, MANIFEST_INVALID)."""
    named = Digest(reference) if is_digest(reference) else None
    kind = algorithm(named) if named else "sha256"
    try:
        digest = signed_digest(body, kind) or digest_of(body, kind)
    except ValueError as error:
        raise StoreError("MANIFEST_INVALID", str(error)) from error
    if named is not None and named != digest:
        raise StoreError(
            "DIGEST_INVALID", "provided digest did not match uploaded content", {"digest": named}
        )
    try:
        return parse_manifest(body, media_type, digest)
    except ValueError as error:
        raise StoreError("MANIFEST_INVALID", str(error)) from error


def range_of(request: web.Request, size: int) -> tuple[int, int]:
    """First byte and the one after the last that are asked for. Raises `StoreError` (RANGE_INVALID)."""
    try:
        wanted = request.http_range
    except ValueError as error:
        raise StoreError("RANGE_INVALID", str(error)) from error
    start, stop, _ = wanted.indices(size)
    if "Range" in request.headers and start >= stop:
        raise StoreError("RANGE_INVALID", f"nothing of {size} bytes is in that range")
    return start, stop


def continues(request: web.Request, upload: Upload) -> bool:
    """Whether the body goes on where the session is. Raises `StoreError` (BLOB_UPLOAD_INVALID)."""
    header = request.headers.get("Content-Range")
    if header is None:
        return True
    match = _CHUNK.fullmatch(header)
    if match is None or int(match[2]) - int(match[1]) + 1 != request.content_length:
        raise StoreError("BLOB_UPLOAD_INVALID", f"Content-Range {header!r} does not describe this chunk")
    return int(match[1]) == upload.size


# --- answers ---


async def sent(blob: Blob, start: int, stop: int) -> AsyncIterator[bytes]:
    """A blob's bytes as the body of a response."""
    for chunk in blob.read(start, stop):
        yield chunk


def progress(upload: Upload, status: int) -> web.Response:
    """Where a session is and how far; an empty one says 0-0, as the distribution-spec has it."""
    headers = {
        "Location": f"/v2/{upload.repository}/blobs/uploads/{upload.id}",
        "Docker-Upload-UUID": upload.id,
        "Range": f"0-{max(upload.size - 1, 0)}",
    }
    return web.Response(status=status, headers=headers)


def stored(repository: str, digest: Digest) -> web.Response:
    """A blob is there."""
    headers = {"Location": f"/v2/{repository}/blobs/{digest}", "Docker-Content-Digest": digest}
    return web.Response(status=201, headers=headers)


def refusal(code: str, message: str, detail: object = None, status: int | None = None) -> web.Response:
    """An error in the distribution-spec's form."""
    return distribution.refusal(Refused(code, message, detail, status=status))


@web.middleware
async def spoken(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns whatever refuses a request into an answer, so that outer middlewares see answers only."""
    try:
        response = await handler(request)
    except Refused as refused:
        response = distribution.refusal(refused)
    except web.HTTPException as error:
        response = refusal("UNSUPPORTED", error.reason, status=error.status)
    response.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
    return response
