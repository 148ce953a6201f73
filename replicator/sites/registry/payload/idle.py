"""Connections that wait for their next request."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from time import monotonic
from typing import Final

from replicator.movers.connection import Connection

_MAX_IDLE: Final = 64
"""Of one site; more are closed."""


class IdleConnections:
    """Open connections by where they lead, the latest used first; each is closed after `seconds` of waiting."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: dict[Hashable, list[tuple[Connection, float]]] = {}
        self._count = 0
        self._sweep: asyncio.TimerHandle | None = None

    def take(self, key: Hashable) -> Connection | None:
        """A connection on which the other side has neither closed nor said anything; None if all are closed or in use."""
        waiting = self._waiting.get(key, [])
        while waiting:
            connection, _ = waiting.pop()
            self._count -= 1
            try:
                if not connection.has_spoken() and connection.is_good:
                    return connection
            except OSError:
                pass
            connection.close()
        return None

    def give(self, key: Hashable, connection: Connection) -> None:
        """Keeps a connection; it belongs to nobody else."""
        if self._count >= _MAX_IDLE:
            connection.close()
            return
        self._waiting.setdefault(key, []).append((connection, monotonic()))
        self._count += 1
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._seconds, self._close_old)

    def close(self) -> None:
        """Closes all."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for waiting in self._waiting.values():
            for connection, _ in waiting:
                connection.close()
        self._waiting.clear()
        self._count = 0

    def _close_old(self) -> None:
        self._sweep = None
        before = monotonic() - self._seconds
        for key, waiting in list(self._waiting.items()):
            kept = []
            for connection, since in waiting:
                if since <= before:
                    connection.close()
                    self._count -= 1
                else:
                    kept.append((connection, since))
            if kept:
                self._waiting[key] = kept
            else:
                del self._waiting[key]
        if self._waiting:
            oldest = min(since for waiting in self._waiting.values() for _, since in waiting)
            wait = max(0.0, oldest + self._seconds - monotonic())
            self._sweep = asyncio.get_running_loop().call_later(wait, self._close_old)
