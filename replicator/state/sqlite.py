"""A state file of SQLite: opened, created, replaced, and what its errors mean.

The connection is in driver-level autocommit; transactions are opened and ended by `database.transaction`.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from replicator.errors import StateError
from replicator.state.database import MOVE_AWAY, SYNCHRONOUS, Database, transaction
from replicator.state.locks import hold_replacement
from replicator.state.paths import PERMIT, make_file, make_folder
from replicator.state.schema import Found, create, inspect, says_other_schema

_log = logging.getLogger(__name__)

_DRIVER: Final = "sqlite+pysqlite"


class SqliteDatabase(Database):
    """An open file. Made by `open_database` and `open_for_reading`."""

    def __init__(self, path: Path, connect: Callable[[], Connection]) -> None:
        super().__init__(str(path))
        self._connect_to_it = connect

    def _connect(self) -> Connection:
        return self._connect_to_it()

    def cause(self, error: BaseException | None) -> str:
        """See `Database`."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
            return f"not a usable database ({error}); {MOVE_AWAY}"
        if _is_busy(error):
            return "another process is writing to it and did not end in time"
        if code == sqlite3.SQLITE_READONLY:
            return f"the file or its folder is read-only ({error}); {PERMIT}"
        if code == sqlite3.SQLITE_CANTOPEN:
            return f"{error}; {PERMIT}"
        return str(error)


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

    return await SqliteDatabase(path, connect).opened()


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
            return connect_in_memory()
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
        return connect_in_memory()

    return await SqliteDatabase(path, connect).opened()


def connect_to_move(path: Path, busy_seconds: float) -> Connection:
    """The file, to read what is in it.

    Raises:
        StateError: it does not exist, or is of another schema.
        DBAPIError: it cannot be read.
    """
    url = _url_for_reading(path)
    if url is None:
        raise StateError(f"state {path}: does not exist")
    if not says_other_schema(path):
        connection = _connect(url, busy_seconds)
        with _closed_on_failure(connection):
            connection.exec_driver_sql("PRAGMA query_only = ON")
            if _inspect(connection) is Found.CURRENT:
                return connection
        connection.close()
    raise StateError(f"state {path}: written by another version of replicator; its runs start anew")


def _connect(url: URL, busy_seconds: float) -> Connection:
    engine = create_engine(
        url, connect_args={"timeout": busy_seconds}, poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    return engine.connect()


def connect_in_memory() -> Connection:
    """An empty state that is gone with the connection."""
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
    connection.exec_driver_sql(SYNCHRONOUS)


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


def _is_busy(error: BaseException | None) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
