"""Reads all rows of a database as of one moment, and writes many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from replicator.errors import StateError
from replicator.state.place import Claim, PostgresPlace
from replicator.state.postgres import locks, schema
from replicator.state.postgres.connecting import connect
from replicator.state.postgres.schema import Program

Read = Callable[[str, int], Iterator[Sequence[Any]]]
"""The rows of a statement, that many at a time."""


@contextmanager
def opened(place: PostgresPlace) -> Iterator[Read]:
    """A database that no agent uses meanwhile.

    Raises:
        StateInUse: an agent or a sync uses it.
        StateError: it has no state, or one of another generation.
        DBAPIError: it cannot be reached or read.
    """
    try:
        with connect(place, read_only=True) as connection:
            locks.take(connection, Claim("agent"))
            if not schema.has_tables(connection, Program()):
                raise StateError(f"state {place}: the database has no state in it")
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                yield lambda statement, size: _rows(connection, statement, size)
    except psycopg.Error as error:
        raise DBAPIError.instance("", None, error, psycopg.Error) from error


def _rows(connection: psycopg.Connection[Any], statement: str, size: int) -> Iterator[Sequence[Any]]:
    with connection.cursor("moving") as cursor:
        cursor.itersize = size
        cursor.execute(statement.encode())
        yield from cursor


def copied(target: Connection, table: str, columns: str, rows: Iterable[Sequence[Any]]) -> None:
    """Adds rows to a table, in the transaction that the connection is in. Raises DBAPIError."""
    driver = cast("psycopg.Connection[Any]", target.connection.driver_connection)
    statement = f"COPY {table} ({columns}) FROM STDIN".encode()
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copying:
            for row in rows:
                copying.write_row(tuple(row))
    except psycopg.Error as error:
        raise DBAPIError.instance("", None, error, psycopg.Error) from error
