"""A PostgreSQL database for the state: one connection in a thread, reopened when it is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from replicator.state.database import Database
from replicator.state.place import Claim, PostgresPlace
from replicator.state.postgres import locks, schema
from replicator.state.postgres.bulk import as_one
from replicator.state.postgres.connecting import (
    STATEMENT_SECONDS,
    connect,
    cut,
    end_session,
    explain,
    may_pass,
    session_of,
)
from replicator.state.postgres.dialect import DRIVER
from replicator.state.postgres.schema import Program
from replicator.state.sqlite import connect_in_memory

_T = TypeVar("_T")

RECONNECT_SECONDS: Final = 20.0
"""How long work waits for a database that went away."""
ANSWER_SECONDS: Final = STATEMENT_SECONDS + 15.0
"""After this long without an answer to a statement, the connection is given up; the server should have ended it before."""
_LONGEST_PAUSE: Final = 2.0
_AGAIN: Final = {"40001", "40P01"}
"""Serialization failure and deadlock: another transaction came first. Doing the work again succeeds."""
_TRIES: Final = 5


class _Lost(Exception):
    """The connection is gone, or could not be opened."""

    def __init__(self, error: DBAPIError, *, may_pass: bool = True) -> None:
        super().__init__()
        self.error = error
        self.may_pass = may_pass


class PostgresDatabase(Database):
    """See `Database`. Work that loses its connection is repeated on the next one, so it must be a single transaction.

    While the database is unreachable, work is retried until `RECONNECT_SECONDS` after the connection was lost. Later work tries
    to connect once, and fails if it cannot. Every connection takes `claim`: if another process holds it, all work raises
    `StateInUse`.
    """

    def __init__(
        self,
        place: PostgresPlace,
        *,
        claim: Claim | None = None,
        read_only: bool = False,
        program: Program | None = None,
    ) -> None:
        super().__init__(str(place))
        self._place = place
        self._claim = claim
        self._read_only = read_only
        self._program = program or Program()
        self._raw: psycopg.Connection[Any] | None = None
        self._session = 0
        self._is_first = True
        self._away_since: float | None = None
        self._asked_at: float | None = None
        self._engine = create_engine(
            f"{DRIVER}://",
            creator=self._open,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            use_native_hstore=False,
        )
        self._time_statements(self._engine)
        event.listen(self._engine, "do_executemany", _execute_as_one)

    async def run(self, work: Callable[[Connection], _T]) -> _T:
        """See `Database`."""
        pause = 0.05
        while True:
            if self._closed:
                raise self.is_closed()
            try:
                return await self._bounded(lambda: self._attempt(work))
            except _Lost as lost:
                now = asyncio.get_running_loop().time()
                if self._away_since is None:
                    self._away_since = now
                if not lost.may_pass or now - self._away_since >= RECONNECT_SECONDS:
                    raise lost.error from None
            pause = min(2 * pause, _LONGEST_PAUSE)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  not a secret

    def cause(self, error: BaseException | None) -> str:
        """See `Database`."""
        return explain(error)

    async def close(self) -> None:
        """See `Database`."""
        await super().close()
        self._engine.dispose()

    # --- in the thread ---

    def _connect(self) -> Connection:
        connection = self._engine.connect()
        try:
            raw = cast("psycopg.Connection[Any]", self._raw)  # `_open` was called
            if self._claim is not None:
                locks.take(raw, self._claim)
            schema.announce(raw, self._program)
            if self._is_first:
                if self._read_only:
                    if not schema.has_tables(raw, self._program):
                        connection.close()
                        return connect_in_memory()
                else:
                    schema.migrate(raw, self._program)
            self._is_first = False
        except psycopg.Error as error:
            connection.close()
            raise DBAPIError.instance("", None, error, psycopg.Error) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _open(self) -> psycopg.Connection[Any]:
        previous, self._raw = self._raw, None
        raw = connect(self._place, read_only=self._read_only)
        if previous is not None:
            previous.close()
            # After a network failure the server may not know yet that it has ended, and still hold our locks for it.
            end_session(raw, self._session)
        self._session = session_of(raw)
        self._raw = raw
        return raw

    def _attempt(self, work: Callable[[Connection], _T]) -> _T:
        for tried in range(1, _TRIES + 1):
            connection = self._connection
            if connection is None:
                connection = self._connection = self._connected_again()
            try:
                return work(connection)
            except DBAPIError as error:
                if self._raw is None or self._raw.closed:
                    self._connection = None
                    with suppress(Exception):
                        connection.close()
                    raise _Lost(error) from error
                if getattr(error.orig, "sqlstate", None) not in _AGAIN or tried == _TRIES:
                    raise
        raise AssertionError

    def _connected_again(self) -> Connection:
        try:
            connection = self._connect()
        except DBAPIError as error:
            raise _Lost(error, may_pass=may_pass(error.orig)) from error
        self._away_since = None
        return connection

    # --- bounds ---

    async def _bounded(self, work: Callable[[], _T]) -> _T:
        """Does work in the thread; cuts the connection if a statement is not answered within `ANSWER_SECONDS`."""
        future = asyncio.wrap_future(self._submit(work))
        while not future.done():
            await asyncio.wait({future}, timeout=ANSWER_SECONDS / 10)
            raw, asked_at = self._raw, self._asked_at
            if raw is not None and asked_at is not None and time.monotonic() - asked_at > ANSWER_SECONDS:
                with suppress(OSError, psycopg.Error):
                    cut(raw)
        return future.result()

    def _time_statements(self, engine: Engine) -> None:
        @event.listens_for(engine, "before_cursor_execute")
        def _asked(*_: object) -> None:
            self._asked_at = time.monotonic()

        @event.listens_for(engine, "after_cursor_execute")
        @event.listens_for(engine, "handle_error")
        def _answered(*_: object) -> None:
            self._asked_at = None


def _execute_as_one(cursor: Any, statement: str, rows: Any, _context: object) -> bool:
    """SQLAlchemy's `do_executemany`. False: it executes the statement itself."""
    one = as_one(statement, [{name: _bare(value) for name, value in row.items()} for row in rows])
    if one is None:
        return False
    # Planned anew each time: tables grow from nothing within seconds.
    cursor.execute(one[0].encode(), one[1], prepare=False)
    return True


def _bare(value: Any) -> Any:
    """Bytes without the driver's wrapper; two wrappers never compare equal."""
    return value.obj if type(value) is psycopg.Binary else value
