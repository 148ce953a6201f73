"""Reading the body of an answer, every wait bounded by a deadline of our own.

aiohttp's own timer is not enough: when the framing of a body breaks after its headers (a chunk size of -1, HTTP
written into the body), aiohttp 3.14 closes the connection, keeps the error where nobody looks, and never wakes
the reader.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple, Protocol

import aiohttp
from aiohttp.connector import Connection

from replicator.flow.splice import Splice, pass_on
from replicator.ports import Chunk
from replicator.sites.timeouts import Timeouts

_CHECK_SECONDS: Final = 0.5
"""How often a reader that waits checks that its connection is still open."""
_SMALL_FACTOR: Final = 10
"""A small answer is never waited for longer than this many times `Timeouts.read`, whatever its size."""


class Late(TimeoutError):
    """A deadline of ours passed. `text` says which, as the end of a sentence about the host.

    `is_slow`: something came all the time, but too little of it.
    """

    def __init__(self, text: str, *, is_slow: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.is_slow = is_slow


class Patience(NamedTuple):
    """How long the head of an answer is waited for, the connecting excluded, and the key of `timeouts` that says so."""

    seconds: float
    key: str

    def late(self) -> Late:
        """The error once that time has passed."""
        return Late(f"sent no answer within {self.seconds:g} s (timeouts.{self.key})")


class BrokenFraming(Exception):
    """The body of an answer is not valid HTTP."""


class Pieces(Protocol):
    """The body of an answer as it comes."""

    async def readany(self) -> Chunk:
        """What has come, at least a byte; `b""` at the end. May be cancelled and called again."""
        ...


class Incoming(Protocol):
    """As much of `aiohttp.ClientResponse` as reading takes."""

    @property
    def content(self) -> Pieces:
        """The body."""
        ...

    @property
    def connection(self) -> Connection | None:
        """What aiohttp reads it from; None where errors of the connection are raised from the body alone."""
        ...


class Reading:
    """Reads one body.

    Each wait ends after `Timeouts.read`. A small body must be complete within `Timeouts.read` and the time that its
    bytes take at `Timeouts.minimum_rate`; any other must keep that rate, measured over `Timeouts.read` of waiting
    (time that the caller spends between two calls does not count).
    """

    def __init__(self, response: Incoming, timeouts: Timeouts, *, small: bool) -> None:
        self._response = response
        self._timeouts = timeouts
        self._small = small
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._received = 0
        self._window_seconds = 0.0
        self._window_bytes = 0
        self._slow: Late | None = None

    async def next(self) -> Chunk:
        """The next bytes, `b""` at the end.

        Raises:
            Late: a deadline passed, or the body comes too slowly.
            BrokenFraming: it is not valid HTTP.
            aiohttp.ClientError, OSError: the connection broke.
        """
        if self._slow is not None:
            raise self._slow
        began = self._loop.time()
        chunk = await self._wait(began)
        self._received += len(chunk)
        if chunk and not self._small:
            self._judge(len(chunk), self._loop.time() - began)
        return chunk

    async def splice(self, splice: Splice) -> None:
        """See `flow.splice.Spliceable`; that it comes too slowly is raised by `next`."""
        before = self._received
        splice.count_with(self._add)
        await pass_on(self._response.content, splice)
        try:
            self._judge(self._received - before, splice.waited)
        except Late as slow:
            self._slow = slow

    def _add(self, count: int) -> None:
        self._received += count

    async def _wait(self, began: float) -> Chunk:
        deadline = self._deadline(began)
        while True:
            until = min(deadline, self._loop.time() + _CHECK_SECONDS)
            try:
                async with asyncio.timeout_at(until):
                    return await self._response.content.readany()
            except TimeoutError:
                self._raise_parked()
                if self._loop.time() >= deadline:
                    raise Late(self._late_text()) from None

    def _deadline(self, now: float) -> float:
        read = self._timeouts.read
        if not self._small:
            return now + read
        allowed = min(read + self._received / self._timeouts.minimum_rate, _SMALL_FACTOR * read)
        return min(now + read, self._began + allowed)

    def _late_text(self) -> str:
        waited = self._loop.time() - self._began
        if self._small and waited > self._timeouts.read + _CHECK_SECONDS:
            return f"sent {self._received} bytes of an answer in {waited:.0f} s and did not finish it"
        return f"sent nothing for {self._timeouts.read:g} s after {self._received} bytes (timeouts.read)"

    def _judge(self, count: int, seconds: float) -> None:
        self._window_bytes += count
        self._window_seconds += seconds
        if self._window_seconds < self._timeouts.read:
            return
        rate = self._window_bytes / self._window_seconds
        if rate < self._timeouts.minimum_rate:
            least = self._timeouts.minimum_rate
            raise Late(
                f"sends {rate:.0f} bytes a second, fewer than {least:g} (timeouts.minimum_rate)", is_slow=True
            )
        self._window_bytes, self._window_seconds = 0, 0.0

    def _raise_parked(self) -> None:
        """Raises what aiohttp keeps to itself: an error of the parser, or a connection that is gone."""
        connection = self._response.connection
        protocol = None if connection is None else connection.protocol
        if protocol is None:
            return
        if protocol.exception() is not None:
            raise BrokenFraming
        if protocol.transport is None or protocol.transport.is_closing():
            raise aiohttp.ClientPayloadError
