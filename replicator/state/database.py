"""One SQLite file, one connection in a thread of its own, one error family.

SQLAlchemy's synchronous Core, not its asyncio package: that one imports the whole ORM, which a one-shot command would
wait for, and goes to its thread and back for each statement instead of once for a piece of work. The connection is in
driver-level autocommit; transactions are opened and ended here.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from replicator.errors import StateError
from replicator.state.migrations import is_current, migrate
from replicator.state.paths import make_file, make_folder

_T = TypeVar("_T")

_DRIVER: Final = "sqlite+pysqlite"
_MOVE_AWAY: Final = (
    "it may be moved away: the state is only an accelerator, and the next run starts a new one"
)


class Database:
    """An open database. Made by `open_database` and `open_for_reading`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._connection: Connection | None = None

    @classmethod
    async def open(cls, path: Path, connect: Callable[[], Connection]) -> Database:
        """The database that `connect`, called in the thread, gives. On failure nothing is left open."""
        database = cls(path)
        opening = asyncio.get_running_loop().run_in_executor(database._thread, connect)
        try:
            with mapped(path, "open"):
                database._connection = await asyncio.shield(opening)
        except BaseException:
            # Half an opening cannot be taken back; a whole one can.
            with suppress(Exception):
                database._connection = await opening
                await database.close()
            database._thread.shutdown()
            raise
        return database

    async def run(self, work: Callable[[Connection], _T]) -> _T:
        """Does the work in the thread, after all that was given before.

        It is done to the end, also where the caller is cancelled meanwhile.
        """
        connection = self._connection
        if connection is None:
            raise StateError(f"state {self.path}: is closed")
        return await self._in_thread(lambda: work(connection))

    async def close(self) -> None:
        """Closes the file and ends the thread."""
        connection, self._connection = self._connection, None
        with mapped(self.path, "close"):
            try:
                if connection is not None:
                    await self._in_thread(connection.close)
            finally:
                self._thread.shutdown()  # at once: nothing is left for it to do

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))


@contextmanager
def transaction(connection: Connection, *, writing: bool = True) -> Iterator[None]:
    """A transaction: durable when the context is left, undone if it is left by an exception.

    One that only reads sees the file as of one moment.
    """
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
    try:
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        # SQLite has ended the transaction itself after some errors (disk full, I/O); the driver knows.
        connection.rollback()
        raise


async def open_database(path: Path, busy_seconds: float) -> Database:
    """Opens the file for reading and writing, its schema brought up to date.

    Where it is missing it is made, like its folder, so that nobody but its owner reads it.

    Raises:
        StateError: see `store.open_state`. The file is then as it was.
    """
    make_folder(path)
    make_file(path)

    def connect() -> Connection:
        connection = _connect(_url(path, "rwc"), busy_seconds)
        with _closed_on_failure(connection):
            if not _is_current(connection):
                with transaction(connection):
                    migrate(connection)
            _write_ahead(connection)
        return connection

    return await Database.open(path, connect)


async def open_for_reading(path: Path, busy_seconds: float) -> Database:
    """Opens the file so that nothing can be written; an empty database in memory where there is no file.

    A file with an older schema is copied into memory and migrated there.

    Raises:
        StateError: see `store.open_state`.
    """

    def connect() -> Connection:
        url = _url_for_reading(path)
        if url is None:
            return _connect_in_memory()
        connection = _connect(url, busy_seconds)
        with _closed_on_failure(connection):
            connection.exec_driver_sql("PRAGMA query_only = ON")
            if _is_current(connection):
                return connection
            copy = _connect_in_memory(connection)
        connection.close()
        return copy

    return await Database.open(path, connect)


def _connect(url: URL, busy_seconds: float) -> Connection:
    engine = create_engine(
        url, connect_args={"timeout": busy_seconds}, poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    return engine.connect()


def _connect_in_memory(origin: Connection | None = None) -> Connection:
    connection = _connect(URL.create(_DRIVER), 0.0)
    with _closed_on_failure(connection):
        if origin is not None:
            _driver(origin).backup(_driver(connection))
        with transaction(connection):
            migrate(connection)
    return connection


@contextmanager
def _closed_on_failure(connection: Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _driver(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        raise TypeError(f"{driver!r} is not sqlite3's")
    return driver


def _is_current(connection: Connection) -> bool:
    with transaction(connection, writing=False):
        return is_current(connection)


def _write_ahead(connection: Connection) -> None:
    """Lets `plan` and `status` read while `sync` writes."""
    try:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    except DBAPIError as error:
        # SQLite does not wait here when two processes make one new file at once. The mode is the file's own, so the
        # other one's switch is ours too; and if it was not that, the old journal is right as well until the next open.
        if not _is_busy(error.orig):
            raise
    # NORMAL: a commit survives the death of the process. A power cut may cost the last seconds but no consistency,
    # and a hint needs no more.
    connection.exec_driver_sql("PRAGMA synchronous = NORMAL")


def _url(path: Path, mode: str) -> URL:
    return URL.create(_DRIVER, database=f"file:{quote(str(path))}", query={"mode": mode, "uri": "true"})


def _url_for_reading(path: Path) -> URL | None:
    try:
        path.stat()
    except FileNotFoundError:
        return None
    # A read-only connection to a file in WAL mode makes -wal and -shm beside it and cannot remove them. So where
    # there are none, the last to close has to be allowed to; query_only then keeps statements from writing.
    mode = "ro" if path.with_name(f"{path.name}-wal").exists() else "rw"
    return _url(path, mode)


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
