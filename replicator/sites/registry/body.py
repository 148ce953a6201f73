"""The body of an upload, on its way from a source to who sends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, TypeAlias

from replicator.flow.limits import SiteLimits
from replicator.flow.splice import Splice, close, pass_on
from replicator.ports import Chunk

Left: TypeAlias = Callable[[], int]
"""Gives another number whenever the other side has taken some of what is sent."""

_LOOK_SECONDS: Final = 1.0
"""How often it is checked whether the other side has taken anything, at most."""


class WrongLength(Exception):
    """A source gave more or fewer bytes than it announced."""


class UploadBody:
    """Hands a source's chunks to aiohttp, once, and watches what aiohttp would not.

    Left alone, aiohttp waits for ever when a body is shorter than its Content-Length, and quietly cuts one that
    is longer (the server then answers 201). Here the last chunk is given only when the source has ended with
    exactly the length announced, so that no wrong body is ever complete. What went wrong is in `problem`:
    aiohttp would report it as a broken connection of the upload.

    `sent` counts the bytes given to aiohttp; `ended` tells that this was all.
    """

    def __init__(
        self,
        source: AsyncIterator[Chunk],
        length: int | None,
        *,
        limits: SiteLimits,
        stall_seconds: float,
        commit_seconds: Callable[[int], float],
    ) -> None:
        self.problem: Exception | None = None
        self.sent = 0
        self.ended = False
        self._source = source
        self._length = length
        self._limits = limits
        self._stall_seconds = stall_seconds
        self._commit_seconds = commit_seconds
        self._look_seconds = min(_LOOK_SECONDS, stall_seconds / 4)
        self._deadline: asyncio.Timeout | None = None
        self._allowed: float | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._iterated = False
        self._closed = False
        self._turn = asyncio.Lock()

    def watch(self, deadline: asyncio.Timeout | None) -> None:
        """From now on `deadline` is moved along.

        It is `stall_seconds` after each chunk, off while the source is asked, and when all was sent as many seconds
        away as `commit_seconds` gives for that many bytes; no answer of the server moves it (a flood of 1xx would).
        Each byte that the server takes (`goes_over`) has it begin anew: one that takes a few thousand a second is long
        busy with a chunk, and with the megabytes that the system keeps of what was sent.
        Where the asking is cancelled because an answer has begun, the rest of it has `stall_seconds`.
        """
        self._deadline = deadline
        if self._looking is not None and deadline is None:
            self._looking.cancel()

    def goes_over(self, left: Left) -> None:
        """Tells what the body is sent over, once that is known; see `watch`."""
        if self._looking is not None:
            self._looking.cancel()
        self._look(left, left())

    def _look(self, left: Left, before: int) -> None:
        now = left()
        if now != before:
            self._due(self._allowed)
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(self._look_seconds, self._look, left, now)

    def late_text(self) -> str:
        """What the deadline's passing means."""
        if self.ended:
            seconds = self._commit_seconds(self.sent)
            return f"no answer within {seconds:g} s after all {self.sent} bytes were sent (timeouts.commit)"
        return f"no progress for {self._stall_seconds:g} s after {self.sent} bytes (timeouts.read)"

    def __aiter__(self) -> UploadBody:
        if self._iterated:
            # aiohttp sends PUT again on a connection found dead; by then some of the body is gone.
            raise RuntimeError("the body of an upload can be sent only once")
        self._iterated = True
        return self

    async def __anext__(self) -> Chunk:
        async with self._turn:
            self._due(None)
            try:
                chunk = None if self._closed or self.ended else await self._checked()
            except asyncio.CancelledError:
                self._due(self._stall_seconds)  # an answer has begun, and is waited for
                raise
            except Exception as error:
                self.problem = error
                raise
            if chunk is None:
                self._due(self._commit_seconds(self.sent))
                raise StopAsyncIteration
            await self._limits.pace_bytes(len(chunk))
            self.sent += len(chunk)
            self._due(self._stall_seconds)
            return chunk

    async def splice(self, splice: Splice) -> None:
        """See `flow.splice.Spliceable`. Never to the last byte of the length; not where bytes wait for their turn.

        The deadline is off meanwhile: a splice ends by itself where nothing moves.
        """
        async with self._turn:
            if self._closed or self.ended or self._length is None or self._limits.paces_bytes:
                return
            splice.narrow(self._length - self.sent - 1)
            splice.count_with(self._count)
            self._due(None)
            await pass_on(self._source, splice)
            self._due(self._stall_seconds)

    def _count(self, count: int) -> None:
        self.sent += count

    async def aclose(self) -> None:
        """Closes the source, after the chunk that it is being asked for. Nothing is read from it any more."""
        self._closed = True
        async with self._turn:
            await close(self._source)

    async def _checked(self) -> Chunk | None:
        """The next chunk; None when the source has rightly ended."""
        chunk = await self._next()
        if self._length is None or chunk is None:
            if self._length is not None and self.sent != self._length:
                raise WrongLength(f"the source ended after {self.sent} of the {self._length} bytes announced")
            self.ended = chunk is None
            return chunk
        total = self.sent + len(chunk)
        if total == self._length:
            excess = await self._next()
            self.ended = excess is None
            total += len(excess or b"")
        if total > self._length:
            raise WrongLength(f"the source gives more than the {self._length} bytes announced")
        return chunk

    async def _next(self) -> Chunk | None:
        """The source's next chunk that is not empty (an empty one would end a chunked body), None at its end."""
        chunk = await anext(self._source, None)
        while chunk == b"":
            chunk = await anext(self._source, None)
        return chunk

    def _due(self, seconds: float | None) -> None:
        self._allowed = seconds
        if self._deadline is not None and not self._deadline.expired():
            now = asyncio.get_running_loop().time()
            # What is taken shortly before it is seen shortly after.
            self._deadline.reschedule(None if seconds is None else now + seconds + self._look_seconds)
