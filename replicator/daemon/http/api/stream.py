"""`/api/v1/events`: the agent's status, sent again whenever it changes (server-sent events)."""

from __future__ import annotations

import asyncio
from collections import Counter
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
"""Proxies close a connection that is silent for long, often for a minute."""
WRITE_SECONDS: Final = 10.0


@dataclass(eq=False, slots=True)
class _Listener:
    """One client. `leave` is set when its stream must end."""

    peer: str
    trusted: bool
    leave: asyncio.Event = field(default_factory=asyncio.Event)


class Stream:
    """Serves a bounded number of listeners. A slow one misses states, a stuck one is disconnected; nothing is queued."""

    def __init__(self, facts: Facts, clock: Clock) -> None:
        self._facts = facts
        self._clock = clock
        self._listeners: list[_Listener] = []
        self._closing = asyncio.Event()
        self._made_at = float("-inf")
        self._made = b""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Sends until the client leaves or `close` is called. Raises `Problem` (503) if all places are taken."""
        trusted = bool(request.get(TRUSTED))
        listener = _Listener(request.remote or "", trusted)
        if self._closing.is_set() or not self._has_room(listener):
            raise Problem(
                503,
                f"{MAX_CLIENTS} clients are already connected to the stream",
                headers={"Retry-After": "30"},
            )
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",  # nginx would hold events back
            }
        )
        self._listeners.append(listener)
        try:
            await response.prepare(request)
            await self._send(response, listener.leave)
        except (ConnectionError, TimeoutError):
            pass  # the client left, or no longer reads
        finally:
            self._listeners.remove(listener)
        return response

    def close(self) -> None:
        """Ends all streams."""
        self._closing.set()
        for listener in self._listeners:
            listener.leave.set()

    def _has_room(self, new: _Listener) -> bool:
        """Whether one more may listen; if all places are taken, whoever has the weakest claim to one leaves.

        With the token: the oldest listener without it. Else: the oldest without it of the peer that has most places, if
        it has at least two more than the new one's peer.
        """
        staying = [each for each in self._listeners if not each.leave.is_set()]
        if len(staying) < MAX_CLIENTS:
            return True
        places = Counter(each.peer for each in staying)
        strangers = [each for each in staying if not each.trusted]
        if not new.trusted:
            strangers = [each for each in strangers if places[each.peer] > places[new.peer] + 1]
        if not strangers:
            return False
        max(strangers, key=lambda each: places[each.peer]).leave.set()  # of equals the first, so the oldest
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
                await self._write(response, b": heartbeat\n\n")
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
        """The state as JSON, encoded at most once per turn for all listeners."""
        now = self._clock.monotonic()
        if now - self._made_at >= TURN_SECONDS / 2:
            self._made_at, self._made = now, msgspec.json.encode(self._facts.status())
        return self._made
