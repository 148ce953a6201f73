"""Requests of one site as they go over the wire: connections, TLS, proxies, time limits, nothing of registries."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from replicator import __version__
from replicator.errors import Corrupt
from replicator.events import Events, RequestDone, Warned
from replicator.ports import Clock
from replicator.sites.registry.errormap import MAX_ERROR_BYTES, Errand, authority, network_failure
from replicator.sites.registry.origin import Origin, origin_of
from replicator.sites.registry.proxy import Proxies
from replicator.sites.registry.settings import TLS, RegistrySettings
from replicator.sites.registry.tls import client_context

USER_AGENT: Final = f"replicator/{__version__}"
_READ_BUFFER_BYTES: Final = 128 * 1024
_KEEPALIVE_SECONDS: Final = 30.0
"""Below the 60 s after which load balancers close idle connections."""
_COMMITTING: Final = frozenset({"PUT", "PATCH", "DELETE"})
_FAILURES: Final = (aiohttp.ClientError, OSError, ValueError)
"""All that aiohttp raises, TimeoutError (an OSError) included; ValueError: a header or URL that cannot be sent."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds without any progress after which a request has failed. None bounds a whole transfer.

    `connect`: to connect, TLS included. `read`: between two readings of an answer. `commit`: for the answer to
    a request that changes something (registries on object stores copy a whole blob before they answer its
    PUT). `progress`: for the server to take a chunk of an upload.
    """

    connect: float = 30.0
    read: float = 60.0
    commit: float = 300.0
    progress: float = 60.0


class Wire:
    """One site's connections.

    Sends what it is given, follows no redirect and keeps no cookie. Every exception becomes `Unavailable`, every
    request one `RequestDone`. Connections are made on demand; `aclose` closes them.

    Raises:
        ConfigError: the site's proxy or its TLS files are unusable.
    """

    def __init__(self, settings: RegistrySettings, timeouts: Timeouts, events: Events, clock: Clock) -> None:
        self.site = settings.name
        self.base = URL(settings.url, encoded=True)
        self.origin: Origin = origin_of(self.base)
        self.timeouts = timeouts
        self._settings = settings
        self._events = events
        self._clock = clock
        self._proxies = Proxies(settings.name, settings.proxy)
        tls = settings.tls
        self._context: ssl.SSLContext | None = None
        self._foreign_context: ssl.SSLContext | None = None
        # Without settings aiohttp's own context serves: as good, and no second reading of all authorities.
        if tls != TLS():
            self._context = self._foreign_context = client_context(settings.name, tls)
            if tls.cert is not None:
                self._foreign_context = client_context(settings.name, tls, with_certificate=False)
        self._quick = aiohttp.ClientTimeout(
            total=None, connect=timeouts.connect, sock_connect=timeouts.connect, sock_read=timeouts.read
        )
        self._patient = aiohttp.ClientTimeout(
            total=None, connect=timeouts.connect, sock_connect=timeouts.connect, sock_read=timeouts.commit
        )
        self._session: aiohttp.ClientSession | None = None
        self._foreign: aiohttp.ClientSession | None = None

    async def send(
        self,
        errand: Errand,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        *,
        data: bytes | AsyncIterable[bytes] | None = None,
    ) -> aiohttp.ClientResponse:
        """Sends one request and returns when the headers of its answer are there.

        The response is the caller's to read and close.

        Raises:
            Unavailable: no answer.
        """
        session = self._session_for(url)
        began = self._clock.monotonic()
        try:
            response = await session.request(
                method,
                url,
                headers=headers,
                data=data,
                allow_redirects=False,
                proxy=self._proxies.find(url),
                timeout=self._patient if method in _COMMITTING else self._quick,
            )
        except _FAILURES as error:
            failure = network_failure(error, authority(url))
            self._done(errand, failure.word, began)
            # The chain is cut: aiohttp's own messages may hold a signed URL.
            raise failure.error(self.site, errand) from None
        self._done(errand, str(response.status), began)
        return response

    async def read(self, errand: Errand, response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
        """The rest of an answer, its connection given back (or closed, where this raises).

        Raises:
            Corrupt: it is longer than `max_bytes`.
            Unavailable: it broke off.
        """
        if response.method == "HEAD":
            response.release()
            return b""
        length = response.content_length
        try:
            if length is not None and length <= max_bytes:
                return await response.read()
            data = b"" if length is not None else await _at_most(response, max_bytes + 1)
        except _FAILURES as error:
            response.close()
            failure = network_failure(error, authority(response.url))
            raise failure.error(self.site, errand) from None
        except BaseException:
            response.close()
            raise
        if length is None and len(data) <= max_bytes:
            return data
        response.close()
        cause = f"the answer is longer than the {max_bytes} bytes allowed"
        raise Corrupt(self.site, errand.operation, cause, repository=errand.repository)

    async def read_error(self, response: aiohttp.ClientResponse) -> bytes:
        """As much of an error's body as is worth reading, or came; never raises for the rest."""
        if response.method == "HEAD":
            response.release()
            return b""
        try:
            return await _at_most(response, MAX_ERROR_BYTES)
        except _FAILURES:
            return b""
        finally:
            response.close()  # which after the last byte gives the connection back

    async def aclose(self) -> None:
        """Closes all connections."""
        sessions = (self._session, self._foreign)
        self._session = self._foreign = None
        for session in sessions:
            if session is not None:
                await session.close()

    def _session_for(self, url: URL) -> aiohttp.ClientSession:
        if origin_of(url) == self.origin:
            if self._session is None:
                self._session = self._new_session(self._context)
                if not self._settings.tls.verify and self.base.scheme == "https":
                    text = "the server's certificate is not verified (tls.verify = false)"
                    self._events.emit(Warned(self.site, text))
            return self._session
        if self._foreign is None:
            self._foreign = self._new_session(self._foreign_context)
        return self._foreign

    def _new_session(self, context: ssl.SSLContext | None) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            # The site's gates say how many at once; a second limit here would only hide them.
            connector=aiohttp.TCPConnector(
                limit=0, ssl=context or True, keepalive_timeout=_KEEPALIVE_SECONDS
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            auto_decompress=False,
            requote_redirect_url=False,
            read_bufsize=_READ_BUFFER_BYTES,
            timeout=self._quick,
            trust_env=False,  # it would bring ~/.netrc with it
        )

    def _done(self, errand: Errand, code: str, began: float) -> None:
        self._events.emit(RequestDone(self.site, errand.operation, code, self._clock.monotonic() - began))


async def _at_most(response: aiohttp.ClientResponse, count: int) -> bytes:
    parts: list[bytes] = []
    left = count
    async for chunk in response.content.iter_any():
        parts.append(chunk[:left])
        left -= len(parts[-1])
        if left <= 0:
            break
    return b"".join(parts)
