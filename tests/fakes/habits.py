"""Habits of registries in the field that are not about uploads, as middlewares: see `tests.fakes.places`."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.demo import wire
from replicator.model.digest import Digest, is_digest
from tests.fakes.delivery import abort
from tests.fakes.places import MANIFEST, session_of
from tests.fakes.registry import fake_of

# --- reading ---


def artifactory() -> Middleware:
    """Artifactory: HEAD without a digest header [6]; 406 for a tag list asked for with a manifest's Accept."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        accept = request.headers.get("Accept", "")
        if request.path.endswith("/tags/list") and "manifest" in accept:
            return web.Response(status=406)
        response = await handler(request)
        if request.method == "HEAD" and MANIFEST.fullmatch(request.path):
            response.headers.popall("Docker-Content-Digest", None)
        return response

    return quirk


def no_content_length() -> Middleware:
    """Answers of unknown length [20]."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if request.method == "GET" and isinstance(response, web.Response) and response.status == 200:
            body = await _body(response)
            chunked = web.StreamResponse(status=200, headers=response.headers)
            chunked.headers.popall("Content-Length", None)
            chunked.enable_chunked_encoding()
            await chunked.prepare(request)
            await chunked.write(body)
            await chunked.write_eof()
            return chunked
        return response

    return quirk


def gzipped_unasked() -> Middleware:
    """A CDN [20] that compresses whatever the client did not forbid to compress."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        wanted = request.headers.get("Accept-Encoding", "")
        plain = "identity" in wanted and "gzip" not in wanted
        if (
            plain
            or request.method != "GET"
            or response.status != 200
            or not isinstance(response, web.Response)
        ):
            return response
        headers = {**response.headers, "Content-Encoding": "gzip"}
        headers.pop("Content-Length", None)
        return web.Response(status=200, headers=headers, body=gzip.compress(await _body(response)))

    return quirk


def gzips_always() -> Middleware:
    """A proxy that compresses documents although the client forbids it."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        is_document = response.content_type.endswith("json")
        if request.method != "GET" or not is_document or not isinstance(response, web.Response):
            return response
        headers = {**response.headers, "Content-Encoding": "gzip"}
        headers.pop("Content-Length", None)
        return web.Response(
            status=response.status, headers=headers, body=gzip.compress(await _body(response))
        )

    return quirk


def long_headers(lines: int = 200, size: int = 60_000) -> Middleware:
    """A gateway that adds hundreds of headers, and one that is almost as long as can be."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        response.headers["Content-Security-Policy"] = "x" * size
        for number in range(lines):
            response.headers.add("X-Trace", f"{number}")
        return response

    return quirk


async def _body(response: web.Response) -> bytes:
    body = response.body
    if isinstance(body, bytes):
        return body
    return b"" if body is None else await body.as_bytes()  # type: ignore[union-attr]


def heads_answered(status: int, *, html: bool = False) -> Middleware:
    """HEAD of a manifest is answered so while GET is right: proxies, firewalls, serverless registries."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "HEAD" and MANIFEST.fullmatch(request.path):
            media = "text/html" if html else "application/json"
            return web.Response(status=status, content_type=media)
        return await handler(request)

    return quirk


def pull_policy(status: int = 412, code: str = "PROJECTPOLICYVIOLATION") -> Middleware:
    """Harbor: what a scan found wanting may be pushed over, but neither pulled nor asked for."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if (
            request.method in {"GET", "HEAD"}
            and MANIFEST.fullmatch(request.path)
            and response.status in {200, 304}
        ):
            return wire.refusal(code, "current image with 7 vulnerabilities cannot be pulled", status=status)
        return response

    return quirk


def hides_unknown_repositories(status: int = 401, *, until: str = "manifests") -> Middleware:
    """Quay, GHCR, GitLab, Artifactory: what does not exist is not told from what is not shown; the first push makes it.

    `until`: its first manifest, or ("blobs") whatever comes first.
    """

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        name = request.match_info.get("name", "")
        if name and request.method in {"GET", "HEAD"} and session_of(request) is None:
            content = fake_of(request).store.repositories.get(name)
            if content is None or (until == "manifests" and not content.manifests):
                code = "UNAUTHORIZED" if status == 401 else "DENIED"
                return wire.refusal(code, "access to the requested resource is not authorized", status=status)
        return await handler(request)

    return quirk


# --- listings ---


def no_tags_list(status: int = 403, *, html: bool = False) -> Middleware:
    """Push-only accounts, and registries of little software: the tags of a repository are not listed."""
    return answers(lambda request: request.path.endswith("/tags/list"), status, html=html)


