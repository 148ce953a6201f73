"""One SQLite file, one connection, one error family.

There is a single connection, in driver-level autocommit; transactions are opened and ended here. Whoever uses
it does so one at a time and to the end (`store` sees to that): a cancelled statement would cost SQLAlchemy the
connection.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiosqlite
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from replicator.errors import StateError
from replicator.state.migrations import is_current, migrate
from replicator.state.paths import make_file, make_folder

_DRIVER: Final = "sqlite+aiosqlite"
_JOIN_SECONDS: Final = 5.0
_MOVE_AWAY: Final = (
    "it may be moved away: the state is only an accelerator, and the next run starts a new one"
)


class Database:
    """An open database. Made by `open_database` and `open_for_reading`."""

    def __init__(self, path: Path, url: URL, busy_seconds: float) -> None:
        self.path = path
        self._thread: threading.Thread | None = None
        self._engine = create_async_engine(
            url,
            # `backup` reads the one connection from the other one's thread.
            connect_args={"timeout": busy_seconds, "factory": self._connect, "check_same_thread": False},
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
        )
        self._connection: AsyncConnection | None = None

    @property
    def connection(self) -> AsyncConnection:
        """The connection; for reading as it is, for writing inside `transaction`."""
        if self._connection is None:
            raise StateError(f"state {self.path}: is closed")
        return self._connection

    async def connect(self) -> None:
        """Opens the file. On failure nothing is left open."""
        with mapped(self.path, "open"):
            try:
                self._connection = await self._engine.connect()
            except BaseException:
                self._join()
                raise

    @asynccontextmanager
    async def transaction(self, *, writing: bool = True) -> AsyncIterator[AsyncConnection]:
        """A transaction: durable when the context is left, undone if it is left by an exception.

        One that only reads sees the file as of one moment.
        """
        connection = self.connection
        await connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
        try:
            yield connection
            await connection.exec_driver_sql("COMMIT")
        except BaseException:
            # SQLite has ended the transaction itself after some errors (disk full, I/O); the driver knows.
            await connection.rollback()
            raise

    async def close(self) -> None:
        """Closes the file and ends the driver's thread."""
        connection, self._connection = self._connection, None
        with mapped(self.path, "close"):
            try:
                if connection is not None:
                    await connection.close()
            finally:
                await self._engine.dispose()
                self._join()

    def _connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        self._thread = threading.current_thread()
        return sqlite3.Connection(*arguments, **options)

    def _join(self) -> None:
        """The driver tells its thread to end but does not wait for it, and it must not outlive the loop."""
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)
            self._thread = None


async def open_database(path: Path, busy_seconds: float) -> Database:
    """Opens the file for reading and writing, its schema brought up to date.

    Where it is missing it is made, like its folder, so that nobody but its owner reads it.

    Raises:
        StateError: see `store.open_state`. The file is then as it was.
    """
    make_folder(path)
    make_file(path)
    database = Database(path, _url(path, "rwc"), busy_seconds)
    await database.connect()
    try:
        with mapped(path, "open"):
            if not await _is_current(database):
                async with database.transaction() as connection:
                    await migrate(connection)
            await _write_ahead(database.connection)
    except BaseException:
        await database.close()
        raise
    return database


async def _is_current(database: Database) -> bool:
    async with database.transaction(writing=False) as connection:
        return await is_current(connection)


async def _write_ahead(connection: AsyncConnection) -> None:
    """Lets `plan` and `status` read while `sync` writes."""
    try:
        await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    except DBAPIError as error:
        # SQLite does not wait here when two processes make one new file at once. The mode is the file's own, so the
        # other one's switch is ours too; and if it was not that, the old journal is right as well until the next open.
        if not _is_busy(error.orig):
            raise
    # NORMAL: a commit survives the death of the process. A power cut may cost the last seconds but no consistency,
    # and a hint needs no more.
    await connection.exec_driver_sql("PRAGMA synchronous = NORMAL")


async def open_for_reading(path: Path, busy_seconds: float) -> Database:
    """Opens the file so that nothing can be written; an empty database in memory where there is no file.

    A file with an older schema is copied into memory and migrated there.

    Raises:
        StateError: see `store.open_state`.
    """
    url = _url_for_reading(path)
    if url is None:
        return await _open_in_memory(path)
    database = Database(path, url, busy_seconds)
    await database.connect()
    try:
        with mapped(path, "open"):
            await database.connection.exec_driver_sql("PRAGMA query_only = ON")
            if await _is_current(database):
                return database
            copy = await _open_in_memory(path, database)
    except BaseException:
        await database.close()
        raise
    await database.close()
    return copy


def _url(path: Path, mode: str) -> URL:
    return URL.create(_DRIVER, database=f"file:{quote(str(path))}", query={"mode": mode, "uri": "true"})


def _url_for_reading(path: Path) -> URL | None:
    with mapped(path, "open"):
        try:
            path.stat()
        except FileNotFoundError:
            return None
        # A read-only connection to a file in WAL mode makes -wal and -shm beside it and cannot remove them. So where
        # there are none, the last to close has to be allowed to; query_only then keeps statements from writing.
        mode = "ro" if path.with_name(f"{path.name}-wal").exists() else "rw"
    return _url(path, mode)


async def _open_in_memory(path: Path, origin: Database | None = None) -> Database:
    database = Database(path, URL.create(_DRIVER), 0.0)
    await database.connect()
    try:
        with mapped(path, "open"):
            if origin is not None:
                await (await _driver(origin)).backup(await _driver(database))
            async with database.transaction() as connection:
                await migrate(connection)
    except BaseException:
        await database.close()
        raise
    return database


async def _driver(database: Database) -> aiosqlite.Connection:
    driver = (await database.connection.get_raw_connection()).driver_connection
    if not isinstance(driver, aiosqlite.Connection):
        raise TypeError(f"{driver!r} is not aiosqlite's")
    return driver


@contextmanager
def mapped(path: Path, operation: str) -> Iterator[None]:
    """Whatever goes wrong with the file inside is a `StateError` that says what to do about it."""
    try:
        yield
    except StateError as error:
        if str(error).startswith("state "):
            raise
        raise StateError(f"state {path}: {error}") from error
    except DBAPIError as error:
        raise StateError(f"state {path}: {operation}: {_cause(error.orig)}") from error
    except (sqlite3.Error, OSError) as error:
        raise StateError(f"state {path}: {operation}: {_cause(error)}") from error
    except (SQLAlchemyError, ValueError) as error:  # a value that is not what we ever write
        raise StateError(f"state {path}: {operation}: unusable content ({error}); {_MOVE_AWAY}") from error


def _is_busy(error: BaseException | None) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _cause(error: BaseException | None) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
        return f"the file is no usable database ({error}); {_MOVE_AWAY}"
    if _is_busy(error):
        return "another process is writing to it and did not end in time"
    return str(error)
