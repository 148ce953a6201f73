"""A vendor's registry in whole: its habits, its own API beside the standard's, and tags that may not be moved."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, ClassVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.demo import wire
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.sites.registry.settings import Login, RegistrySettings
from tests.fakes.auth import Bearer, basic_user
from tests.fakes.places import MANIFEST
from tests.fakes.registry import Auth, FakeRegistry

PASSWORD = "not-to-be-told"


class _Besides:
    """Lets through what is not the registry's own; the vendor's API checks for itself."""

    def __init__(self, auth: Auth, api: re.Pattern[str]) -> None:
        self._auth = auth
        self._api = api

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._api.fullmatch(request.rel_url.raw_path):
            return await handler(request)
        return await self._auth.guard(request, handler)


class VendorRegistry(FakeRegistry):
    """A registry of one vendor.

    `fixed` are tags ("REPOSITORY:TAG") that it does not let be put again, by `refusal`, and `told_fixed` whether its API
    says so. `archived` are tags whose content it does not give out. `api_status` makes its API refuse; `lag` is what its
    API lists of a repository instead of what there is. `units` are the repositories (Harbor: projects) that exist; None:
    all. `created` are those that its API has created, with what was asked; it refuses those in `forbidden`, and somebody
    else is faster where `overtaken`.

    Args:
        quirks: more habits.
        token_uses: how many requests a token is good for.
    """

    kind: ClassVar[str]
    user: ClassVar[str] = "mirror"
    repository: ClassVar[str] = "team/app"
    api: ClassVar[str] = r"/none"
    """Raw paths that are not guarded by the registry's tokens."""
    page: int = 100
    cannot: ClassVar[frozenset[str]] = frozenset()
    """As the conformance suite has it."""
    refusal: ClassVar[tuple[int, str, str]] = (400, "TAG_INVALID", "the tag is immutable")
    detail: ClassVar[str | None] = None
    """Of a `refusal`."""
    can_fix: ClassVar[bool] = True
    """Whether it has tags that may not be moved."""

    def __init__(self, *quirks: Middleware, token_uses: int | None = None) -> None:
        self.fixed: set[str] = set()
        self.told_fixed = True
        self.archived: set[str] = set()
        self.api_status = 200
        self.units: set[str] | None = None
        self.forbidden: set[str] = set()
        self.overtaken = False
        self.created: list[tuple[str, dict[str, Any]]] = []
        self.lag: dict[str, dict[str, str]] = {}
        self.tokens = self.login(token_uses)
        super().__init__(
            self._vendor, *self.habits(), *quirks, auth=_Besides(self.tokens, re.compile(self.api))
        )

    def habits(self) -> Iterable[Middleware]:
        """What is odd about the standard's part."""
        return ()

    def login(self, token_uses: int | None) -> Auth:
        """Who is let in."""
        return Bearer({self.user: PASSWORD}, good_for=token_uses)

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        """An answer of the vendor's own API; None for what is not its."""
        raise NotImplementedError

    def settings(self, name: str) -> RegistrySettings:
        """As the config would have it."""
        login = Login(self.user, lambda: PASSWORD)
        return RegistrySettings(name, self.url, login=login, docker_config=False, proxy="", kind=self.kind)

    def listed(self, repository: str) -> dict[str, str] | None:
        """What the vendor's API says of a repository; None where there is none."""
        if repository in self.lag:
            return dict(sorted(self.lag[repository].items()))
        content = self.store.repositories.get(repository)
        return None if content is None else dict(sorted(content.tags.items()))

    def referrers_of(self, repository: str, subject: str) -> list[Descriptor]:
        """What the vendor's API tells to refer to a manifest."""
        return sorted(self.store.referrers(repository, Digest(subject)), key=lambda one: one.digest)

    def is_fixed(self, repository: str, tag: str) -> bool:
        """Whether the API says that the tag may not be moved."""
        return self.told_fixed and f"{repository}:{tag}" in self.fixed

    def unit(self, name: str) -> str:
        """What must exist for a repository."""
        return name

    def missing(self, name: str) -> web.Response:
        """The answer to a request for a repository whose unit does not exist."""
        return wire.refusal("NAME_UNKNOWN", f"repository name {name} not known to registry", status=404)

    def create(self, unit: str, asked: dict[str, Any]) -> str:
        """Creates a unit: "created", "exists" or "forbidden"."""
        assert self.units is not None
        if self.overtaken:
            self.units.add(unit)
        if unit in self.forbidden:
            return "forbidden"
        if unit in self.units:
            return "exists"
        self.units.add(unit)
        self.created.append((unit, asked))
        return "created"

    def may(self, request: web.Request) -> bool:
        """Whether a request to the API has the right user and password."""
        return basic_user(request.headers.get("Authorization", ""), {self.user: PASSWORD}) is not None

    listing_path: ClassVar[str] = r"/none"
    """Searched in paths: the API's listing of tags."""

    @web.middleware
    async def _vendor(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if re.search(self.listing_path, request.rel_url.raw_path) and self.api_status != 200:
            return web.Response(status=self.api_status, text="<html>no</html>", content_type="text/html")
        if (answer := await self.answer(request)) is not None:
            return answer
        named = re.match(r"/v2/(.+?)/(?:blobs|manifests|tags|referrers)/", request.path)
        if self.units is not None and named is not None and self.unit(named[1]) not in self.units:
            return self.missing(named[1])
        match = MANIFEST.fullmatch(request.path)
        if request.method == "PUT" and match and f"{match['name']}:{match['reference']}" in self.fixed:
            status, code, message = self.refusal
            return wire.refusal(code, message, self.detail, status=status)
        if request.method == "GET" and match and self._is_archived(match["name"], match["reference"]):
            return wire.refusal("MANIFEST_UNKNOWN", "the image is archived", status=404)
        return await handler(request)

    def _is_archived(self, name: str, reference: str) -> bool:
        content = self.store.repositories.get(name)
        if content is None:
            return False
        digests = {content.tags.get(one.rpartition(":")[2]) for one in self.archived}
        return f"{name}:{reference}" in self.archived or reference in digests


def is_signature_tag(tag: str) -> bool:
    """Whether cosign before version 3 keeps signatures there."""
    return re.fullmatch(r"sha256-[0-9a-f]{64}\.sig", tag) is not None


def page_of(tags: dict[str, str], number: int, size: int) -> tuple[list[tuple[str, str]], bool]:
    """One page, counted from 1, and whether there are more."""
    entries = list(tags.items())
    return entries[(number - 1) * size : number * size], len(entries) > number * size


def after(tags: dict[str, str], last: str, size: int) -> tuple[list[tuple[str, str]], bool]:
    """The page that follows a tag, and whether there are more."""
    rest = [(tag, digest) for tag, digest in tags.items() if tag > last]
    return rest[:size], len(rest) > size
