"""Who may do what at a fake: Basic, and Bearer with a token service of its own."""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from replicator.demo import wire
from tests.fakes.registry import fake_of

Grant = Callable[[str, str], str]
"""User ("" is anonymous) and a scope asked for, to the scope granted ("" for none)."""


@dataclass(frozen=True, slots=True)
class Granted:
    """One request to the token service, and what it got; `status` 200 means a token."""

    method: str
    user: str
    service: str
    scopes: tuple[str, ...]
    grant_type: str
    status: int


class Basic:
    """User names and passwords; `users` may be changed at any time."""

    def __init__(self, users: Mapping[str, str], *, realm: str = "fake") -> None:
        self.users = dict(users)
        self.realm = realm

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets in whoever has the password."""
        if basic_user(request.headers.get("Authorization", ""), self.users):
            return await handler(request)
        return _unauthorized(f'Basic realm="{self.realm}"')


class Bearer:
    """Tokens from `/token`, good for the scopes they were asked for.

    Args:
        users: who gets what `grant` says; anonymous clients are asked about too, as user "".
        grant: what is granted of a scope; everything where None.
        ttl: what a token's `expires_in` says, in seconds; not told where None.
        good_for: how many requests a token is good for, whatever its `expires_in` said; no limit where None.
        post: status of the POST form of the token request; 200 where it is supported.
        refresh_tokens: identity tokens, and whose they are.
        harbor: answers with a Basic challenge where a request carries any Authorization, and for the catalog.
        first_scope_only: honours the first scope parameter and no other.
        strict_repository: a token used for another repository is 403, as cgr.dev has it.
        late: how many times a new token is refused before it is good: clocks and replicas that lag behind.
        moved: the token service answers with a redirect to another path of its own.
        realm: where tokens are said to be had; this registry's own `/token` where "".
        key: the name of the token in the answer.
    """

    def __init__(
        self,
        users: Mapping[str, str] | None = None,
        *,
        grant: Grant | None = None,
        ttl: int | None = 300,
        good_for: int | None = None,
        post: int = 200,
        refresh_tokens: Mapping[str, str] | None = None,
        harbor: bool = False,
        first_scope_only: bool = False,
        strict_repository: bool = False,
        late: int = 0,
        moved: bool = False,
        realm: str = "",
        key: str = "token",
    ) -> None:
        self.users = dict(users or {})
        self.refresh_tokens = dict(refresh_tokens or {})
        self.grants: list[Granted] = []
        self._grant: Grant = grant or (lambda _, scope: scope)
        self._ttl = ttl
        self._good_for = good_for
        self._post = post
        self._harbor = harbor
        self._first_scope_only = first_scope_only
        self._strict_repository = strict_repository
        self._late = late
        self._moved = moved
        self._realm = realm
        self._key = key
        self._tokens: dict[str, tuple[str, ...]] = {}
        self._uses: dict[str, int] = {}
        self._refusals: dict[str, int] = {}

    def expire(self) -> None:
        """Every token given out so far is refused from now on."""
        self._tokens.clear()

    @property
    def tokens(self) -> int:
        """How many were given out."""
        return sum(granted.status == 200 for granted in self.grants)

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets in whoever has a token for what is asked; serves the tokens."""
        if request.path in {"/token", "/new/token"}:
            return await self._serve_token(request)
        authorization = request.headers.get("Authorization", "")
        scheme, _, token = authorization.partition(" ")
        needed = needed_scopes(request)
        scopes = self._scopes_of(token) if scheme.lower() == "bearer" else None
        if scopes is not None:
            if all(covers(scopes, scope) for scope in needed):
                self._use(token)
                return await handler(request)
            if self._strict_repository:
                return wire.refusal("DENIED", "the token is for another repository", status=403)
        if self._harbor and (authorization or request.path == "/v2/_catalog"):
            if request.path == "/v2/_catalog" and basic_user(authorization, self.users):
                return await handler(request)
            return _unauthorized('Basic realm="harbor"')
        error = ""
        if authorization:
            error = ',error="insufficient_scope"' if scopes is not None else ',error="invalid_token"'
        scope = f',scope="{" ".join(needed)}"' if needed else ""
        realm = self._realm or f"{fake_of(request).url}/token"
        return _unauthorized(f'Bearer realm="{realm}",service="fake"{scope}{error}')

    def _scopes_of(self, token: str) -> tuple[str, ...] | None:
        scopes, refusals = self._tokens.get(token), self._refusals.get(token, 0)
        if scopes is not None and refusals < self._late:
            self._refusals[token] = refusals + 1
            return None
        return scopes

    def _use(self, token: str) -> None:
        self._uses[token] = self._uses.get(token, 0) + 1
        if self._good_for is not None and self._uses[token] >= self._good_for:
            del self._tokens[token]

    async def _serve_token(self, request: web.Request) -> web.Response:
        if request.path == "/token" and self._moved:
            return web.Response(status=307, headers={"Location": f"/new{request.rel_url}"})
        if request.method == "POST":
            form = {key: str(value) for key, value in (await request.post()).items()}
            scopes, grant_type = form.get("scope", "").split(), form.get("grant_type", "")
            user = self._posted_user(form)
            service = form.get("service", "")
            status = self._post if self._post != 200 else 401 if user is None else 200
        else:
            authorization = request.headers.get("Authorization", "")
            scopes, grant_type = request.query.getall("scope", []), "get"
            user = basic_user(authorization, self.users) if authorization else ""
            service = request.query.get("service", "")
            status = 200 if user is not None else 401
        self.grants.append(Granted(request.method, user or "", service, tuple(scopes), grant_type, status))
        if user is None or status != 200:
            return web.json_response({"details": "no token"}, status=status)
        asked = scopes[:1] if self._first_scope_only else scopes
        granted = tuple(scope for scope in (self._grant(user, scope) for scope in asked) if scope)
        token = secrets.token_hex(16)
        self._tokens[token] = granted
        answer: dict[str, object] = {self._key: token}
        if self._ttl is not None:
            issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            answer |= {"expires_in": self._ttl, "issued_at": issued}
        return web.json_response(answer)

    def _posted_user(self, form: Mapping[str, str]) -> str | None:
        if form.get("grant_type") == "refresh_token":
            return self.refresh_tokens.get(form.get("refresh_token", ""))
        user = form.get("username", "")
        return user if user in self.users and self.users[user] == form.get("password") else None


