"""The demo's registry wrapped with faults, vendors' habits and a log of every request."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Literal, Protocol, Self

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.demo import wire
from replicator.demo.registry import DemoRegistry
from replicator.model.digest import Digest
from tests.fakes.delivery import Damage, abort, deliver
from tests.fakes.watched import WatchedStore

Host = Literal["registry", "storage"]

SIGNATURE = "X-Sig=a%2Fb%2Bc%3D~d&X-Exp=20m%20x"
"""Part of a signed URL that any re-encoding changes."""


@dataclass(slots=True)
class Entry:
    """One request, as it came and as it ended. `path` and `query` are undecoded; the bodies' bytes are those really moved.

    `host` is "storage" for what went to the second origin, where redirected blobs and uploads live.
    """

    host: Host
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    bytes_in: int = 0
    bytes_out: int = 0
    status: int | None = None


@dataclass(slots=True)
class Exchange:
    """A request in hand, for an action to deal with."""

    fake: FakeRegistry
    request: web.Request
    entry: Entry
    damage: Damage
    handler: Handler

    async def proceed(self) -> web.StreamResponse:
        """The answer there would be without the fault."""
        return await self.handler(self.request)


Action = Callable[[Exchange], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class _Rule:
    method: re.Pattern[str]
    target: re.Pattern[str]
    action: Action
    times: int | None
    after: int
    host: Host

    def strikes(self, entry: Entry) -> bool:
        """Whether it is this rule's turn; counts."""
        target = f"{entry.path}?{entry.query}" if entry.query else entry.path
        if self.times == 0 or self.host != entry.host or not self.method.fullmatch(entry.method):
            return False
        if not self.target.search(target):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass(slots=True)
class _Session:
    """What a request carries through the middlewares."""

    fake: FakeRegistry
    entry: Entry
    damage: Damage = field(default_factory=Damage)


_SESSION = web.RequestKey("session", _Session)


