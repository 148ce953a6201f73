"""AWS ECR."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.demo import wire
from tests.fakes import places
from tests.fakes.auth import Basic, basic_user
from tests.fakes.places import session_of
from tests.fakes.registry import Auth
from tests.fakes.vendors.vendor import PASSWORD, VendorRegistry


def habits(*repositories: str) -> Middleware:
    """As `existing`, of repositories by the beginnings of their names."""
    return existing(lambda name: name.startswith(repositories))


def existing(exists: Callable[[str], bool]) -> Middleware:
    """ECR [9]: repositories exist beforehand; a PATCH is 201 with a Range that sticks at the first chunk; n is capped."""
    first: dict[str, str] = {}

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        match = re.match(r"/v2/(.+?)/(?:blobs|manifests|tags|referrers)/", request.path)
        if match is not None and not exists(match[1]):
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


PASSWORD_SECONDS = 12 * 3600


class Passwords(Basic):
    """Basic, also with the passwords that `GetAuthorizationToken` issues, until they expire. `now` is ECR's time."""

    def __init__(self, user: str) -> None:
        super().__init__({user: PASSWORD})
        self.now: Callable[[], float] = time.time
        self.issued: dict[str, float] = {}
        self.refused: list[str] = []
        """Paths that were asked for with a password that is not good."""
        self._user = user

    def issue(self) -> tuple[str, float]:
        """A new password, and when it expires."""
        password, ends = f"issued-{len(self.issued)}", self.now() + PASSWORD_SECONDS
        self.issued[password] = ends
        return password, ends

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        authorization = request.headers.get("Authorization", "")
        good = {password for password, ends in self.issued.items() if self.now() < ends}
        if any(basic_user(authorization, {self._user: password}) for password in good):
            return await handler(request)
        response = await super().guard(request, handler)
        if authorization and response.status == 401:
            self.refused.append(request.path)
        return response


class Ecr(VendorRegistry):
    """The API is JSON 1.1 at the root: `DescribeImages` with archived images, `ListImages`. `denied` are operations."""

    kind = "ecr"
    user = "AWS"
    page = 25
    api = r"/"
    cannot = frozenset({"delete_tag", "mount"})
    listing_path = r"^/\?$"

    def __init__(self, *quirks: Middleware, token_uses: int | None = None) -> None:
        super().__init__(*quirks, token_uses=token_uses)
        self.denied: set[str] = set()
        self.asked: list[str] = []
        self.creates_on_push = False
        self.repositories: dict[str, dict[str, Any]] = {}

    def habits(self) -> Iterable[Middleware]:
        return (existing(self._exists), places.blobs_in_storage())

    def _exists(self, name: str) -> bool:
        if self.units is None:
            return self.creates_on_push or name.startswith(self.repository)
        return name in self.units

    def login(self, token_uses: int | None) -> Auth:
        self.passwords = Passwords(self.user)
        return self.passwords

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        if request.path != "/":
            return None
        operation = request.headers["X-Amz-Target"].partition(".")[2]
        self.asked.append(operation)
        body = json.loads(await request.text())
        if operation in self.denied:
            return _error("AccessDeniedException", f"not authorized to perform: ecr:{operation}")
        if operation == "GetAuthorizationToken":
            password, ends = self.passwords.issue()
            token = base64.b64encode(f"{self.user}:{password}".encode()).decode()
            return _json({"authorizationData": [{"authorizationToken": token, "expiresAt": ends}]})
        if operation not in {"DescribeImages", "ListImages"}:
            return self._managed(operation, body)
        name = body["repositoryName"]
        tags = self.listed(name)
        if tags is None:
            return _error("RepositoryNotFoundException", f"The repository with name '{name}' does not exist")
        assert operation == "DescribeImages" or body["filter"]["tagStatus"] == "TAGGED"
        start, size = int(body.get("nextToken", "0")), min(int(body["maxResults"]), self.page)
        if operation == "ListImages":
            entries: list[dict[str, object]] = [
                {"imageTag": tag, "imageDigest": digest} for tag, digest in tags.items()
            ]
            answer: dict[str, object] = {"imageIds": entries[start : start + size]}
        else:
            entries = self._images(name, tags, body["filter"].get("imageStatus", "ACTIVE"))
            if body["filter"]["tagStatus"] == "ANY":
                entries += self._untagged(name, tags)
            answer = {"imageDetails": entries[start : start + size]}
        if start + size < len(entries):
            answer["nextToken"] = str(start + size)
        return _json(answer)

    def _managed(self, operation: str, body: dict[str, Any]) -> web.Response:
        """Repositories and their policies."""
        name = body.get("repositoryName") or body.get("resourceArn", "").rpartition("repository/")[2]
        if operation == "DescribeRepositories":
            (name,) = body["repositoryNames"]
        kept = self.repositories.setdefault(name, {})
        arn = f"arn:aws:ecr:eu-west-1:123456789012:repository/{name}"
        match operation:
            case "CreateRepository":
                return self._create(name, body)
            case "DescribeRepositories":
                return _json({"repositories": [{**kept, "repositoryArn": arn}]})
            case "ListTagsForResource":
                return _json({"tags": kept.get("tags", [])})
            case "GetRepositoryPolicy":
                return _policy(kept, "policyText", "RepositoryPolicyNotFoundException")
            case "GetLifecyclePolicy":
                return _policy(kept, "lifecyclePolicyText", "LifecyclePolicyNotFoundException")
            case _:
                kept.update(body)
        return _json({"repository": {"repositoryArn": arn}})

    def _create(self, name: str, body: dict[str, Any]) -> web.Response:
        match self.create(name, body):
            case "forbidden":
                return _error("AccessDeniedException", "not authorized to perform: ecr:CreateRepository")
            case "exists":
                return _error("RepositoryAlreadyExistsException", f"'{name}' already exists")
        self.repositories[name].update(body)
        return _json({"repository": {"repositoryName": name}})

    def _images(self, name: str, tags: dict[str, str], status: str) -> list[dict[str, object]]:
        by_digest: dict[str, list[str]] = {}
        for tag, digest in tags.items():
            by_digest.setdefault(digest, []).append(tag)
        archived = {tags.get(one.rpartition(":")[2]) for one in self.archived}
        return [
            {
                "imageDigest": digest,
                "imageTags": names,
                "imageStatus": "ARCHIVED" if digest in archived else "ACTIVE",
            }
            for digest, names in by_digest.items()
            if status == "ANY" or digest not in archived
        ]

    def _untagged(self, name: str, tags: dict[str, str]) -> list[dict[str, object]]:
        """Platforms of indexes, what refers to others, and what has lost its tag."""
        named = set(tags.values())
        manifests = [one for one in self.store.content(name).manifests.values() if one.digest not in named]
        return [
            {
                "imageDigest": one.digest,
                "imageStatus": "ACTIVE",
                **({"subjectManifestDigest": one.subject.digest} if one.subject else {}),
            }
            for one in manifests
        ]


class EcrPublic(Ecr):
    """The API knows repositories of its own registry, without the alias."""

    kind = "ecr-public"
    cannot = frozenset({"delete_tag", "mount", "catalog"})
    alias = "acme"

    def create(self, unit: str, asked: dict[str, Any]) -> str:
        return super().create(f"{self.alias}/{unit}", asked)


def _policy(kept: dict[str, Any], key: str, code: str) -> web.Response:
    return _json({key: kept[key]}) if key in kept else _error(code, "no policy")


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(status=status, text=json.dumps(body), content_type="application/x-amz-json-1.1")


def _error(code: str, message: str) -> web.Response:
    return _json({"__type": code, "message": message}, 400)
