"""An answer whose body threads receive. Offers what the readers of `aiohttp.ClientResponse` here use of that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeAlias

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from replicator.flow.splice import SPLICE_SECONDS, Splice
from replicator.flow.thread import run_in_thread
from replicator.movers.body import Body, Truncated
from replicator.movers.connection import Connection, Malformed
from replicator.movers.splice import Bounds, move
from replicator.ports import Chunk
from replicator.sites.reading import BrokenFraming
from replicator.sites.registry.payload.heads import AnswerHead
from replicator.sites.registry.small import SmallAnswer

Answer: TypeAlias = "aiohttp.ClientResponse | PayloadAnswer | SmallAnswer"


class PayloadAnswer:
    """One answer, its body unread.

    Args:
        method: of the request.
        url: of the request.
        head: of the answer.
        connection: which the answer comes over; the answer's until it is closed.
        buffer: gives the memory for a piece of the body.
        fill_seconds: see `movers.body.Body`.
        threads: receive the body.
        done: called when the answer is closed, with the connection where that can serve again.
    """

    connection: aiohttp.connector.Connection | None = None
    """Errors of the connection come from reading: nothing has to be looked for here, unlike at aiohttp's."""
    is_early = False
    """Whether it came before all of the request was taken."""

    def __init__(
        self,
        method: str,
        url: URL,
        head: AnswerHead,
        *,
        connection: Connection,
        buffer: Callable[[], memoryview],
        fill_seconds: float,
        threads: Executor,
        done: Callable[[Connection | None], None],
    ) -> None:
        self.status = head.status
        self.headers: CIMultiDictProxy[str] = head.headers
        self.url = url
        self.method = method
        self.content = self
        self._way = connection
        self._stays_open = head.stays_open
        self._body = Body(connection, head.framing, buffer, fill_seconds)
        self._buffer = buffer
        self._fill_seconds = fill_seconds
        self._threads = threads
        self._done = done
        self._receiving: asyncio.Future[memoryview] | None = None
        self._closed = False

    @property
    def content_length(self) -> int | None:
        """The length that the head announces; None where it does not."""
        length = self.headers.get("Content-Length")
        return None if length is None else int(length)

    async def readany(self) -> Chunk:
        """The next bytes of the body, `b""` at the end. Cancelled, it loses nothing: the next call goes on.

        Raises:
            aiohttp.ClientPayloadError: it broke off.
            BrokenFraming: it is not valid HTTP.
            OSError: the connection broke.
        """
        if self._closed:
            raise aiohttp.ClientConnectionError("the answer is closed")
        if self._receiving is None:
            if self._body.is_over:
                return b""
            if last := self._body.last_byte():  # which no splice takes
                return last
            self._receiving = asyncio.get_running_loop().run_in_executor(self._threads, self._body.next)
        await asyncio.wait({self._receiving})
        received, self._receiving = self._receiving, None
        try:
            return received.result()
        except Truncated:
            raise aiohttp.ClientPayloadError from None
        except Malformed:
            raise BrokenFraming from None

    async def splice(self, splice: Splice) -> None:
        """Has a thread move the next bytes of the body.

        Cancelled, both ends are given up.
        """
        if self._receiving is not None or self._closed or not splice.is_worth_it:
            return
        loop = asyncio.get_running_loop()

        def moved(count: int) -> None:
            loop.call_soon_threadsafe(splice.moved, count)

        def stop() -> None:
            splice.outlet.abort()
            self._way.abort()

        call = partial(
            move,
            self._body,
            splice.outlet,
            self._buffer(),
            Bounds(splice.most, SPLICE_SECONDS, self._fill_seconds),
            show=splice.show,
            moved=moved,
        )
        done = await run_in_thread(call, self._threads, stop)
        splice.rest, splice.waited = done

    def release(self) -> None:
        """As `close`."""
        self.close()

    def close(self) -> None:
        """Gives the connection back after the last byte of the body, else ends it; a thread ends at once then."""
        if self._closed:
            return
        self._closed = True
        receiving, connection = self._receiving, self._way
        if receiving is not None and not receiving.done():
            connection.abort()
            receiving.add_done_callback(self._ended)
            return
        if receiving is not None:
            receiving.exception()  # looked at, so that nobody warns of it
        is_good = self._stays_open and self._body.is_over and connection.is_good
        if not is_good:
            connection.close()
        self._done(connection if is_good else None)

    def _ended(self, receiving: asyncio.Future[memoryview]) -> None:
        if not receiving.cancelled():
            receiving.exception()  # looked at, so that nobody warns of it
        self._way.close()
        self._done(None)
