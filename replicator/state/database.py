"""One database, one connection in a thread of its own, one error family.

SQLAlchemy's synchronous Core, not its asyncio package: that one imports the whole ORM, which a one-shot command would
wait for, and goes to its thread and back for each statement instead of once for a piece of work.
"""

from __future__ import annotations

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from replicator.errors import StateError
from replicator.state.dialect import POSTGRESQL

_T = TypeVar("_T")

SYNCHRONOUS: Final = "PRAGMA synchronous = NORMAL"
MOVE_AWAY: Final = "move the file away: the state is only an accelerator, and the next run starts a new one"
_START_ANEW: Final = "drop its tables: the state is only an accelerator, and the next run starts a new one"


class Database(ABC):
    """A database, used after `opened`. `name` is what messages call it, without secrets.

    Everything that touches the connection runs in its thread, one piece of work after the other.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._connection: Connection | None = None
        self._closed = False

    @abstractmethod
    def _connect(self) -> Connection:
        """A connection that is ready for work. Called in the thread."""

    @abstractmethod
    def cause(self, error: BaseException | None) -> str:
        """What an error of the driver means, and what to do about it."""

    async def opened(self) -> Database:
        """Opens it, and returns it. On failure nothing is left open. Raises `StateError`."""
        opening = asyncio.wrap_future(self._submit(self._connect))
        try:
            with self.mapped("open"):
                self._connection = await asyncio.shield(opening)
        except BaseException:
            # Half an opening cannot be taken back; a whole one can.
            with suppress(Exception):
                self._connection = await opening
                await self.close()
            self._thread.shutdown()
            raise
        return self

    async def run(self, work: Callable[[Connection], _T]) -> _T:
        """Does the work in the thread, after all that was given before.

        It is done to the end, also where the caller is cancelled meanwhile.
        """
        connection = self._connection
        if connection is None:
            raise self.is_closed()
        return await asyncio.shield(asyncio.wrap_future(self._submit(lambda: work(connection))))

    async def close(self) -> None:
        """Closes the connection and ends the thread."""
        self._closed = True
        connection, self._connection = self._connection, None
        with self.mapped("close"):
            try:
                if connection is not None:
                    await asyncio.shield(asyncio.wrap_future(self._submit(connection.close)))
            finally:
                self._thread.shutdown()  # at once: nothing is left for it to do

    @contextmanager
    def mapped(self, operation: str) -> Iterator[None]:
        """Whatever goes wrong with the database inside is a `StateError` that says what to do about it."""
        try:
            yield
        except StateError as error:
            if str(error).startswith("state "):
                raise
            # Of its own kind: whether the state is in use makes a difference.
            error.args = (f"state {self.name}: {error}",)
            raise
        except DBAPIError as error:
            raise StateError(f"state {self.name}: {operation}: {self.cause(error.orig)}") from error
        except (sqlite3.Error, OSError) as error:
            raise StateError(f"state {self.name}: {operation}: {self.cause(error)}") from error
        except (SQLAlchemyError, ValueError) as error:  # a value that is not what we ever write
            advice = _START_ANEW if self.name.startswith(POSTGRESQL) else MOVE_AWAY
            raise StateError(
                f"state {self.name}: {operation}: unusable content ({error}); {advice}"
            ) from error

    def is_closed(self) -> StateError:
        """What is raised where it is used after `close`."""
        return StateError(f"state {self.name}: is closed")

    def _submit(self, work: Callable[[], _T]) -> Future[_T]:
        return self._thread.submit(work)


@contextmanager
def transaction(connection: Connection, *, writing: bool = True, synced: bool = False) -> Iterator[None]:
    """A transaction: durable when the context is left, undone if it is left by an exception.

    Durable means that it survives the death of the process; with `synced`, that of the machine as well, as every
    transaction does in PostgreSQL. One that only reads sees the database as of one moment.
    """
    if connection.dialect.name == POSTGRESQL:
        with _transaction(
            connection, "BEGIN" if writing else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        ):
            yield
        return
    if synced:
        connection.exec_driver_sql("PRAGMA synchronous = FULL")
    try:
        # SQLite must know at once that it will write, or it may not be able to.
        with _transaction(connection, "BEGIN IMMEDIATE" if writing else "BEGIN"):
            yield
    finally:
        if synced:
            connection.exec_driver_sql(SYNCHRONOUS)


@contextmanager
def _transaction(connection: Connection, begin: str) -> Iterator[None]:
    connection.exec_driver_sql(begin)
    try:
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        # The database has ended the transaction itself after some errors (disk full, I/O); the driver knows.
        connection.rollback()
        raise
