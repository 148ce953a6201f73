"""One SQLite file, one connection in a thread of its own, one error family.

SQLAlchemy's synchronous Core, not its asyncio package: that one imports the whole ORM, which a one-shot command would
wait for, and goes to its thread and back for each statement instead of once for a piece of work. The connection is in
driver-level autocommit; transactions are opened and ended here.
"""

from __future__ import annotations

import asyncio
import logging
import os
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
from replicator.state.locks import hold_replacement
from replicator.state.paths import PERMIT, make_file, make_folder
from replicator.state.schema import Found, create, inspect, says_other_schema

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

_DRIVER: Final = "sqlite+pysqlite"
_SYNCHRONOUS: Final = "PRAGMA synchronous = NORMAL"
_MOVE_AWAY: Final = "move the file away: the state is only an accelerator, and the next run starts a new one"


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
def transaction(connection: Connection, *, writing: bool = True, synced: bool = False) -> Iterator[None]:
    """A transaction: durable when the context is left, undone if it is left by an exception.

    Durable means that it survives the death of the process; with `synced`, that of the machine as well. One that only
    reads sees the file as of one moment.
    """
    if synced:
        connection.exec_driver_sql("PRAGMA synchronous = FULL")
    try:
        with _transaction(connection, writing=writing):
            yield
    finally:
        if synced:
            connection.exec_driver_sql(_SYNCHRONOUS)


@contextmanager
def _transaction(connection: Connection, *, writing: bool) -> Iterator[None]:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
    try:
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        # SQLite has ended the transaction itself after some errors (disk full, I/O); the driver knows.
        connection.rollback()
        raise


async def open_database(path: Path, busy_seconds: float) -> Database:
    """Opens the file for reading and writing.

    Where it does not exist it is created, like its folder, so that nobody but its owner reads it. One of another
    schema is renamed to `*.old`, and a new one is created.

    Raises:
        StateError: see `store.open_state`. The file is then as it was.
    """
    make_folder(path)

    def connect() -> Connection:
        connection = _open_current(path, busy_seconds)
        if connection is not None:
            return connection
        # One process renames it; those that wait find the new file.
        with hold_replacement(path):
            connection = _open_current(path, busy_seconds)
            if connection is None:
                _log.warning("%s", _set_aside(path))
                connection = _open_current(path, busy_seconds)
        if connection is None:
            raise StateError("replaced by another version while it was being opened; start one version only")
        return connection

    return await Database.open(path, connect)


def _open_current(path: Path, busy_seconds: float) -> Connection | None:
    """The file, with today's schema, which an empty or a new one gets; None where it has another schema."""
    if says_other_schema(path):
        return None
    make_file(path)
    _check_writable(path)
    connection = _connect(_url(path, mode="rwc"), busy_seconds)
    with _closed_on_failure(connection):
        found = _inspect(connection)
        if found is Found.OTHER:
            connection.close()
            return None
        if found is Found.EMPTY:
            with transaction(connection):
                if inspect(connection) is Found.EMPTY:  # not made by another process meanwhile
                    create(connection)
        _write_ahead(connection)
    return connection


def _set_aside(path: Path) -> str:
    """Renames the file to `*.old`, and what SQLite may have left beside it. Returns what to tell."""
    old = path.with_name(f"{path.name}.old")
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(old.with_name(old.name + suffix))
    return (
        f"state {path}: written by another version of replicator; renamed to {old.name} and replaced by an empty one"
        " (it is only an accelerator: the next runs make more requests)"
    )


async def open_for_reading(path: Path, busy_seconds: float) -> Database:
    """Opens the file so that nothing can be written; an empty database in memory if it does not exist with our schema.

    Raises:
        StateError: see `store.open_state`.
    """

    def connect() -> Connection:
        url = _url_for_reading(path)
        if url is None:
            return _connect_in_memory()
        found = Found.OTHER
        if not says_other_schema(path):
            connection = _connect(url, busy_seconds)
            with _closed_on_failure(connection):
                connection.exec_driver_sql("PRAGMA query_only = ON")
                found = _inspect(connection)
            if found is Found.CURRENT:
                return connection
            connection.close()
        if found is Found.OTHER:
            _log.warning(
                "state %s: written by another version of replicator; read as empty, replaced by the next sync or run",
                path,
            )
        return _connect_in_memory()

    return await Database.open(path, connect)


def _connect(url: URL, busy_seconds: float) -> Connection:
    engine = create_engine(
        url, connect_args={"timeout": busy_seconds}, poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    return engine.connect()


def _connect_in_memory() -> Connection:
    connection = _connect(URL.create(_DRIVER), 0.0)
    with _closed_on_failure(connection), transaction(connection):
        create(connection)
    return connection


@contextmanager
def _closed_on_failure(connection: Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _inspect(connection: Connection) -> Found:
    with transaction(connection, writing=False):
        return inspect(connection)


def _check_writable(path: Path) -> None:
    """Fails now where a write would fail later, in the midst of a run. SQLite opens what it may not write for reading."""
    for each in (path, path.parent):  # SQLite creates files beside it
        if each.exists() and not os.access(each, os.W_OK, effective_ids=True):
            raise StateError(f"open: {each} is read-only; {PERMIT}")


def _write_ahead(connection: Connection) -> None:
    """Lets `plan` and `status` read while `sync` writes."""
    try:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    except DBAPIError as error:
        # SQLite does not wait here when two processes make one new file at once. The mode is the file's own, so the
        # other one's switch is ours too; and if it was not that, the old journal is right as well until the next open.
        if not _is_busy(error.orig):
            raise
    # A commit survives the death of the process. A power cut may cost the last seconds but no consistency, and a hint
    # needs no more.
    connection.exec_driver_sql(_SYNCHRONOUS)


def _url(path: Path, **query: str) -> URL:
    return URL.create(_DRIVER, database=f"file:{quote(str(path))}", query={**query, "uri": "true"})


def _url_for_reading(path: Path) -> URL | None:
    try:
        path.stat()
    except FileNotFoundError:
        return None
    # A read-only connection to a file in WAL mode creates -wal and -shm beside it and cannot remove them. So where
    # there are none, the last to close has to be allowed to; query_only then keeps statements from writing.
    if path.with_name(f"{path.name}-wal").exists():
        return _url(path, mode="ro")
    if not os.access(path.parent, os.W_OK, effective_ids=True):
        return _url(path, mode="ro", immutable="1")  # nor could they be created; and nobody is writing
    return _url(path, mode="rw")


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
        return f"not a usable database ({error}); {_MOVE_AWAY}"
    if _is_busy(error):
        return "another process is writing to it and did not end in time"
    if code == sqlite3.SQLITE_READONLY:
        return f"the file or its folder is read-only ({error}); {PERMIT}"
    if code == sqlite3.SQLITE_CANTOPEN:
        return f"{error}; {PERMIT}"
    return str(error)
