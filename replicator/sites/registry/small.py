"""Small requests to a registry's own origin: over aiohttp's connections, without its session, request and response.

The classes left out cost 0.06 ms a request, as much as connections and parser together. Everything out of the ordinary
(bodies that are streamed, proxies, other hosts) goes through aiohttp's session, over the same connections.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from aiohttp.streams import StreamReader
from multidict import CIMultiDictProxy
from yarl import URL

from replicator.sites.bounds import MAX_HEADER_BYTES, MAX_HEADERS
from replicator.sites.framing import TolerantConnector, TolerantHandler
from replicator.sites.reading import Patience
from replicator.sites.registry.payload.heads import not_read, request_head

MAX_BODY_BYTES: Final = 64 * 1024
"""A larger body is sent by the session, which waits for the socket to take it."""
_READ_BUFFER_BYTES: Final = 128 * 1024
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_BROKEN: Final = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)


class SmallAnswer:
    """An answer whose head has come. Offers what is used of `aiohttp.ClientResponse` here."""

    __slots__ = ("_done", "connection", "content", "headers", "method", "status", "url")

    def __init__(self, method: str, url: URL, connection: Connection, done: Callable[[], None]) -> None:
        self.method = method
        self.url = url
        self.connection: Connection | None = connection
        self._done = done
        self.status: int
        self.headers: CIMultiDictProxy[str]
        self.content: StreamReader

    async def come(self, protocol: ResponseHandler, patience: Patience) -> None:
        """Returns when the head of the final answer has come, which `protocol` receives.

        Raises:
            aiohttp.ClientError, OSError: as aiohttp's session for the same failure; the connection is closed.
            Late: it has not come in time; the connection is closed.
        """
        # One call of the loop. asyncio.timeout is an object, a context and three calls for each request.
        deadline = asyncio.get_running_loop().call_later(
            patience.seconds, lambda: protocol.set_exception(patience.late())
        )
        try:
            while True:
                message, content = await protocol.read()
                if not 100 <= message.code < 200 or message.code == 101:
                    break
        except HttpProcessingError as error:
            self.close()
            raise not_read(self.url, self.method, error.code, error.message) from None
        except BaseException:
            self.close()
            raise
        finally:
            deadline.cancel()
        self.status, self.headers, self.content = message.code, message.headers, content
        content.on_eof(self.release)  # called now if the body is complete

    @property
    def content_length(self) -> int | None:
        """The length that the head announces; None where it does not."""
        length = self.headers.get("Content-Length")
        return None if length is None else int(length)

    def whole(self) -> bytes | None:
        """The body if it is complete, as most small bodies are when the head is; otherwise None, and it has to be read."""
        content = self.content
        return content.read_nowait(-1) if content.is_eof() and content.exception() is None else None

    def release(self) -> None:
        """Gives the connection back; one with an unread body is closed."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.release()
            self._done()

    def close(self) -> None:
        """Closes the connection, unless it was given back after the last byte."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()
            self._done()


class _Where(aiohttp.ClientRequest):
    """All that aiohttp's connector wants to know of a request: where it goes. It asks for each connection that it gives."""

    @functools.cached_property
    def connection_key(self) -> ConnectionKey:
        return super().connection_key


class SmallRequests:
    """Small requests to one origin, and its connections opened ahead of need.

    Args:
        connector: makes and keeps the connections.
        base: a URL of the origin.
        connecting: the time limits of a connection.
        most: how many connections are open at most because of `connect_ahead`.
    """

    def __init__(
        self, connector: TolerantConnector, base: URL, connecting: aiohttp.ClientTimeout, most: int
    ) -> None:
        self._connector = connector
        self._connecting_limits = connecting
        self._most = most
        self._where = _Where("GET", base, loop=asyncio.get_running_loop())
        self._busy = 0
        self._connecting = 0
        self._opening: deque[asyncio.Task[None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def request(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes | None,
        patience: Patience,
        *,
        once: bool = False,
    ) -> SmallAnswer:
        """Sends a request and returns when the head of its answer has come; the answer is the caller's to close.

        An idempotent request is sent once more if it breaks with a connection that had waited for it: the other side may
        have closed that in the same moment.

        Args:
            method: of HTTP.
            url: within the origin.
            headers: all but `Host`, and the length and type of the body where they are not special.
            body: at most `MAX_BODY_BYTES`.
            patience: how long the head of the answer is waited for.
            once: it is not sent again.

        Raises:
            aiohttp.ClientError, OSError, ValueError: as aiohttp's session for the same failure.
            Late: the answer did not come in time.
        """
        if body is not None:
            headers = {
                "Content-Type": "application/octet-stream",
                **headers,
                "Content-Length": str(len(body)),
            }
        data = request_head(method, url, headers) + (body or b"")
        connection = await self._connect()
        is_kept = isinstance(connection.protocol, TolerantHandler) and connection.protocol.is_kept
        try:
            return await self._exchange(connection, method, url, data, patience)
        except _BROKEN:
            if once or not is_kept or method not in _IDEMPOTENT:
                raise
        return await self._exchange(await self._connect(), method, url, data, patience)

    def connect_ahead(self, wanted: int) -> None:
        """Opens connections in the background, so that there are `wanted`; what fails is left to the requests.

        Call it for requests that are sure to come, and wait for something else.
        """
        missing = min(wanted, self._most) - self._connector.open - self._connecting
        if missing <= 0:
            return
        idle = max(0, self._connector.open - self._busy)
        for _ in range(missing + idle):  # each takes an idle connection first, and keeps it for a moment
            self._connecting += 1
            task = asyncio.create_task(self._open())
            self._tasks.add(task)
            self._opening.append(task)
            task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Ends what is being opened. The connector is the caller's to close."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _exchange(
        self, connection: Connection, method: str, url: URL, data: bytes, patience: Patience
    ) -> SmallAnswer:
        self._busy += 1
        answer = SmallAnswer(method, url, connection, self._ended)
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:
            answer.close()
            raise aiohttp.ServerDisconnectedError
        protocol.set_response_params(
            skip_payload=method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=_READ_BUFFER_BYTES,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
        )
        transport.write(data)
        await answer.come(protocol, patience)
        return answer

    async def _connect(self) -> Connection:
        while self._opening and self._busy >= self._connector.open:
            await asyncio.wait({self._opening.popleft()})  # rather than to open another one beside it
        self._connecting += 1
        try:
            return await self._connector.connect(self._where, [], self._connecting_limits)
        finally:
            self._connecting -= 1

    async def _open(self) -> None:
        try:
            connection = await self._connector.connect(self._where, [], self._connecting_limits)
            if isinstance(connection.protocol, TolerantHandler):
                connection.protocol.is_kept = True
            try:
                await asyncio.sleep(0)  # all that began together have looked for an idle one by then
            finally:
                connection.release()
        except (aiohttp.ClientError, OSError):
            pass  # the request that comes says what is wrong
        finally:
            self._connecting -= 1

    def _ended(self) -> None:
        self._busy -= 1
