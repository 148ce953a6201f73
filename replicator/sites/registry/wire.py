"""Requests of one site as they go over the wire: connections, TLS, proxies, time limits, nothing of registries."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Final

import aiohttp
from aiohttp.connector import Connection
from yarl import URL

from replicator import __version__
from replicator.errors import Advice, ConfigError, Corrupt, Unsupported
from replicator.events import Events, RequestDone, Warned
from replicator.movers.connection import backlog
from replicator.ports import Chunk, Clock
from replicator.scrub import remember
from replicator.sites.authorities import default_context
from replicator.sites.bounds import MAX_ERROR_BYTES, MAX_HEADER_BYTES, MAX_HEADERS
from replicator.sites.framing import TolerantConnector
from replicator.sites.reading import BrokenFraming, Patience, Reading
from replicator.sites.registry.addresses import AddressGuard, GuardedResolver, reach_of_host
from replicator.sites.registry.body import Left, UploadBody
from replicator.sites.registry.encoding import decoded
from replicator.sites.registry.errormap import Failure, Operation, authority, network_failure
from replicator.sites.registry.origin import Origin, origin_of
from replicator.sites.registry.payload.answer import Answer
from replicator.sites.registry.payload.dial import Way
from replicator.sites.registry.payload.exchange import Ask, Payloads
from replicator.sites.registry.proxy import Proxies
from replicator.sites.registry.settings import TLS, RegistrySettings
from replicator.sites.registry.small import MAX_BODY_BYTES, SmallAnswer, SmallRequests
from replicator.sites.registry.tls import client_context
from replicator.sites.timeouts import Timeouts

USER_AGENT: Final = f"replicator/{__version__}"
_HEADERS: Final = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
_READ_BUFFER_BYTES: Final = 128 * 1024
_KEEPALIVE_SECONDS: Final = 30.0
"""Below the 60 s after which load balancers close idle connections."""
_ERROR_SECONDS: Final = 15.0
"""For the body of an error, which only decides how well the error is explained."""
_FAILURES: Final = (aiohttp.ClientError, OSError, ValueError, BrokenFraming)
"""All that aiohttp raises, TimeoutError (an OSError) included; ValueError: a header or URL that cannot be sent."""


_CONNECTED: Final[ContextVar[Callable[[Left], None]]] = ContextVar("connected")
"""Called when the request that this task sends has its connection (a trace of aiohttp would cost several objects each time)."""


class _Request(aiohttp.ClientRequest):
    """Tells that it has a connection."""

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        _CONNECTED.get()(partial(_left, conn))
        return await super().send(conn)


class Wire:
    """One site's connections.

    Sends what it is given, follows no redirect and keeps no cookie. Every exception becomes `Unavailable`, every
    request one `RequestDone`. Nothing is waited for without a deadline: see `Timeouts`. Connections are made on
    demand; `aclose` closes them.

    Raises:
        ConfigError: the site's proxy or its TLS files are unusable.
    """

    def __init__(self, settings: RegistrySettings, timeouts: Timeouts, events: Events, clock: Clock) -> None:
        self.site = settings.name
        self.base = URL(settings.url, encoded=True)
        self.origin: Origin = origin_of(self.base)
        self.timeouts = timeouts
        self.guard = AddressGuard(self.base, private=settings.private_addresses)
        self.allows_any = settings.redirects == "any"
        self.realm = None if settings.realm is None else origin_of(URL(settings.realm, encoded=True))
        self._settings = settings
        self._events = events
        self._clock = clock
        self._proxies = Proxies(settings.name, settings.proxy, self.base)
        tls = settings.tls
        self._context = self._foreign_context = default_context()
        if tls != TLS():
            self._context = self._foreign_context = client_context(settings.name, tls)
            if tls.cert is not None:
                self._foreign_context = client_context(settings.name, tls, with_certificate=False)
        self._patience = Patience(timeouts.read, "read")
        # Connecting alone is aiohttp's to time. Its sock_read starts anew with each byte, and with each 1xx answer.
        self._connecting = aiohttp.ClientTimeout(
            total=None, connect=timeouts.connect, sock_connect=timeouts.connect, sock_read=None
        )
        self._session: aiohttp.ClientSession | None = None
        self._foreign: aiohttp.ClientSession | None = None
        self._connector: TolerantConnector | None = None
        self._small: SmallRequests | None = None
        self._payloads = Payloads(settings.name, timeouts, keepalive_seconds=_KEEPALIVE_SECONDS)

    async def send(
        self,
        about: Operation,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        *,
        data: bytes | UploadBody | None = None,
        patience: Patience | None = None,
        payload: bool = False,
        once: bool = False,
    ) -> Answer:
        """Sends one request and returns when the headers of its answer are there.

        The response is the caller's to read and close. `patience` is `Timeouts.read` where it is not given. A
        request with a streamed body has no deadline here: the body knows when it has gone out. `once`: a
        request that `is_small` is not sent again where its connection had been kept and breaks.

        Raises:
            Unavailable: no answer.
        """
        if (authorization := headers.get("Authorization")) is not None:
            _remember(authorization)
        proxy = self._proxy_for(about, url)
        began = self._clock.monotonic()
        limit = patience or self._patience
        try:
            if (
                not payload
                and (data is None or isinstance(data, bytes))
                and (small := self._small_for(url, data, proxy)) is not None
            ):
                response: Answer = await small.request(
                    method, url, {**_HEADERS, **headers}, data, limit, once=once
                )
            else:
                response = await self._send_otherwise(
                    method, url, headers, data=data, proxy=proxy, limit=limit, payload=payload
                )
        except _FAILURES as error:
            failure = network_failure(error, authority(url))
            self._done(about, failure.word, began)
            # The chain is cut: aiohttp's own messages may hold a signed URL.
            raise failure.error(self.site, about) from None
        self._done(about, str(response.status), began)
        return response

    async def _send_otherwise(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        *,
        data: bytes | UploadBody | None,
        proxy: URL | None,
        limit: Patience,
        payload: bool,
    ) -> Answer:
        """Sends a request that is not small: a thread does, or aiohttp's session. Raises `_FAILURES`."""
        data, streamed = (data, None) if data is None or isinstance(data, bytes) else (None, data)
        timer = asyncio.timeout(self.timeouts.connect + limit.seconds if streamed is None else None)

        def expecting(left: Left) -> None:  # the wait for the answer begins: it excludes the connecting
            if streamed is None:
                timer.reschedule(asyncio.get_running_loop().time() + limit.seconds)
            else:
                streamed.goes_over(left)

        try:
            async with timer:
                if payload and _has_length(streamed, headers) and self._is_for_threads(url, proxy):
                    ask = Ask(self._way(url, proxy), method, {**_HEADERS, **headers}, streamed)
                    return await self._payloads.request(ask, expecting)
                _CONNECTED.set(expecting)
                return await self._session_for(url).request(
                    method,
                    url,
                    headers=headers,
                    data=data if streamed is None else streamed,
                    allow_redirects=False,
                    proxy=proxy,
                    timeout=self._connecting,
                )
        except _FAILURES:
            if timer.expired():
                raise limit.late() from None
            raise

    def _proxy_for(self, about: Operation, url: URL) -> URL | None:
        """The proxy that a request goes through. Raises `Unavailable` for an address that is refused."""
        if reach_of_host(url.raw_host or "") == "never":
            # Also where the config names it: whatever answers there is not a registry.
            cause = f"{authority(url)} is refused: {self.guard.refusal('never')}"
            raise Failure("refused", cause, Advice.GIVE_UP).error(self.site, about)
        try:
            return self._proxies.find(url)
        except ConfigError as unusable:
            # Of a host that a redirect leads to; the site's own was tried at the start.
            cause = "; ".join(unusable.problems)
            raise Unsupported(self.site, about.operation, cause, repository=about.repository) from None

    async def read(self, about: Operation, response: Answer, max_bytes: int) -> bytes:
        """The rest of an answer, its connection given back (or closed, where this raises).

        Raises:
            Corrupt: it is longer than `max_bytes`, or encoded in a way that was not asked for and cannot be undone.
            Unavailable: it broke off.
        """
        if response.method == "HEAD":
            response.release()
            return b""
        length = response.content_length
        try:
            if length is not None and length > max_bytes:
                data = b""
            elif isinstance(response, SmallAnswer) and (whole := response.whole()) is not None:
                data = whole
            else:
                data = await _at_most(Reading(response, self.timeouts, small=True), max_bytes + 1)
        except _FAILURES as error:
            response.close()
            failure = network_failure(error, authority(response.url))
            raise failure.error(self.site, about) from None
        except BaseException:
            response.close()
            raise
        is_whole = len(data) <= max_bytes and (length is None or length <= max_bytes)
        response.close()  # which after the last byte gives the connection back
        cause = f"the answer is longer than the {max_bytes} bytes allowed"
        if is_whole:
            try:
                return decoded(data, response.headers.get("Content-Encoding", ""), max_bytes)
            except ValueError as error:
                cause = str(error)
        raise Corrupt(self.site, about.operation, cause, repository=about.repository)

    async def read_error(self, response: Answer) -> bytes:
        """As much of an error's body as is worth reading, or came; never raises for the rest."""
        if response.method == "HEAD":
            response.release()
            return b""
        parts: list[Chunk] = []
        try:
            if isinstance(response, SmallAnswer) and (whole := response.whole()) is not None:
                parts.append(whole[:MAX_ERROR_BYTES])
            else:
                async with asyncio.timeout(min(_ERROR_SECONDS, self.timeouts.read)):
                    await _collect(Reading(response, self.timeouts, small=True), MAX_ERROR_BYTES, parts)
        except _FAILURES:
            pass
        finally:
            response.close()  # which after the last byte gives the connection back
        body = b"".join(parts)
        try:
            return decoded(body, response.headers.get("Content-Encoding", ""), MAX_ERROR_BYTES)
        except ValueError:
            return body

    def reading(self, response: Answer) -> Reading:
        """For `chunks`: the body of an answer of any length."""
        return Reading(response, self.timeouts, small=False)

    async def chunks(
        self, about: Operation, response: Answer, reading: Reading
    ) -> AsyncGenerator[Chunk, None]:
        """The body of an answer, as it comes.

        Raises:
            Unavailable: it broke off, stalled, or is slower than `Timeouts.minimum_rate`.
        """
        try:
            while chunk := await reading.next():
                yield chunk
        except _FAILURES as error:
            response.close()
            failure = network_failure(error, authority(response.url))
            raise failure.error(self.site, about) from None

    async def aclose(self) -> None:
        """Closes all connections."""
        small, self._small = self._small, None
        if small is not None:
            await small.aclose()
        sessions = (self._session, self._foreign)
        self._session = self._foreign = None
        for session in sessions:
            if session is not None:
                await session.close()
        connector, self._connector = self._connector, None
        if connector is not None:
            await connector.close()  # where no session has done it
        await self._payloads.aclose()

    def connect_ahead(self, wanted: int) -> None:
        """Opens connections to the site in the background, so that there are `wanted` when requests need them.

        For requests that are sure to come. Not through a proxy, and never more than the site's `concurrency`.
        """
        with contextlib.suppress(ConfigError):
            if self._proxies.find(self.base) is None:
                self._small_requests().connect_ahead(wanted)

    def is_own(self, url: URL) -> bool:
        """Whether the URL is of the registry's own scheme, host and port, however these are written."""
        base = self.base
        return (url.raw_authority == base.raw_authority and url.scheme == base.scheme) or origin_of(
            url
        ) == self.origin

    def is_small(self, url: URL) -> bool:
        """Whether a small request to the URL goes without aiohttp's session."""
        return self.is_own(url) and self._proxies.find(url) is None

    def _small_for(self, url: URL, data: bytes | None, proxy: URL | None) -> SmallRequests | None:
        """What sends a request without a session; None where only aiohttp's session can."""
        if proxy is not None or (data is not None and len(data) > MAX_BODY_BYTES):
            return None
        return self._small_requests() if self.is_own(url) else None

    def _small_requests(self) -> SmallRequests:
        if self._small is None:
            most = self._settings.limits.concurrency
            self._small = SmallRequests(self._own_connector(), self.base, self._connecting, most)
        return self._small

    def _session_for(self, url: URL) -> aiohttp.ClientSession:
        if self.is_own(url):
            if self._session is None:
                self._session = self._new_session(self._own_connector())
            return self._session
        if self._foreign is None:
            self._foreign = self._new_session(self._new_connector(self._foreign_context, own=False))
        return self._foreign

    def _own_connector(self) -> TolerantConnector:
        """The site's own connections, with or without a session."""
        if self._connector is None:
            self._connector = self._new_connector(self._context, own=True)
            if not self._settings.tls.verify and self.base.scheme == "https":
                text = "the server's certificate is not verified (tls.verify = false)"
                self._events.emit(Warned(self.site, text))
        return self._connector

    def _new_connector(self, context: ssl.SSLContext, *, own: bool) -> TolerantConnector:
        return TolerantConnector(
            # The site's gates say how many at once; a second limit here would only hide them.
            limit=0,
            ssl=context,
            resolver=self._resolver(own=own),
            keepalive_timeout=_KEEPALIVE_SECONDS,
        )

    def _new_session(self, connector: TolerantConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            auto_decompress=False,
            requote_redirect_url=False,
            read_bufsize=_READ_BUFFER_BYTES,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
            timeout=self._connecting,
            request_class=_Request,
            trust_env=False,  # it would bring ~/.netrc with it
        )

    def _is_for_threads(self, url: URL, proxy: URL | None) -> bool:
        """Whether threads can reach the URL: TLS within the TLS of a proxy is aiohttp's alone."""
        return url.scheme in {"http", "https"} and (proxy is None or proxy.scheme == "http")

    def _way(self, url: URL, proxy: URL | None) -> Way:
        own = self.is_own(url)
        context = None
        if url.scheme == "https":
            context = self._context if own else self._foreign_context
        return Way(url, self._resolver(own=own), context, proxy)

    def _resolver(self, *, own: bool) -> GuardedResolver:
        return GuardedResolver(self.guard, own=own, exempt=self._proxies.hosts)

    def _done(self, about: Operation, code: str, began: float) -> None:
        self._events.emit(RequestDone(self.site, about.operation, code, self._clock.monotonic() - began))


