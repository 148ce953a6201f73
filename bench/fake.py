"""A registry with a great many tags, each an image of two blobs that all share, which counts what it is asked.

Run as a process of its own: `python -m bench.fake PORT REPOSITORY TAGS`. `GET /counts` gives the counts so far.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from http import HTTPStatus

from aiohttp import web

from replicator.model.digest import Digest, digest_of
from replicator.model.mediatypes import OCI_MANIFEST

HOST = "127.0.0.1"
PAGE = 1000
_SIZES: dict[str, int] = {digest_of(b"config"): 6, digest_of(b"layer"): 5}
_TYPES = ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar")


class ManyTags:
    """The tags `v1.0.0`, `v1.0.1`, ... of one repository; each a manifest of its own. Blobs exist, but cannot be read."""

    def __init__(self, repository: str, tags: int) -> None:
        self._prefix = f"/v2/{repository}/"
        self._tags = sorted(f"v1.0.{number}" for number in range(tags))
        self._digests: dict[str, Digest] = {tag: digest_of(_manifest(tag)) for tag in self._tags}
        self._tag_of = {digest: tag for tag, digest in self._digests.items()}
        self._position = {tag: number for number, tag in enumerate(self._tags)}
        self._counts: Counter[str] = Counter()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request."""
        if request.path == "/counts":
            return web.json_response(self._counts)
        kind, _, rest = request.path.removeprefix(self._prefix).partition("/")
        self._counts[f"{request.method} {kind or request.path}"] += 1
        if request.path == "/v2/":
            return web.json_response({})
        if kind == "tags":
            return self._page(request)
        if kind == "manifests":
            return self._answer_manifest(request.method, rest)
        if kind == "blobs" and request.method == "HEAD" and rest in _SIZES:
            return web.Response(headers={"Docker-Content-Digest": rest, "Content-Length": str(_SIZES[rest])})
        return _missing()

    def _answer_manifest(self, method: str, reference: str) -> web.Response:
        tag = self._tag_of.get(Digest(reference), reference)
        digest = self._digests.get(tag)
        if digest is None:
            return _missing()
        body = _manifest(tag)
        headers = {"Docker-Content-Digest": digest, "Content-Type": OCI_MANIFEST}
        if method == "HEAD":
            return web.Response(headers={**headers, "Content-Length": str(len(body))})
        return web.Response(headers=headers, body=body)

    def _page(self, request: web.BaseRequest) -> web.Response:
        size = min(int(request.query.get("n", PAGE)), PAGE)
        start = self._position[last] + 1 if (last := request.query.get("last")) else 0
        page = self._tags[start : start + size]
        more = start + size < len(self._tags)
        link = {"Link": f'<{self._prefix}tags/list?n={size}&last={page[-1]}>; rel="next"'} if more else {}
        return web.Response(text=json.dumps({"tags": page}), content_type="application/json", headers=link)


def _manifest(tag: str) -> bytes:
    config, layer = (
        {"mediaType": kind, "digest": digest, "size": size}
        for (digest, size), kind in zip(_SIZES.items(), _TYPES, strict=True)
    )
    top = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]}
    return json.dumps(top | {"annotations": {"org.opencontainers.image.version": tag}}).encode()


def _missing() -> web.Response:
    return web.json_response({"errors": [{"code": "NAME_UNKNOWN"}]}, status=HTTPStatus.NOT_FOUND)


async def main(port: int, repository: str, tags: int) -> None:
    """Serves until the process is ended."""
    runner = web.ServerRunner(web.Server(ManyTags(repository, tags).answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
