"""Opens connections for threads: by the same resolver, proxies and TLS contexts as aiohttp's, with aiohttp's errors."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import aiohappyeyeballs
import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from aiohttp.client_reqrep import ConnectionKey
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from replicator.movers.connection import Connection, Malformed
from replicator.sites.registry.payload.heads import answer_head, not_read, tunnel_head

T = TypeVar("T")
Run = Callable[[Connection, Callable[[], T]], Awaitable[T]]

_NEXT_ADDRESS_SECONDS: Final = 0.25
"""After which the next address of a host is tried as well (RFC 8305), as aiohttp does."""

_Address = tuple[int, int, int, str, tuple[str | int, ...]]


class Way(msgspec.Struct, frozen=True):
    """How a URL is reached. `context` is None for plain HTTP, `proxy` for a direct connection; a proxy speaks HTTP."""

    url: URL
    resolver: AbstractResolver
    context: ssl.SSLContext | None
    proxy: URL | None

    @property
    def is_forwarded(self) -> bool:
        """Whether a proxy reads the requests, instead of only passing bytes on."""
        return self.proxy is not None and self.context is None

    @property
    def key(self) -> tuple[str, str | None, int | None, str]:
        """What may share a connection."""
        return (self.url.scheme, self.url.raw_host, self.url.port, str(self.proxy or ""))


async def dial(way: Way, run: Run[bytes | None]) -> Connection:
    """A new connection, ready for a request.

    Args:
        way: where to.
        run: runs a call on the connection in a thread, and aborts it when cancelled.

    Raises:
        aiohttp.ClientError, ssl.SSLError, OSError: as aiohttp's for the same failure.
    """
    sock = await _connected(way)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection = Connection(sock)
    try:
        if way.context is not None:
            if way.proxy is not None:
                await _tunnel(way.url, way.proxy, connection, run)
            await _secure(way, way.context, connection, run)
    except BaseException:
        connection.close()
        raise
    return connection


async def _secure(way: Way, context: ssl.SSLContext, connection: Connection, run: Run[bytes | None]) -> None:
    host = (way.url.raw_host or "").rstrip(".")
    try:
        await run(connection, partial(connection.secure, context, host))
    except ssl.SSLCertVerificationError:
        raise
    except ssl.SSLError as error:  # in a handshake it means another thing than later
        raise aiohttp.ClientConnectorSSLError(_key(way), error) from error


def _key(way: Way) -> ConnectionKey:
    """What aiohttp's errors take host and port from."""
    end = way.proxy or way.url
    return ConnectionKey(
        end.raw_host or "", end.port or 0, way.context is not None, True, way.proxy, None, None
    )


async def _connected(way: Way) -> socket.socket:
    key = _key(way)
    host, port = key.host, key.port or 0
    try:
        addresses = await _addresses(way.resolver, host, port)
    except OSError as error:
        raise aiohttp.ClientConnectorDNSError(key, error) from error
    try:
        return await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS, interleave=1
        )
    except OSError as error:
        kind = aiohttp.ClientConnectorError if way.proxy is None else aiohttp.ClientProxyConnectionError
        raise kind(key, error) from error


async def _addresses(resolver: AbstractResolver, host: str, port: int) -> list[_Address]:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        found = await resolver.resolve(host, port, socket.AF_UNSPEC)
        hosts = [each["host"] for each in found]
    else:
        hosts = [host]
    return [_address(each, port) for each in hosts]


def _address(host: str, port: int) -> _Address:
    is_six = ":" in host
    where: tuple[str | int, ...] = (host, port, 0, 0) if is_six else (host, port)
    return (socket.AF_INET6 if is_six else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where)


async def _tunnel(url: URL, proxy: URL, connection: Connection, run: Run[bytes | None]) -> None:
    asked = tunnel_head(url, proxy)

    def ask() -> bytes:
        connection.send(asked)
        return connection.head()

    try:
        head = answer_head(proxy, "CONNECT", await run(connection, ask) or b"")
    except Malformed as error:
        raise not_read(proxy, "CONNECT", 400, str(error)) from None
    if head.status != 200:
        about = aiohttp.RequestInfo(proxy, "CONNECT", CIMultiDictProxy(CIMultiDict()), proxy)
        raise aiohttp.ClientHttpProxyError(about, (), status=head.status, message="the proxy refused")
    if not connection.is_good:
        # Bytes before the handshake are the proxy's own; they would be read as if TLS had protected them.
        raise not_read(proxy, "CONNECT", 400, "more than an answer")
