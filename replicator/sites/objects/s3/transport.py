"""aiobotocore's HTTP transport, made safe against what an endpoint answers, and the errors it does not translate.

Left alone it follows any redirect, with the session token of the credentials in a header; it reads an answer however
long it is; and it waits for `100 Continue` until the request times out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession
from yarl import URL

from replicator.sites.bounds import MAX_HEADER_BYTES, MAX_HEADERS, MAX_XML_BYTES, MAX_XML_TAGS
from replicator.sites.framing import tolerate

BrokenTransport: Final = aiohttp.ClientError
"""Any error of the transport."""
TruncatedBody: Final = aiohttp.ClientPayloadError
"""The response body ended early, or its framing is invalid. A `BrokenTransport`."""
CONTINUE_SECONDS: Final = 1.0
"""For `100 Continue`; then the body is sent without it (RFC 9110, 10.1.1: not indefinitely)."""
MAX_REQUESTS: Final = 8
"""For one call of botocore's, which asks for a bucket's region where it is redirected, and again where that is."""
_left: ContextVar[list[int] | None] = ContextVar("left", default=None)
_READ_BUFFER_BYTES: Final = 128 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class RedirectRefused(Exception):
    """The endpoint led to another host or scheme. The text says where."""


class AnswerTooLong(Exception):
    """An answer that should be small is longer than `MAX_XML_BYTES`, or has more than `MAX_XML_TAGS`."""


@contextlib.contextmanager
def one_call() -> Iterator[None]:
    """Within this context, `MAX_REQUESTS` may be sent."""
    token = _left.set([MAX_REQUESTS])
    try:
        yield
    finally:
        _left.reset(token)


class GuardedSession(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore has no types
    """aiobotocore's session; redirects stay within the endpoint's scheme, host and port, answers within bounds.

    What AWS answers where a bucket is in another region is left to botocore, which signs anew for that region.
    """

    async def _get_session(self, proxy_url: str | None) -> Any:
        async with self._sessions_lock:
            if (session := self._sessions.get(proxy_url)) is None:
                connector = await self._create_connector(proxy_url)
                tolerate(connector)
                inner = aiohttp.ClientSession(
                    connector=connector,
                    timeout=self._timeout,
                    skip_auto_headers={"CONTENT-TYPE"},
                    auto_decompress=False,
                    request_class=_Request,
                    max_line_size=MAX_HEADER_BYTES,
                    max_field_size=MAX_HEADER_BYTES,
                    max_headers=MAX_HEADERS,
                    read_bufsize=_READ_BUFFER_BYTES,
                    trust_env=False,
                )
                session = self._sessions[proxy_url] = _Guarded(
                    await self._exit_stack.enter_async_context(inner)
                )
        return session


class _Guarded:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def request(self, method: str, url: URL, **parameters: Any) -> aiohttp.ClientResponse:
        response = await self._sent(method, url, parameters)
        while method in {"GET", "HEAD"} and (target := _target(response, url)) is not None:
            response.release()
            response = await self._sent(method, target, parameters)
        setattr(response, "read", _Bounded(response))  # noqa: B010 - an attribute of this one response
        return response

    async def _sent(self, method: str, url: URL, parameters: Mapping[str, Any]) -> aiohttp.ClientResponse:
        left = _left.get()
        if left is not None:
            left[0] -= 1
            if left[0] < 0:
                raise RedirectRefused("it redirects without end")
        response = await self._session.request(method, url, allow_redirects=False, **parameters)
        if method not in {"GET", "HEAD"}:
            _target(response, url)
        return response


class _Bounded:
    """`ClientResponse.read`, which botocore calls for all but the bodies of objects."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __call__(self) -> bytes:
        try:
            data = await self._read()
        except BaseException:  # a deadline, too: nobody else closes the connection
            self._response.close()
            raise
        self._response.release()
        return data

    async def _read(self) -> bytes:
        data = bytearray()
        async for chunk in self._response.content.iter_any():
            data += chunk
            if len(data) > MAX_XML_BYTES:
                raise AnswerTooLong(f"its answer is longer than the {MAX_XML_BYTES} bytes allowed")
        if data.count(b"<") > MAX_XML_TAGS:
            raise AnswerTooLong(f"its answer has more than the {MAX_XML_TAGS} XML tags allowed")
        return bytes(data)


class _Request(aiohttp.ClientRequest):
    """Sends its body a second after its headers, where nobody says `100 Continue`."""

    async def write_bytes(self, writer: Any, conn: Any, content_length: int | None = None) -> None:
        waiting = self._continue
        if waiting is None:
            await super().write_bytes(writer, conn, content_length)
            return
        timer = asyncio.get_running_loop().call_later(CONTINUE_SECONDS, _go_on, waiting)
        try:
            await super().write_bytes(writer, conn, content_length)
        finally:
            timer.cancel()


def _go_on(waiting: asyncio.Future[bool]) -> None:
    if not waiting.done():
        waiting.set_result(True)


def _target(response: aiohttp.ClientResponse, endpoint: URL) -> URL | None:
    """Where a redirect leads; None where the answer is none, or is one that botocore deals with.

    Raises:
        RedirectRefused: to another scheme, host or port than the endpoint's.
    """
    location = response.headers.get("Location")
    if response.status not in _REDIRECTS or not location or _is_region(response):
        return None
    try:
        target = response.url.join(URL(location, encoded=True))
        is_within = target.origin() == endpoint.origin()
    except ValueError:
        response.close()
        raise RedirectRefused("it redirects to what is not a URL") from None
    if not is_within:
        response.close()
        raise RedirectRefused(f"it redirects to {target.scheme}://{target.raw_host}, which is not followed")
    return target


def _is_region(response: aiohttp.ClientResponse) -> bool:
    """Whether this is AWS's answer for a bucket of another region: botocore asks there, by its own table of hosts."""
    host = (response.url.host or "").lower()
    return "x-amz-bucket-region" in response.headers or host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
