"""The head of a request as bytes, and the head of an answer as what it means."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import aiohttp
import msgspec
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpResponseParser
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from replicator.movers.body import Chunked, Framing, Length, UntilClose
from replicator.sites.bounds import MAX_HEADER_BYTES, MAX_HEADERS
from replicator.sites.framing import mended

_BODILESS: Final = frozenset({204, 304})
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f]")
_UNSAFE_TARGET: Final = re.compile(r"[\x00-\x20\x7f]")


def request_head(method: str, url: URL, headers: Mapping[str, str], *, proxy: URL | None = None) -> bytes:
    """The request line and the headers.

    Args:
        method: of HTTP.
        url: where to; its path and query are sent byte for byte.
        headers: without `Host`; a body needs its `Content-Length`.
        proxy: the proxy that forwards the request, which then names the whole URL; None where none reads it.

    Raises:
        ValueError: something in it cannot be sent.
    """
    target = url.raw_path_qs if proxy is None else str(url)
    sent = {"Host": _host(url), "Accept": "*/*", **headers}
    if method not in {"GET", "HEAD"}:
        sent.setdefault("Content-Length", "0")
    if proxy is not None:
        sent |= proxy_headers(proxy)
    if _UNSAFE_TARGET.search(target):
        raise ValueError("the URL has blanks or control characters")
    lines = [f"{method} {target} HTTP/1.1", *map(_line, sent.items()), "", ""]
    return "\r\n".join(lines).encode("utf-8")


@lru_cache(maxsize=256)  # a site's requests have the same few
def _line(header: tuple[str, str]) -> str:
    name, value = header
    if not _NAME.fullmatch(name) or _UNSAFE.search(value.replace("\t", " ")):
        raise ValueError("a header has control characters")
    return f"{name}: {value}"


def proxy_headers(proxy: URL) -> dict[str, str]:
    """What a proxy wants to be shown, from the user information of its URL."""
    if proxy.user is None:
        return {}
    login = f"{proxy.user}:{proxy.password or ''}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(login).decode('ascii')}"}


def tunnel_head(url: URL, proxy: URL) -> bytes:
    """The request that has a proxy open a tunnel to the URL's host."""
    host = f"{url.host_subcomponent}:{url.port}"
    lines = [f"CONNECT {host} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in proxy_headers(proxy).items()]
    return "\r\n".join([*lines, "", ""]).encode("utf-8")


def _host(url: URL) -> str:
    port = "" if url.is_default_port() else f":{url.port}"
    return f"{url.host_subcomponent}{port}"


class AnswerHead(msgspec.Struct, frozen=True):
    """What the head of an answer says. `stays_open`: the connection can serve another request after the body."""

    status: int
    headers: CIMultiDictProxy[str]
    framing: Framing
    stays_open: bool


def answer_head(url: URL, method: str, head: bytes) -> AnswerHead:
    """Parses the head of an answer, as strictly as aiohttp does, after the repairs of `framing.mended`.

    Raises:
        aiohttp.ServerDisconnectedError: it is empty.
        aiohttp.ClientResponseError: it is not HTTP, too long, or of doubtful length.
    """
    if not head:
        raise aiohttp.ServerDisconnectedError
    repaired = mended(head)
    loop = asyncio.get_running_loop()
    parser = HttpResponseParser(
        BaseProtocol(loop),
        loop,
        2**16,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        max_headers=MAX_HEADERS,
        response_with_body=True,
        read_until_eof=True,
        auto_decompress=False,
    )
    try:
        messages, upgraded, _ = parser.feed_data(repaired or head)
    except HttpProcessingError as error:
        raise not_read(url, method, error.code, error.message) from None
    if not messages or upgraded:
        raise not_read(url, method, 400, "not an answer in HTTP")
    message = messages[0][0]
    framing, length = _framing(message.code, message.chunked, message.headers.get("Content-Length"))
    if framing is None:
        raise not_read(url, method, 400, f"Content-Length is {length}")
    return AnswerHead(
        message.code,
        CIMultiDictProxy(CIMultiDict(message.headers)),
        framing,
        stays_open=not (message.should_close or repaired is not None or isinstance(framing, UntilClose)),
    )


def _framing(status: int, chunked: bool, length: str | None) -> tuple[Framing | None, str | None]:  # noqa: FBT001
    if status in _BODILESS:
        return Length(0), length
    if chunked:
        return Chunked(), length
    if length is None:
        return UntilClose(), length
    if not (length.isascii() and length.isdigit()):
        return None, length
    return Length(int(length[:30])), length


def not_read(url: URL, method: str, status: int, message: str) -> aiohttp.ClientResponseError:
    """The error that aiohttp raises for what is not an answer in HTTP."""
    about = aiohttp.RequestInfo(url, method, CIMultiDictProxy(CIMultiDict()), url)
    return aiohttp.ClientResponseError(about, (), status=status, message=message)