class Auth(Protocol):
    """Who may do what (`tests.fakes.auth`); `guard` is a middleware."""

    def guard(self, request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        """Lets a request through, or answers it."""
        ...


def fake_of(request: web.Request) -> FakeRegistry:
    """The fake that a quirk's request came to."""
    return request[_SESSION].fake


class FakeRegistry(DemoRegistry):
    """A registry to be unkind with; `async with FakeRegistry(ghcr(), auth=Bearer()) as fake`.

    Args:
        quirks: vendors' habits (`tests.fakes.habits`, `.places`, `.vendors`), the first one outermost.
        store: what it holds.
        auth: who may do what (`tests.fakes.auth`); everybody everything where None.
        tls: serves https.
    """

    store: WatchedStore

    def __init__(
        self,
        *quirks: Middleware,
        store: WatchedStore | None = None,
        auth: Auth | None = None,
        tls: SSLContext | None = None,
    ) -> None:
        super().__init__(store if store is not None else WatchedStore())
        self.storage_url = ""
        self.requests: list[Entry] = []
        self.released = asyncio.Event()
        self._quirks = quirks
        self._auth = auth
        self._tls = tls
        self._rules: list[_Rule] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        inner = [self._auth.guard, *self._quirks] if self._auth is not None else [*self._quirks]
        await self._stack.enter_async_context(
            self.listening("127.0.0.1", 0, [self._exchange, *inner], self._tls)
        )
        await self._stack.enter_async_context(self._storage())
        self._stack.callback(self.released.set)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    # --- what tests ask of it ---

    def fault(
        self,
        method: str,
        target: str,
        action: Action,
        *,
        times: int | None = 1,
        after: int = 0,
        host: Host = "registry",
    ) -> None:
        """Applies an action (`tests.fakes.faults`) to requests, in the order in which rules were given.

        Args:
            method: regular expression for the whole method.
            target: regular expression searched in the undecoded path and query.
            action: what happens instead, or around.
            times: how many requests; all where None.
            after: how many matching requests go well before.
            host: which of the two origins.
        """
        self._rules.append(_Rule(re.compile(method), re.compile(target), action, times, after, host))

    def clear_faults(self) -> None:
        """From now on all goes well."""
        self._rules.clear()

    def find(
        self, method: str = ".*", target: str = "", *, status: int | None = None, host: Host | None = None
    ) -> list[Entry]:
        """The requests that match, in order; `method` and `target` as in `fault`."""
        return [
            entry
            for entry in self.requests
            if re.fullmatch(method, entry.method)
            and re.search(target, f"{entry.path}?{entry.query}")
            and status in {None, entry.status}
            and host in {None, entry.host}
        ]

    def count(
        self, method: str = ".*", target: str = "", *, status: int | None = None, host: Host | None = None
    ) -> int:
        """How many `find` finds."""
        return len(self.find(method, target, status=status, host=host))

    def blob_gets(self, digest: str) -> int:
        """How many readings of a blob were begun (redirects are not counted, what they lead to is)."""
        found = [entry for entry in self.find("GET", f"/blobs/{digest}") if entry.status in {200, 206}]
        return len(found)

    @property
    def blob_bytes_out(self) -> int:
        """Bytes of blobs that went out."""
        return sum(entry.bytes_out for entry in self.find("GET", "/blobs/sha"))

    @property
    def uploaded_bytes(self) -> int:
        """Bytes of blobs that came in, in whichever attempt."""
        return sum(entry.bytes_in for entry in self.find("POST|PATCH|PUT", "/blobs/uploads/"))

    def signed_url(self, path: str, method: str) -> str:
        """Where the second origin serves a path for one method."""
        return f"{self.storage_url}{path}?{SIGNATURE}&X-Method={method}"

    # --- how it works ---

    async def receive(self, request: web.Request) -> AsyncIterator[bytes]:
        session = request[_SESSION]
        limit = session.damage.cut_upload_at
        async for whole in super().receive(request):
            chunk = whole if limit is None else whole[: limit - session.entry.bytes_in]
            session.entry.bytes_in += len(chunk)
            yield chunk
            if limit is not None and session.entry.bytes_in >= limit:
                if session.damage.then == "hang":
                    await self.released.wait()
                abort(request)

    @web.middleware
    async def _exchange(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        return await self._handled("registry", request, handler)

    @web.middleware
    async def _stored(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        return await self._handled("storage", request, handler)

    async def _handled(self, host: Host, request: web.Request, handler: Handler) -> web.StreamResponse:
        url = request.rel_url
        entry = Entry(host, request.method, url.raw_path, url.raw_query_string, dict(request.headers))
        session = request[_SESSION] = _Session(self, entry)
        self.requests.append(entry)
        rule = next((rule for rule in self._rules if rule.strikes(entry)), None)
        try:
            if rule is None:
                response = await handler(request)
            else:
                response = await rule.action(Exchange(self, request, entry, session.damage, handler))
            entry.status = response.status
            return await deliver(request, response, entry, session.damage, self.released)
        except ConnectionError:
            return web.Response()  # goes nowhere; raised, it would be logged as a failure of the server

    @asynccontextmanager
    async def _storage(self) -> AsyncIterator[None]:
        app = web.Application(middlewares=[self._stored, _signed, wire.spoken])
        name = "/v2/{name:.+}"
        app.add_routes(
            [
                web.get(f"{name}/blobs/uploads/{{session}}", self.upload_status),
                web.patch(f"{name}/blobs/uploads/{{session}}", self.append_upload),
                web.put(f"{name}/blobs/uploads/{{session}}", self.finish_upload),
                web.delete(f"{name}/blobs/uploads/{{session}}", self.cancel_upload),
                web.get(f"{name}/blobs/{{digest}}", self.get_blob),
                web.get(f"{name}/manifests/{{reference}}", self.get_manifest),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls).start()
            self.storage_url = f"{'https' if self._tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
            yield
        finally:
            await runner.cleanup()


@web.middleware
async def _signed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What object stores check: no second way to authenticate, the exact signature, the signed method."""
    if "Authorization" in request.headers:
        body = "<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>"
        return web.Response(status=400, text=body, content_type="application/xml")
    if "/blobs/uploads/" not in request.path:
        query = request.rel_url.raw_query_string
        if query != f"{SIGNATURE}&X-Method={request.method}":
            body = "<Error><Code>SignatureDoesNotMatch</Code></Error>"
            return web.Response(status=403, text=body, content_type="application/xml")
    return await handler(request)


def upload_digest(entry: Entry) -> Digest | None:
    """The digest that a finishing request named, decoded."""
    match = re.search(r"digest=(sha\d+)(?::|%3A)([0-9a-f]+)", entry.query, re.IGNORECASE)
    return Digest(f"{match[1]}:{match[2]}") if match else None
