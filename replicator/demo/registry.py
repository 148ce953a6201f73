"""A small honest registry: the OCI distribution-spec 1.1 over a store in memory.

For the demo, which needs no server then, and for the tests, which wrap it with faults: a middleware sees every
request and the finished response before a byte of it is sent; `receive` is where bodies come in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Final, Self

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from replicator.demo import wire
from replicator.demo.store import Store, StoreError, Upload
from replicator.http.distribution import count_in, digest_in, page_of, repository_in
from replicator.model.digest import Digest, is_digest
from replicator.model.mediatypes import OCI_INDEX

MAX_MANIFEST_BYTES: Final = 4 * 1024 * 1024
"""What the distribution-spec promises that a registry takes; more is answered with 413."""


class DemoRegistry:
    """One registry that is being served. Built by `serve`.

    Attributes:
        store: what it holds.
        url: scheme, host and port.
    """

    def __init__(self, store: Store, url: str = "") -> None:
        self.store = store
        self.url = url

    @classmethod
    @asynccontextmanager
    async def serve(
        cls,
        store: Store | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        middlewares: Sequence[Middleware] = (),
        tls: SSLContext | None = None,
    ) -> AsyncIterator[Self]:
        """Serves until the context is left; port 0 takes a free one. Raises OSError where it cannot listen."""
        registry = cls(store if store is not None else Store())
        async with registry.listening(host, port, middlewares, tls):
            yield registry

    @asynccontextmanager
    async def listening(
        self, host: str, port: int, middlewares: Sequence[Middleware], tls: SSLContext | None
    ) -> AsyncIterator[None]:
        """Listens and sets `url`."""
        app = web.Application(middlewares=[*middlewares, wire.spoken])
        app.add_routes(self.routes())
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port, ssl_context=tls)
            await site.start()
            taken = runner.addresses[0][1]
            self.url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{taken}"
            yield
        finally:
            await runner.cleanup()

    def routes(self) -> list[web.RouteDef]:
        """What is answered."""
        name = "/v2/{name:.+}"
        return [
            web.get("/v2/", self.ping),
            web.get("/v2/_catalog", self.list_repositories),
            web.get(f"{name}/tags/list", self.list_tags),
            web.get(f"{name}/referrers/{{digest}}", self.list_referrers),
            web.get(f"{name}/manifests/{{reference}}", self.get_manifest),
            web.put(f"{name}/manifests/{{reference}}", self.put_manifest),
            web.delete(f"{name}/manifests/{{reference}}", self.delete_manifest),
            web.post(f"{name}/blobs/uploads/", self.start_upload),
            web.get(f"{name}/blobs/uploads/{{session}}", self.upload_status),
            web.patch(f"{name}/blobs/uploads/{{session}}", self.append_upload),
            web.put(f"{name}/blobs/uploads/{{session}}", self.finish_upload),
            web.delete(f"{name}/blobs/uploads/{{session}}", self.cancel_upload),
            web.get(f"{name}/blobs/{{digest}}", self.get_blob),
            web.delete(f"{name}/blobs/{{digest}}", self.delete_blob),
        ]

    async def receive(self, request: web.Request) -> AsyncIterator[bytes]:
        """The body of a request as it comes in."""
        async for chunk in request.content.iter_any():
            yield chunk

    # --- listings ---

    async def ping(self, _request: web.Request) -> web.Response:
        """`GET /v2/`."""
        return web.json_response({})

    async def list_repositories(self, request: web.Request) -> web.Response:
        """`GET /v2/_catalog`, Docker's own and not in the OCI spec."""
        page, link = _page(request, self.store.repositories)
        return web.json_response({"repositories": page}, headers=link)

    async def list_tags(self, request: web.Request) -> web.Response:
        """`GET /v2/NAME/tags/list`."""
        name = repository_in(request)
        page, link = _page(request, self.store.content(name).tags)
        return web.json_response({"name": name, "tags": page}, headers=link)

    async def list_referrers(self, request: web.Request) -> web.Response:
        """`GET /v2/NAME/referrers/DIGEST`; nothing known is an empty list."""
        found = self.store.referrers(repository_in(request), digest_in(request.match_info["digest"]))
        headers = {}
        wanted = request.query.get("artifactType")
        if wanted is not None:
            found = [one for one in found if one.artifact_type == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        body = msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found})
        return web.Response(body=body, headers=headers, content_type=OCI_INDEX)

    # --- manifests ---

    async def get_manifest(self, request: web.Request) -> web.Response:
        """`GET` and `HEAD /v2/NAME/manifests/REFERENCE`; `If-None-Match` is honoured."""
        manifest = self.store.manifest(repository_in(request), wire.reference_of(request))
        headers = {"Docker-Content-Digest": manifest.digest, "ETag": f'"{manifest.digest}"'}
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        return web.Response(body=manifest.body, headers=headers, content_type=manifest.media_type)

    async def put_manifest(self, request: web.Request) -> web.Response:
        """`PUT /v2/NAME/manifests/REFERENCE`."""
        name, reference = repository_in(request), wire.reference_of(request)
        body = bytearray()
        async for chunk in self.receive(request):
            body += chunk
            if len(body) > MAX_MANIFEST_BYTES:
                raise StoreError("SIZE_INVALID", f"a manifest may have {MAX_MANIFEST_BYTES} bytes at most")
        manifest = wire.manifest_from(bytes(body), request.headers.get("Content-Type", ""), reference)
        self.store.put_manifest(name, manifest, None if is_digest(reference) else reference)
        headers = {
            "Location": f"/v2/{name}/manifests/{manifest.digest}",
            "Docker-Content-Digest": manifest.digest,
        }
        if manifest.subject is not None:
            headers["OCI-Subject"] = manifest.subject.digest
        return web.Response(status=201, headers=headers)

    async def delete_manifest(self, request: web.Request) -> web.Response:
        """`DELETE /v2/NAME/manifests/REFERENCE`: a tag alone, or a manifest with every tag on it."""
        name, reference = repository_in(request), wire.reference_of(request)
        if is_digest(reference):
            self.store.delete_manifest(name, Digest(reference))
        else:
            self.store.delete_tag(name, reference)
        return web.Response(status=202)

    # --- blobs ---

    async def get_blob(self, request: web.Request) -> web.Response:
        """`GET` and `HEAD /v2/NAME/blobs/DIGEST`; one range is honoured."""
        digest = digest_in(request.match_info["digest"])
        blob = self.store.blob(repository_in(request), digest)
        start, stop = wire.range_of(request, blob.size)
        headers = {
            "Docker-Content-Digest": digest,
            "ETag": f'"{digest}"',
            "Accept-Ranges": "bytes",
            "Content-Length": str(stop - start),
            "Content-Type": "application/octet-stream",
        }
        status = 200
        if "Range" in request.headers:
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.size}"
        if request.method == "HEAD":
            return web.Response(status=status, headers=headers)
        return web.Response(status=status, headers=headers, body=wire.sent(blob, start, stop))

    async def delete_blob(self, request: web.Request) -> web.Response:
        """`DELETE /v2/NAME/blobs/DIGEST`."""
        self.store.delete_blob(repository_in(request), digest_in(request.match_info["digest"]))
        return web.Response(status=202)

    # --- uploads ---

    async def start_upload(self, request: web.Request) -> web.Response:
        """`POST /v2/NAME/blobs/uploads/`: a mount where asked for and possible, a whole blob with `digest`, else a session."""
        name, query = repository_in(request), request.query
        if "mount" in query and "from" in query:
            digest = digest_in(query["mount"])
            if self.store.mount(name, digest, query["from"]):
                return wire.stored(name, digest)
        if "digest" not in query:
            return wire.progress(self.store.start_upload(name), 202)
        upload = self.store.start_upload(name)
        try:
            return await self._finished(request, upload)
        finally:
            self.store.cancel_upload(upload)  # nobody else knows this session

    async def upload_status(self, request: web.Request) -> web.Response:
        """`GET` of a session: how far it is."""
        return wire.progress(self._upload(request), 204)

    async def append_upload(self, request: web.Request) -> web.Response:
        """`PATCH` of a session. What arrived before a connection broke stays, and can be continued."""
        upload = self._upload(request)
        if not wire.continues(request, upload):
            return wire.progress(upload, 416)
        await self._append(request, upload)
        return wire.progress(upload, 202)

    async def finish_upload(self, request: web.Request) -> web.Response:
        """`PUT` of a session, with the last bytes or with none."""
        upload = self._upload(request)
        if not wire.continues(request, upload):
            return wire.progress(upload, 416)
        return await self._finished(request, upload)

    async def cancel_upload(self, request: web.Request) -> web.Response:
        """`DELETE` of a session."""
        self.store.cancel_upload(self._upload(request))
        return web.Response(status=204)

    async def _append(self, request: web.Request, upload: Upload) -> None:
        async for chunk in self.receive(request):
            upload.write(chunk)

    async def _finished(self, request: web.Request, upload: Upload) -> web.Response:
        digest = digest_in(request.query.get("digest", ""))
        await self._append(request, upload)
        self.store.finish_upload(upload, digest)
        return wire.stored(upload.repository, digest)

    def _upload(self, request: web.Request) -> Upload:
        return self.store.upload(repository_in(request), request.match_info["session"])


def _page(request: web.Request, names: Iterable[str]) -> tuple[Sequence[str], dict[str, str]]:
    return page_of(sorted(names), count_in(request, wire.MAX_PAGE), request)
