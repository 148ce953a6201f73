"""How long one request to a bucket may take."""

from __future__ import annotations

import asyncio
import io
from typing import Final, Literal

from replicator.sites.reading import Late
from replicator.sites.timeouts import Timeouts

Wait = Literal["read", "first_byte", "commit"]
"""The key of `timeouts` that says how long an answer is waited for."""
_LOOKS: Final = 4
"""How often within `timeouts.read` it is checked how much of a body has been sent."""


class Deadline:
    """Ends a request that is not answered in time, whatever its endpoint sends instead of an answer.

    A request without a body has `connect` and the seconds of its key. One with a body must make progress at least
    every `read` seconds; when all of it has gone out, the answer has those seconds.

    Args:
        timeouts: of the site.
        wait: the key.
        commits: bytes that the store copies before it answers; more of them are waited for longer.
        body: what is sent, read from its position on.
    """

    def __init__(self, timeouts: Timeouts, wait: Wait, commits: int, body: io.BytesIO | None) -> None:
        self._timeouts = timeouts
        self._wait = wait
        self._body = body
        self._size = 0 if body is None else len(body.getbuffer())
        self._answer = getattr(timeouts, wait) if wait != "commit" else timeouts.commit_seconds(commits)
        self._timer = asyncio.timeout(timeouts.connect + (timeouts.read if self._size else self._answer))
        self._looking: asyncio.TimerHandle | None = None
        self._position = 0

    async def __aenter__(self) -> None:
        await self._timer.__aenter__()
        if self._body is not None and self._size:
            self._look_later(self._body)

    async def __aexit__(self, *error: object) -> None:
        if self._looking is not None:
            self._looking.cancel()
        try:
            await self._timer.__aexit__(*error)  # type: ignore[arg-type]  # passed on
        except TimeoutError:
            raise Late(self._text()) from None

    def _look_later(self, body: io.BytesIO) -> None:
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(self._timeouts.read / _LOOKS, self._look, body)

    def _look(self, body: io.BytesIO) -> None:
        position = body.tell()
        if position != self._position and not self._timer.expired():
            self._position = position
            seconds = self._answer if position >= self._size else self._timeouts.read
            self._timer.reschedule(asyncio.get_running_loop().time() + seconds)
        if self._position < self._size:
            self._look_later(body)

    def _text(self) -> str:
        if self._position < self._size:
            read = self._timeouts.read
            return f"took no more than {self._position} of {self._size} bytes for {read:g} s (timeouts.read)"
        return f"sent no answer within {self._answer:g} s (timeouts.{self._wait})"
