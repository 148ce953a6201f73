"""`/api/v1/events`: where the agent stands, sent again whenever that changes (server-sent events)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

import msgspec
from aiohttp import web

from replicator.daemon.http.api.facts import Facts
from replicator.daemon.http.auth import TRUSTED
from replicator.daemon.http.problems import Problem
from replicator.ports import Clock

MAX_CLIENTS: Final = 16
TURN_SECONDS: Final = 1.0
HEARTBEAT_SECONDS: Final = 15.0
"""Proxies end a connection that is silent for long, often for a minute."""
WRITE_SECONDS: Final = 10.0


@dataclass(eq=False, slots=True)
class _Listener:
    """One client. `leave` is set when its stream is to end."""

    trusted: bool
    leave: asyncio.Event = field(default_factory=asyncio.Event)


class Stream:
    """Serves a bounded number of listeners. A slow one misses states, and a stuck one is let go; nothing queues up."""

    def __init__(self, facts: Facts, clock: Clock) -> None:
        self._facts = facts
        self._clock = clock
        self._listeners: list[_Listener] = []
        self._closing = asyncio.Event()
        self._made_at = float("-inf")
        self._made = b""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Sends until the client leaves or `close` is called. Raises `Problem` (503) where too many listen."""
        trusted = bool(request.get(TRUSTED))
        if self._closing.is_set() or not self._has_room(trusted=trusted):
            raise Problem(503, f"{MAX_CLIENTS} listen already", headers={"Retry-After": "30"})
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",  # nginx would hold events back
            }
        )
        listener = _Listener(trusted)
        self._listeners.append(listener)
        try:
            await response.prepare(request)
            await self._send(response, listener.leave)
        except (ConnectionError, TimeoutError):
            pass  # the client left, or takes nothing any more
        finally:
            self._listeners.remove(listener)
        return response

    def close(self) -> None:
        """Ends all streams."""
        self._closing.set()
        for listener in self._listeners:
            listener.leave.set()

    def _has_room(self, *, trusted: bool) -> bool:
        """Whether one more may listen. Who shows the token takes the place of the oldest that does not."""
        staying = [each for each in self._listeners if not each.leave.is_set()]
        if len(staying) < MAX_CLIENTS:
            return True
        oldest = next((each for each in staying if not each.trusted), None)
        if not trusted or oldest is None:
            return False
        oldest.leave.set()
        return True

    async def _send(self, response: web.StreamResponse, leave: asyncio.Event) -> None:
        sent, sent_at = b"", float("-inf")
        await self._write(response, b"retry: 3000\n\n")
        while not leave.is_set():
            state, now = self._state(), self._clock.monotonic()
            if state != sent:
                await self._write(response, b"event: status\ndata: " + state + b"\n\n")
                sent, sent_at = state, now
            elif now - sent_at >= HEARTBEAT_SECONDS:
                await self._write(response, b": still here\n\n")
                sent_at = now
            try:
                async with asyncio.timeout(TURN_SECONDS):
                    await leave.wait()
            except TimeoutError:
                continue

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        async with asyncio.timeout(WRITE_SECONDS):
            await response.write(data)

    def _state(self) -> bytes:
        """The state as JSON, made at most once a turn, however many listen."""
        now = self._clock.monotonic()
        if now - self._made_at >= TURN_SECONDS / 2:
            self._made_at, self._made = now, msgspec.json.encode(self._facts.status())
        return self._made
