"""The one connection whose advisory locks are what an agent owns. It dies with the agent, and the locks with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import psycopg

from replicator.errors import StateError
from replicator.fleet.connections import DATABASE_ERRORS, Connection, Dsn, connect
from replicator.fleet.times import Times
from replicator.flow.ending import end

_log = logging.getLogger(__name__)

BACK_OFF: Final = (0.2, 5.0)
"""Seconds between two attempts to reach the database: the first, and the longest."""

_HOLDER: Final = """
SELECT pid, coalesce((SELECT heartbeat < now() - make_interval(secs => %s) FROM fleet_agents WHERE name = %s), false)
FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (classid::bigint << 32 | objid::bigint) = hashtextextended(%s, 0)
"""


class Session:
    """See the module. A lock is named by a text.

    Args:
        dsn: the database.
        agent: the agent's name, itself a lock: two agents cannot have one name.
        times: intervals.
        on_back: awaited when the connection is there again after it was lost: what was held is to be taken anew.
    """

    generation: int
    """Which connection it is: another number after each loss."""

    def __init__(self, dsn: Dsn, agent: str, times: Times, *, on_back: Callable[[], Awaitable[None]]) -> None:
        self._dsn = dsn
        self._agent = agent
        self._times = times
        self._on_back = on_back
        self._connection: Connection | None = None
        self._pid = 0
        self.generation = 0
        self._turn = asyncio.Lock()
        self._back = asyncio.Event()
        self._mending: asyncio.Task[None] | None = None
        self._ping: asyncio.Future[int] | None = None
        self._closed = False

    @property
    def is_up(self) -> bool:
        """Whether the connection stands, as far as is known."""
        return self._back.is_set()

    async def open(self) -> None:
        """Connects. Raises StateError: the database is away, or another agent lives that has this name."""
        try:
            await self._connect()
        except DATABASE_ERRORS as error:
            raise StateError(f"fleet: connect: {error}") from error
        self._back.set()

    async def aclose(self) -> None:
        """Closes; everything held is free."""
        self._closed = True
        if self._mending is not None:
            await end(self._mending)
        if self._connection is not None:
            await self._connection.close()

    async def fetch(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Executes a statement on this connection, within `Times.answer`. Raises StateError; then it is being mended."""
        connection = self._connection
        if connection is None:
            raise StateError("fleet: the database is away")
        try:
            async with asyncio.timeout(self._times.answer), self._turn:
                cursor = await connection.execute(query.encode(), arguments)
                return [] if cursor.description is None else await cursor.fetchall()
        except DATABASE_ERRORS as error:
            if not isinstance(error, psycopg.Error) or connection.broken or connection.closed:
                self._lost(connection)
            raise StateError(f"fleet: {str(error).strip() or type(error).__name__}") from error

    async def alive(self) -> int:
        """Returns when the database has answered a question that was asked after this call: by which connection.

        Those who call while a question is on its way share the next one. Raises StateError.
        """
        if self._ping is not None:
            with contextlib.suppress(StateError):
                await asyncio.shield(self._ping)
        if self._ping is None:
            self._ping = asyncio.get_running_loop().create_task(self._ask())
        return await asyncio.shield(self._ping)

    async def _ask(self) -> int:
        generation = self.generation
        try:
            await self.fetch("SELECT 1")
        finally:
            self._ping = None
        return generation

    async def wait(self) -> None:
        """Returns when the connection stands and what was held is taken anew. Raises StateError after `Times.patience`."""
        try:
            async with asyncio.timeout(self._times.patience):
                await self._back.wait()
        except TimeoutError:
            raise StateError("fleet: the database is away") from None

    async def try_lock(self, name: str) -> bool:
        """Takes an advisory lock if it is free. Raises StateError."""
        return bool((await self.fetch("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", name))[0][0])

    async def unlock(self, name: str) -> None:
        """Frees it; a lock that is gone with the connection is free already."""
        with contextlib.suppress(StateError):
            await self.fetch("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", name)

    @contextlib.asynccontextmanager
    async def holding(self, name: str) -> AsyncIterator[bool]:
        """Holds a lock, if it is free, for as long as the context lasts; False: it is not, or the database is away."""
        try:
            held = await self.try_lock(name)
        except StateError:
            held = False
        try:
            yield held
        finally:
            if held:
                await self.unlock(name)

    # --- inside ---

    async def _connect(self) -> None:
        connection = await connect(self._dsn, f"replicator {self._agent}")
        try:
            await self._be_the_only_one(connection)
        except BaseException:
            await connection.close()
            raise
        self._pid = connection.info.backend_pid
        self.generation += 1
        self._connection = connection

    async def _be_the_only_one(self, connection: Connection) -> None:
        """Takes the agent's name. Its own earlier session, or that of an agent of this name that is silent, is ended."""
        name = presence(self._agent)
        for _ in range(2):
            cursor = await connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (name,))
            row = await cursor.fetchone()
            if row is not None and row[0]:
                return
            holders = await connection.execute(_HOLDER, (self._times.dead, self._agent, name))
            for pid, is_silent in await holders.fetchall():
                if is_silent or pid == self._pid:
                    await connection.execute("SELECT pg_terminate_backend(%s, 2000)", (pid,))
        raise StateError(
            f"fleet: another agent that lives is named {self._agent!r}; give each agent its own agent.name"
        )

    def _lost(self, connection: Connection) -> None:
        if self._connection is not connection or self._closed:
            return
        self._connection = None
        self._back.clear()
        _log.warning("the database is away, or the session with it was ended; connecting again")
        self._mending = asyncio.get_running_loop().create_task(self._mend(connection))

    async def _mend(self, broken: Connection) -> None:
        with contextlib.suppress(*DATABASE_ERRORS):
            await broken.close()
        wait, longest = BACK_OFF
        while True:
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311  # spreads agents, hides nothing
            try:
                await self._connect()
            except (*DATABASE_ERRORS, StateError) as error:
                _log.info("cannot reach the database: %s", str(error).strip())
                wait = min(longest, wait * 2)
            else:
                break
        connection = self._connection
        await self._on_back()
        if self._connection is connection:  # else it was lost meanwhile, and is being mended again
            self._back.set()
            _log.info("connected to the database again")


def presence(agent: str) -> str:
    """The lock that an agent holds while it lives."""
    return f"agent {agent}"