def distribution_tags() -> Middleware:
    """CNCF distribution 2.x [7]: `n` and `last` are ignored, no Link, no order, `null` for no tags."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.endswith("/tags/list"):
            return await handler(request)
        name = request.match_info["name"]
        content = fake_of(request).store.repositories.get(name)
        if content is None:
            return await handler(request)
        return web.json_response({"name": name, "tags": sorted(content.tags, reverse=True) or None})

    return quirk


def page_size(most: int, *, link: str = "relative") -> Middleware:
    """A server that clamps `n` [7].

    `link`: relative, absolute, several (rels in one header), foreign, or same (every page leads to itself).
    """

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.endswith(("/tags/list", "/_catalog")):
            return await handler(request)
        store = fake_of(request).store
        name = request.match_info.get("name", "")
        if name and name not in store.repositories:
            return await handler(request)
        names = sorted(store.repositories[name].tags if name else store.repositories)
        count, last = min(int(request.query.get("n", most)), most), request.query.get("last", "")
        rest = [one for one in names if one > last]
        page, headers = rest[:count], {}
        if len(page) < len(rest):
            following = f"{request.path}?last={last if link == 'same' else page[-1]}&n={count}"
            headers["Link"] = _links(link, following, fake_of(request).url)
        body = {"name": name, "tags": page} if name else {"repositories": page}
        return web.json_response(body, headers=headers)

    return quirk


def _links(kind: str, following: str, url: str) -> str:
    return {
        "absolute": f'<{url}{following}>; rel="next"',
        "several": f'<{url}/v2/>; rel="previous", <{following}>; rel="next"',
        "foreign": f'<http://example.invalid{following}>; rel="next"',
    }.get(kind, f'<{following}>; rel="next"')


def last_must_exist() -> Middleware:
    """As zot [7]: 404 where the tag in `last` was deleted meanwhile."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        last = request.query.get("last")
        if last is not None and request.path.endswith("/tags/list"):
            content = fake_of(request).store.repositories.get(request.match_info["name"])
            if content is not None and last not in content.tags:
                return wire.refusal("NAME_UNKNOWN", "repository name not known to registry")
        return await handler(request)

    return quirk


def no_catalog(status: int = 404) -> Middleware:
    """GHCR, Docker Hub: repositories are not listed."""
    return answers(lambda request: request.path == "/v2/_catalog", status)


# --- referrers, deleting, moving tags ---


def no_referrers(status: int = 404, *, html: bool = False) -> Middleware:
    """CNCF distribution [14]: no referrers API; whatever answers there."""
    return answers(lambda request: "/referrers/" in request.path, status, html=html)


def paged_referrers(size: int = 1) -> Middleware:
    """Referrers in pages [14]."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if (
            "/referrers/" not in request.path
            or not isinstance(response, web.Response)
            or response.status != 200
        ):
            return response
        index = json.loads(await _body(response))
        start = int(request.query.get("start", "0"))
        whole = index["manifests"]
        index["manifests"] = whole[start : start + size]
        response.body = json.dumps(index).encode()
        if start + size < len(whole):
            response.headers["Link"] = f'<{request.path}?start={start + size}>; rel="next"'
        return response

    return quirk


def no_delete(status: int = 405, code: str = "UNSUPPORTED") -> Middleware:
    """Deleting is switched off [18]; a session may still be cancelled."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "DELETE" and session_of(request) is None:
            return wire.refusal(code, "the operation is unsupported", status=status)
        return await handler(request)

    return quirk


def delete_by_digest_only() -> Middleware:
    """CNCF distribution 2.x [18]: a tag in a DELETE is no digest."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        match = MANIFEST.fullmatch(request.path)
        if request.method == "DELETE" and match and not is_digest(match["reference"]):
            return wire.refusal("DIGEST_INVALID", "provided digest did not match uploaded content")
        return await handler(request)

    return quirk


def immutable_tags(status: int = 400, code: str = "TAG_INVALID") -> Middleware:
    """A tag that is there is not put again, the same digest or not [16].

    ECR: 400 TAG_INVALID; Harbor: 412 PRECONDITION; Quay: 409 TAG_IMMUTABLE.
    """

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        match = MANIFEST.fullmatch(request.path)
        if request.method == "PUT" and match:
            content = fake_of(request).store.repositories.get(match["name"])
            if content is not None and match["reference"] in content.tags:
                return wire.refusal(code, "the tag is immutable", status=status)
        return await handler(request)

    return quirk


# --- the rest ---


def pull_quota(remaining: int) -> Middleware:
    """Docker Hub [19]: manifest GETs are counted and told of; HEADs are not counted; then 429 with `X-Retry-After`."""
    left = remaining

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal left
        if request.method not in {"GET", "HEAD"} or not MANIFEST.fullmatch(request.path):
            return await handler(request)
        if request.method == "GET":
            if left == 0:
                response: web.StreamResponse = wire.refusal(
                    "TOOMANYREQUESTS", "pull rate limit reached", status=429
                )
                response.headers["Retry-After"] = "1"
                return response
            left -= 1
        response = await handler(request)
        response.headers["ratelimit-limit"] = f"{remaining};w=21600"
        response.headers["ratelimit-remaining"] = f"{left};w=21600"
        return response

    return quirk


def warns(text: str) -> Middleware:
    """A `Warning` header on every answer."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        response.headers.add("Warning", f'299 - "{text}"')
        return response

    return quirk


