"""Connections to the fleet's database. Few: a hundred agents share one server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import psycopg
import psycopg_pool
from procrastinate import PsycopgConnector, exceptions

from replicator.errors import ReplicatorError, StateError
from replicator.state.postgres.connecting import CONNECT_SECONDS, KEEPALIVES, SERVER_KEEPALIVES, explain

POOL_SIZE: Final = (1, 3)
"""Connections for the queue: at least, at most. The session that owns work and the listener have one each beside them."""
IDLE_SECONDS: Final = 5.0
"""After this the server ends the transaction of an agent that froze in it, so that others need not wait for its locks."""
WAIT_SECONDS: Final = 10.0
"""For a free connection of the pool."""

_BOUNDS: Final[Mapping[str, Any]] = {**KEEPALIVES, "connect_timeout": CONNECT_SECONDS}
_SERVER_SIDE: Final = "SELECT " + ", ".join(
    f"set_config('{name}', '{value}', false)" for name, value in SERVER_KEEPALIVES.items()
)

Dsn = str | Callable[[], str]
"""What libpq needs. A function is asked for each connection anew: the password in it may change meanwhile."""
Connection = psycopg.AsyncConnection[tuple[Any, ...]]

DATABASE_ERRORS: Final = (
    psycopg.Error,
    psycopg_pool.PoolTimeout,
    exceptions.ConnectorException,
    exceptions.AlreadyEnqueued,
    OSError,
    TimeoutError,
)
"""What the database, its driver and the queue raise when the database is away, or another agent was first for long."""


class CancellablePool(psycopg_pool.AsyncConnectionPool[Connection]):
    """A pool in which a cancellation is never lost.

    Until Python 3.12 `asyncio.wait_for`, with which the pool waits, drops one that comes together with the connection
    (https://github.com/python/cpython/issues/86296). The task would go on, and an agent that stops would wait for it.
    """

    async def getconn(self, timeout: float | None = None) -> Connection:  # noqa: ASYNC109 - as the pool has it
        """See `AsyncConnectionPool.getconn`."""
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        connection = await super().getconn(timeout)
        if task is not None and task.cancelling() > before:
            await self.putconn(connection)
            raise asyncio.CancelledError
        return connection


def connector(dsn: Dsn) -> PsycopgConnector:
    """The queue's connections, not opened yet."""
    low, high = POOL_SIZE
    return PsycopgConnector(
        pool_factory=CancellablePool,
        conninfo=lambda: _read(dsn),
        min_size=low,
        max_size=high,
        timeout=WAIT_SECONDS,
        reconnect_timeout=0.0,  # tries for as long as the agent lives
        configure=_end_if_frozen,
        kwargs={**_BOUNDS, "application_name": "replicator queue"},
    )


async def _end_if_frozen(connection: Connection) -> None:
    setting = f"{_SERVER_SIDE}, set_config('idle_in_transaction_session_timeout', %s, false)"
    await connection.execute(setting.encode(), (f"{IDLE_SECONDS * 1000:.0f}ms",))
    await connection.commit()


def _read(dsn: Dsn) -> str:
    """Raises OSError, as a database that cannot be reached does: the password cannot be read."""
    try:
        return dsn if isinstance(dsn, str) else dsn()
    except ReplicatorError as error:
        raise OSError(str(error)) from error


async def connect(dsn: Dsn, name: str) -> Connection:
    """A connection of its own, each statement a transaction; `name` shows in `pg_stat_activity`."""
    connection = await psycopg.AsyncConnection.connect(
        _read(dsn), autocommit=True, application_name=name, **_BOUNDS
    )
    try:
        await connection.execute(_SERVER_SIDE.encode())
    except BaseException:
        await connection.close()
        raise
    return connection


@contextmanager
def as_state_error(operation: str) -> Iterator[None]:
    """Raises what the database raises as StateError."""
    try:
        yield
    except DATABASE_ERRORS as error:
        raise StateError(f"fleet: {operation}: {explain(error) or type(error).__name__}") from error