def basic_user(authorization: str, users: Mapping[str, str]) -> str | None:
    """The user whose password a header carries; None where it carries none that is right."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    user, _, password = base64.b64decode(encoded).decode().partition(":")
    return user if user in users and users[user] == password else None


def needed_scopes(request: web.Request) -> list[str]:
    """What a request needs, as distribution maps methods to actions."""
    if request.path == "/v2/_catalog":
        return ["registry:catalog:*"]
    if (vendor := re.match(r"/acr/v1/(.+?)/_", request.path)) is not None:
        return [f"repository:{vendor[1]}:metadata_read"]
    match = re.match(r"/v2/(.+?)/(?:manifests|blobs|tags|referrers)/", request.path) or re.match(
        r"/gitlab/v1/repositories/(.+?)/tags/", request.path
    )
    if match is None:
        return []
    actions = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}.get(request.method, "pull,push")
    scopes = [f"repository:{match[1]}:{actions}"]
    if "mount" in request.query and "from" in request.query:
        scopes.append(f"repository:{request.query['from']}:pull")
    return scopes


def covers(granted: tuple[str, ...], needed: str) -> bool:
    """Whether granted scopes hold all actions of a needed one."""
    name, _, actions = needed.rpartition(":")
    held = {
        action
        for scope in granted
        if scope.rpartition(":")[0] == name
        for action in scope.rpartition(":")[2].split(",")
    }
    return "*" in held or set(actions.split(",")) <= held


def _unauthorized(challenge: str) -> web.Response:
    response = wire.refusal("UNAUTHORIZED", "authentication required", status=401)
    response.headers["WWW-Authenticate"] = challenge
    return response