def answers(applies: Callable[[web.Request], bool], status: int, *, html: bool = False) -> Middleware:
    """Some requests are answered by a page instead."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if applies(request):
            text = "<html>nothing here</html>" if html else "404 page not found"
            return web.Response(status=status, text=text, content_type="text/html" if html else "text/plain")
        return await handler(request)

    return quirk


# --- bodies, connections, manifests ---


def cuts_large_bodies(limit: int) -> Middleware:
    """A proxy's limit of bodies: the connection is reset in the middle, and the 413 is lost with it."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if session_of(request) and (request.content_length or 0) > limit:
            abort(request)
        return await handler(request)

    return quirk


def no_single_post(*, lies: bool = False) -> Middleware:
    """The POST that opens an upload leaves aside a blob that comes along, as distribution's does.

    `lies`: it says that it was stored.
    """

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method != "POST" or "digest" not in request.query:
            return await handler(request)
        repository = request.path.removeprefix("/v2/").removesuffix("/blobs/uploads/")
        if lies:
            return wire.stored(repository, Digest(request.query["digest"]))
        return wire.progress(fake_of(request).store.start_upload(repository), 202)

    return quirk


def lying_mounts() -> Middleware:
    """A mount is answered 201, and nothing is there."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "POST" and "mount" in request.query:
            digest = request.query["mount"]
            location = f"{request.path.removesuffix('uploads/')}{digest}"
            return web.Response(status=201, headers={"Location": location, "Docker-Content-Digest": digest})
        return await handler(request)

    return quirk


def no_foreign_layers(repository: str) -> Middleware:
    """Distribution as installed: 500 to a manifest whose layers are elsewhere; such are in this repository alone."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        match = MANIFEST.fullmatch(request.path)
        if request.method == "PUT" and match and match["name"] == repository:
            return wire.refusal("UNKNOWN", "unknown error", status=500)
        return await handler(request)

    return quirk


def takes_no_type(media_type: str, status: int, message: str) -> Middleware:
    """Manifests of a media type are refused: by zot with 415, by distribution and olareg with 400."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "PUT" and request.headers.get("Content-Type") == media_type:
            return wire.refusal("MANIFEST_INVALID", message, status=status)
        return await handler(request)

    return quirk


def no_schema1(status: int = 400, code: str = "MANIFEST_INVALID", message: str = "unsupported") -> Middleware:
    """Manifests of Docker schema 1 are refused, as by distribution 3 and olareg (zot: 415; distribution 2: 500)."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "PUT" and "distribution.manifest.v1+" in request.headers.get("Content-Type", ""):
            return wire.refusal(code, message, status=status)
        return await handler(request)

    return quirk


def sha256_only(what: str = "") -> Middleware:
    """Distribution (for `what` "/manifests/"): content by digests of other algorithms is refused."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "PUT" and what in request.path and "sha512:" in request.rel_url.path_qs:
            return wire.refusal(
                "DIGEST_INVALID", "provided digest did not match uploaded content", status=400
            )
        return await handler(request)

    return quirk


def tags_beside_digests() -> Middleware:
    """olareg, after OCI distribution-spec 1.2: a manifest that is put by digest gets the tags of its query."""

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        match = MANIFEST.fullmatch(request.path)
        if request.method == "PUT" and match and response.status == 201:
            for tag in request.query.getall("tag", ()):
                content = fake_of(request).store.repositories[match["name"]]
                content.tags[tag] = Digest(match["reference"])
                response.headers.add("OCI-Tag", tag)
        return response

    return quirk


def drops_every(nth: int) -> Middleware:
    """A load balancer that closes every so-many-th connection in mid-request, as long as that can be asked again."""
    seen = 0

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal seen
        seen += 1
        if seen % nth == 0:
            abort(request)
        return await handler(request)

    return quirk


def rate_limit(allowed: int, *, status: int = 429) -> Middleware:
    """Every request beyond so many in flight or just answered is refused, without a word of when to come back."""
    level, at = float(allowed), 0.0

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal level, at
        now = time.monotonic()
        level, at = min(float(allowed), level + (now - at) * allowed), now
        if level < 1:
            return web.Response(status=status, text="<html><title>Too Many Requests</title></html>")
        level -= 1
        return await handler(request)

    return quirk
