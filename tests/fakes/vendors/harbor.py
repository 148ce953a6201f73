"""Harbor."""

from __future__ import annotations

import re
from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Middleware

from replicator.demo import wire
from replicator.model.companion import fallback_tag
from replicator.model.digest import Digest
from tests.fakes import habits as field
from tests.fakes import places
from tests.fakes.auth import Bearer
from tests.fakes.registry import Auth
from tests.fakes.vendors.vendor import PASSWORD, VendorRegistry, is_signature_tag, page_of


class Harbor(VendorRegistry):
    """Names in its API are encoded twice; unknown projects are 401; it turns to Basic once a request carries anything.

    Signatures in `.sig` tags are accessories and not in the list of artifacts (its maintainers in goharbor/harbor#23651).
    """

    kind = "harbor"
    user = "robot$team+mirror"
    repository = "team/sub/app"
    page = 25
    api = r"/api/v2\.0/.*"
    cannot = frozenset({"delete_tag"})
    listing_path = r"/api/v2\.0/projects/.*/artifacts"
    refusal = (412, "PRECONDITION", "Failed to process request due to 'tag' configured as immutable.")

    def habits(self) -> Iterable[Middleware]:
        return (places.stateful_locations(), field.delete_by_digest_only())

    def login(self, token_uses: int | None) -> Auth:
        return Bearer({self.user: PASSWORD}, good_for=token_uses, harbor=True)

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        if request.path == "/api/v2.0/projects":
            return await self._project(request)
        path = r"/api/v2\.0/projects/([^/]+)/repositories/([^/]+)/artifacts"
        match = re.fullmatch(path, request.rel_url.raw_path)
        if match is None:
            return None
        tags = self.listed(f"{match[1]}/{match[2].replace('%252F', '/')}")
        if tags is None or not self.may(request):
            status, code = (404, "NOT_FOUND") if self.may(request) else (401, "UNAUTHORIZED")
            return web.json_response({"errors": [{"code": code, "message": "no"}]}, status=status)
        assert request.rel_url.raw_query_string.count("q=tags%3D*") == 1
        name = f"{match[1]}/{match[2].replace('%252F', '/')}"
        tags = {tag: digest for tag, digest in tags.items() if not is_signature_tag(tag)}
        by_digest: dict[str, list[str]] = {}
        for tag, digest in tags.items():
            by_digest.setdefault(digest, []).append(tag)
        artifacts = {digest: ",".join(names) for digest, names in by_digest.items()}
        size = min(int(request.query["page_size"]), self.page)
        entries, more = page_of(artifacts, int(request.query["page"]), size)
        found = [
            {
                "digest": digest,
                "tags": [{"name": tag, "immutable": self.is_fixed(name, tag)} for tag in names.split(",")],
                "references": self._references(name, digest),
                "accessories": self._accessories(name, digest)
                if request.query["with_accessory"] == "true"
                else None,
            }
            for digest, names in entries
        ]
        link = f'<{request.path}?page={int(request.query["page"]) + 1}>; rel="next"'
        headers = {"X-Total-Count": str(len(artifacts)), **({"Link": link} if more else {})}
        return web.json_response(found, headers=headers)

    def _accessories(self, name: str, digest: str) -> list[dict[str, str]] | None:
        """What refers to an artifact, and the signature in its `.sig` tag; null where there is nothing."""
        found = [
            {
                "digest": one.digest,
                "type": "signature.cosign"
                if "sigstore" in (one.artifact_type or "")
                else "subject.accessory",
                "subject_artifact_digest": digest,
            }
            for one in self.referrers_of(name, digest)
        ]
        signature = self.store.repositories[name].tags.get(f"{fallback_tag(Digest(digest))}.sig")
        if signature is not None:
            found.append({"digest": signature, "type": "signature.cosign", "subject_artifact_digest": digest})
        return found or None

    def _references(self, name: str, digest: str) -> list[dict[str, str]] | None:
        """The platforms of an index; null for another artifact."""
        manifest = self.store.repositories[name].manifests.get(Digest(digest))
        if manifest is None or not manifest.children:
            return None
        return [{"child_digest": child.digest} for child in manifest.children]

    def unit(self, name: str) -> str:
        return name.partition("/")[0]

    def missing(self, name: str) -> web.Response:
        return wire.refusal("UNAUTHORIZED", f"project {self.unit(name)} not found", status=401)

    async def _project(self, request: web.Request) -> web.StreamResponse:
        if not self.may(request):
            return web.json_response({"errors": [{"code": "UNAUTHORIZED", "message": "no"}]}, status=401)
        asked = await request.json()
        match self.create(asked["project_name"], asked):
            case "forbidden":
                said = {"errors": [{"code": "FORBIDDEN", "message": "forbidden"}]}
                return web.json_response(said, status=403)
            case "exists":
                said = {"errors": [{"code": "CONFLICT", "message": "The project already exists"}]}
                return web.json_response(said, status=409)
        return web.Response(status=201, headers={"Location": "/api/v2.0/projects/7"})