def _left(connection: Connection) -> int:
    """Becomes another number whenever the other side takes a byte of what is sent over a connection of aiohttp."""
    transport = connection.transport
    sock = None if transport is None else transport.get_extra_info("socket")
    return (
        0 if transport is None or sock is None else transport.get_write_buffer_size() + backlog(sock.fileno())
    )


def _remember(authorization: str) -> None:
    """So that nobody who quotes it to us brings it into a report: the header's credentials, and Basic's password."""
    scheme, _, credentials = authorization.partition(" ")
    remember(credentials)
    if scheme == "Basic":
        remember(base64.b64decode(credentials).decode(errors="replace").partition(":")[2])


def _has_length(streamed: AsyncIterable[Chunk] | None, headers: Mapping[str, str]) -> bool:
    """Whether the body of a request, if there is one, is announced with its length: threads send no other."""
    return streamed is None or "Content-Length" in headers


async def _at_most(reading: Reading, count: int) -> bytes:
    parts: list[Chunk] = []
    await _collect(reading, count, parts)
    return b"".join(parts)


async def _collect(reading: Reading, count: int, parts: list[Chunk]) -> None:
    """Adds the body to `parts`, `count` bytes at most; what had come is in them when this raises."""
    left = count
    while left > 0 and (chunk := await reading.next()):
        parts.append(chunk[:left])
        left -= len(parts[-1])
