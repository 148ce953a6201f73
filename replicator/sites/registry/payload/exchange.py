"""Requests and answers of one site whose bodies threads move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

import aiohttp
import msgspec

from replicator.flow.splice import Splice, pass_on
from replicator.flow.thread import run_in_thread
from replicator.movers.buffers import Buffers
from replicator.movers.connection import Connection, Malformed
from replicator.ports import Chunk
from replicator.sites.registry.body import Left
from replicator.sites.registry.payload.answer import PayloadAnswer
from replicator.sites.registry.payload.dial import Way, dial
from replicator.sites.registry.payload.heads import answer_head, not_read, request_head
from replicator.sites.registry.payload.idle import IdleConnections
from replicator.sites.timeouts import Timeouts

T = TypeVar("T")

CHUNK_BYTES: Final = 256 * 1024
"""Received, hashed and sent at once: a few calls of the event loop for each. A stream has two or three of them."""
_ERROR_BYTES: Final = 16 * 1024
_FILL_SECONDS: Final = 0.25
"""So long a piece waits for more bytes after its first: a slow link gives four a second."""
_MAX_THREADS: Final = 512
"""More than the gates of a site let through: each transfer has one."""
_LITTLE_BYTES: Final = 16 * 1024
_LARGE: Final = frozenset({200, 206})
"""Answers with these may have a large body."""


class Ask(msgspec.Struct, frozen=True):
    """One request. `body`, where there is one, is of the length that the headers say, and given once."""

    way: Way
    method: str
    headers: Mapping[str, str]
    body: AsyncIterable[Chunk] | None = None


class Payloads:
    """The connections and threads for large bodies of one site.

    Args:
        name: of the threads.
        timeouts: of the site; `connect` is for a connection, TLS and proxy included.
        keepalive_seconds: how long an idle connection is kept.
    """

    def __init__(self, name: str, timeouts: Timeouts, *, keepalive_seconds: float) -> None:
        self._name = name
        self._connect_seconds = timeouts.connect
        self._fill_seconds = min(_FILL_SECONDS, timeouts.read / 10)
        self._idle = IdleConnections(keepalive_seconds)
        self._threads: ThreadPoolExecutor | None = None
        self._buffers = Buffers(CHUNK_BYTES)

    async def request(self, ask: Ask, sent: Callable[[Left], None]) -> PayloadAnswer:
        """Sends a request and returns when the head of its answer has come; the answer is the caller's to close.

        A request without a body is sent again if a kept connection turns out to be closed. A body is no longer
        asked for, or waited for, once the other side answers.

        Args:
            ask: the request.
            sent: called when the head of the request has gone out, with what tells how much the other side takes.

        Raises:
            aiohttp.ClientError, OSError, ValueError: as aiohttp's for the same failure.
        """
        way = ask.way
        proxy = way.proxy if way.is_forwarded else None
        head = request_head(ask.method, way.url, ask.headers, proxy=proxy)
        while (connection := self._idle.take(way.key)) is not None:
            try:
                return await self._exchange(connection, ask, head, sent)
            except (aiohttp.ServerDisconnectedError, ConnectionError):
                if ask.body is not None:
                    raise
        limit = asyncio.timeout(self._connect_seconds)
        try:
            async with limit:
                connection = await dial(way, self._run)
        except TimeoutError:
            if not limit.expired():
                raise
            raise aiohttp.ConnectionTimeoutError from None
        return await self._exchange(connection, ask, head, sent)

    async def aclose(self) -> None:
        """Closes the idle connections and ends the threads; answers are closed before."""
        self._idle.close()
        threads, self._threads = self._threads, None
        self._buffers.clear()
        if threads is not None:
            await run_in_thread(threads.shutdown)

    async def _exchange(
        self, connection: Connection, ask: Ask, head: bytes, sent: Callable[[Left], None]
    ) -> PayloadAnswer:
        try:
            is_whole = await self._send(connection, head)
            sent(connection.left)
            if ask.body is not None and is_whole:
                is_whole = await self._feed(connection, aiter(ask.body))
            raw = await self._answer_head(connection)
            answered = answer_head(ask.way.url, ask.method, raw)
        except BaseException as error:
            connection.close()
            if isinstance(error, Malformed):
                raise not_read(ask.way.url, ask.method, 400, str(error)) from None
            raise
        key = ask.way.key

        def done(again: Connection | None) -> None:
            if again is None or not is_whole or self._threads is None:
                connection.close()
            else:
                self._idle.give(key, again)

        answer = PayloadAnswer(
            ask.method,
            ask.way.url,
            answered,
            connection=connection,
            buffer=self._buffers.take if answered.status in _LARGE else _small,
            fill_seconds=self._fill_seconds,
            threads=self._executor,
            done=done,
        )
        answer.is_early = not is_whole
        return answer

    async def _send(self, connection: Connection, data: Chunk) -> bool:
        """As `Connection.send`; little that the system takes at once needs no thread."""
        rest = memoryview(data)
        if len(rest) <= _LITTLE_BYTES:
            rest = connection.offer(rest, 0.0)
        return not rest or await self._run(connection, partial(connection.send, rest))

    async def _answer_head(self, connection: Connection) -> bytes:
        """As `Connection.head`, which is waited for without a thread; one is needed if it does not come at once."""
        head = connection.head_that_came()
        if head is None:
            await _readable(connection)
            head = connection.head_that_came()
        return await self._run(connection, connection.head) if head is None else head

    async def _feed(self, connection: Connection, body: AsyncIterator[Chunk]) -> bool:
        """Sends the body; False if the other side answered before all of it was taken."""
        while True:
            try:
                chunk = await _next_unless(connection, body)
            except _Spoken:
                return False
            if chunk is None:
                return True
            if not await self._send(connection, chunk):
                return False
            del chunk  # its memory may be used again while the next is waited for
            if not await self._spliced(connection, body):
                return False

    async def _spliced(self, connection: Connection, body: AsyncIterator[Chunk]) -> bool:
        """Has a thread send what it can; as `_feed`."""
        splice = Splice(connection, threads=self._executor)
        await pass_on(body, splice)
        if splice.rest:
            return await self._run(connection, partial(connection.send, splice.rest))
        return not (splice.count and connection.has_spoken())

    async def _run(self, connection: Connection, call: Callable[[], T]) -> T:
        return await run_in_thread(call, self._executor, connection.abort)

    @property
    def _executor(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix=f"payload-{self._name}")
        return self._threads


def _small() -> memoryview:
    return memoryview(bytearray(_ERROR_BYTES))


class _Spoken(Exception):
    """The other side answers, or has closed the connection."""


async def _next_unless(connection: Connection, body: AsyncIterator[Chunk]) -> Chunk | None:
    """The body's next bytes, None at its end.

    Raises:
        _Spoken: the other side did not wait for them.
        aiohttp.ClientConnectionError: the body failed; what is wrong with it is the body's to tell.
    """
    asking = asyncio.create_task(_next(body))
    try:
        while not asking.done():
            await _readable(connection, asking)
            if not asking.done() and connection.has_spoken():
                raise _Spoken
        return asking.result()
    finally:
        if not asking.done():
            asking.cancel()
            await asyncio.wait({asking})


async def _readable(connection: Connection, *others: asyncio.Future[Chunk | None]) -> None:
    """Returns when bytes have come, the other side has closed, or one of `others` is done."""
    loop = asyncio.get_running_loop()
    heard: asyncio.Future[Chunk | None] = loop.create_future()
    loop.add_reader(connection.fileno(), _wake, heard)
    try:
        await asyncio.wait([*others, heard], return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(connection.fileno())


async def _next(body: AsyncIterator[Chunk]) -> Chunk | None:
    try:
        return await anext(body, None)
    except Exception as error:
        raise aiohttp.ClientConnectionError("the body of the request failed") from error


def _wake(heard: asyncio.Future[Chunk | None]) -> None:
    if not heard.done():
        heard.set_result(None)
