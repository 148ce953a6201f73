"""The endpoints: what of the OCI distribution-spec 1.1 only reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from aiohttp import web

from replicator.errors import NotFound, Rejected
from replicator.http import distribution
from replicator.http.distribution import Refused, repository_in
from replicator.model.mediatypes import OCI_INDEX
from replicator.serve import wire
from replicator.serve.content import SMALL_BYTES, Blob, Content
from replicator.serve.sendfile import FileSender
from replicator.serve.sending import Body

_YEAR: Final = "max-age=31536000"
_ALL: Final = "/v2/{name:.+}"


class ReadOnlyRegistry:
    """One site's content as a registry.

    Whatever `Accept` says, what is there is served: a client that cannot use it sees so from its type, while one that
    forgot to name the type (old clients do) gets its image.
    """

    def __init__(self, content: Content, files: FileSender) -> None:
        self._content = content
        self._files = files

    def routes(self) -> list[web.RouteDef]:
        """What is answered; the name of a route is what logs and metrics call it."""
        return [
            web.get("/v2/", self.ping, name="ping"),
            web.get("/v2", self.ping),
            web.get("/v2/_catalog", self.list_repositories, name="catalog"),
            web.get(f"{_ALL}/blobs/{{digest}}", self.get_blob, name="blob"),
            web.get(f"{_ALL}/manifests/{{reference}}", self.get_manifest, name="manifest"),
            web.get(f"{_ALL}/tags/list", self.list_tags, name="tags"),
            web.get(f"{_ALL}/referrers/{{digest}}", self.list_referrers, name="referrers"),
        ]

    async def ping(self, _request: web.Request) -> web.Response:
        """`GET /v2/`."""
        return web.json_response({})

    # --- listings ---

    async def list_repositories(self, request: web.Request) -> web.Response:
        """`GET /v2/_catalog`, Docker's own and not in the OCI spec."""
        count = distribution.count_in(request, wire.MAX_PAGE)
        names = await self._content.repositories(goes_on="last" in request.query)
        return _listing({}, "repositories", names, count, request)

    async def list_tags(self, request: web.Request) -> web.Response:
        """`GET /v2/NAME/tags/list`."""
        repository, count = repository_in(request), distribution.count_in(request, wire.MAX_PAGE)
        try:
            names = await self._content.tags(repository, goes_on="last" in request.query)
        except (NotFound, Rejected) as error:
            raise Refused("NAME_UNKNOWN", "repository not found", {"name": repository}) from error
        return _listing({"name": repository}, "tags", names, count, request)

    async def list_referrers(self, request: web.Request) -> web.Response:
        """`GET /v2/NAME/referrers/DIGEST`; nothing known is an empty index, as clients take 404 to mean that the API is not supported."""
        repository, digest = repository_in(request), distribution.digest_in(request.match_info["digest"])
        try:
            found = await self._content.referrers(repository, digest)
        except Rejected:
            found = ()  # a name that this layout cannot have
        headers = {"Content-Type": OCI_INDEX}
        wanted = request.query.get("artifactType")
        if wanted is not None:
            found = [one for one in found if one.artifact_type == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        page, following = wire.referrers_page(found, request)
        body = msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page})
        return web.Response(body=body, headers=headers | following)

    # --- content ---

    async def get_manifest(self, request: web.Request) -> web.Response:
        """`GET` and `HEAD /v2/NAME/manifests/REFERENCE`; the bytes were verified."""
        repository, reference = repository_in(request), wire.reference_in(request)
        try:
            manifest = await self._content.manifest(repository, reference)
        except (NotFound, Rejected) as error:
            detail = {"name": repository, "reference": reference}
            raise Refused("MANIFEST_UNKNOWN", "manifest not found", detail) from error
        headers = {"Docker-Content-Digest": manifest.digest, "ETag": f'"{manifest.digest}"'}
        if wire.is_known(request, manifest.digest):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = manifest.media_type
        return web.Response(body=manifest.body, headers=headers)

    async def get_blob(self, request: web.Request) -> web.StreamResponse:
        """`GET` and `HEAD /v2/NAME/blobs/DIGEST`. A large one is not verified on the way: whoever pulls does."""
        repository, digest = repository_in(request), distribution.digest_in(request.match_info["digest"])
        try:
            blob = await self._content.blob(repository, digest)
            try:
                return await self._blob(request, blob)
            except NotFound:
                self._content.forget(blob)
                raise
        except (NotFound, Rejected) as error:
            raise Refused("BLOB_UNKNOWN", "blob not found", {"name": repository, "digest": digest}) from error

    async def _blob(self, request: web.Request, blob: Blob) -> web.StreamResponse:
        etag = f'"{blob.digest}"'
        headers = {"Docker-Content-Digest": blob.digest, "ETag": etag, "Cache-Control": _YEAR}
        if wire.is_known(request, blob.digest):
            return web.Response(status=304, headers=headers)
        part = wire.range_in(request, blob.size, etag)
        start, stop = part or (0, blob.size)
        headers |= {
            "Accept-Ranges": "bytes",
            "Content-Length": str(stop - start),
            "Content-Type": "application/octet-stream",
        }
        if part:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.size}"
        status = 206 if part else 200
        if request.method == "HEAD":
            return web.Response(status=status, headers=headers)
        if blob.size <= SMALL_BYTES:
            data = await self._content.small(blob)
            return web.Response(status=status, headers=headers, body=data[start:stop])
        response = web.StreamResponse(status=status, headers=headers)
        await Body(request, response, self._files).send(self._content, blob, start, stop)
        return response


def _listing(
    body: dict[str, object], key: str, names: Sequence[str], count: int, request: web.Request
) -> web.Response:
    page, headers = distribution.page_of(names, count, request)
    return web.json_response(body | {key: page}, headers=headers)
