"""Gitea and Forgejo.

Read from the container registry of go-gitea/gitea (routers/api/packages/container).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import ClassVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.demo import wire
from tests.fakes.auth import basic_user
from tests.fakes.places import session_of
from tests.fakes.registry import Auth, fake_of
from tests.fakes.vendors.vendor import PASSWORD, VendorRegistry


def habits() -> Middleware:
    """A second PATCH needs a Content-Range; no referrers API; an upload begins with `Range: 0-0`."""
    begun: set[str] = set()

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        if "/referrers/" in request.path:
            return web.Response(status=404, text="Not found.")
        session = session_of(request)
        if session and request.method == "PATCH":
            if session in begun and "Content-Range" not in request.headers:
                said = "Stream uploads after first write are not allowed"
                return wire.refusal("BLOB_UPLOAD_INVALID", said, status=400)
            begun.add(session)
        response = await handler(request)
        if session == "" and response.status == 202:
            response.headers["Range"] = "0-0"
        return response

    return quirk


class Tokens:
    """Tokens of a user, for everything that the user may do; they do not say how long they last.

    Args:
        good_for: how many requests a token is good for; no limit where None.
    """

    def __init__(self, user: str, good_for: int | None) -> None:
        self._user = user
        self._good_for = good_for
        self._left: dict[str, int | None] = {}

    def expire(self) -> None:
        """Every token given out so far is refused from now on."""
        self._left.clear()

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets in whoever has a token; serves the tokens."""
        authorization = request.headers.get("Authorization", "")
        if request.path == "/v2/token":
            if basic_user(authorization, {self._user: PASSWORD}) is None:
                return wire.refusal("UNAUTHORIZED", "", status=401)
            token = secrets.token_hex(16)
            self._left[token] = self._good_for
            return web.json_response({"token": token})
        token = authorization.removeprefix("Bearer ")
        if token in self._left:
            left = self._left[token]
            if left is None or left > 0:
                self._left[token] = None if left is None else left - 1
                return await handler(request)
        response = wire.refusal("UNAUTHORIZED", "", status=401)
        realm = f'Bearer realm="{fake_of(request).url}/v2/token",service="container_registry",scope="*"'
        response.headers.add("WWW-Authenticate", realm)
        response.headers.add("WWW-Authenticate", "Basic")
        return response


class Gitea(VendorRegistry):
    """Tokens are for a user, and the challenge offers Basic too."""

    kind = "gitea"
    cannot = frozenset({"referrers"})
    can_fix: ClassVar[bool] = False

    def habits(self) -> Iterable[Middleware]:
        return (habits(),)

    def login(self, token_uses: int | None) -> Auth:
        return Tokens(self.user, token_uses)

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        return None
