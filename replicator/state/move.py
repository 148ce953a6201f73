"""Carries all that a state knows to another place, table by table, as the databases have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Table, exists, select, text

from replicator.errors import StateError
from replicator.state.database import Database, transaction
from replicator.state.dialect import ADD_WORDS, POSTGRESQL
from replicator.state.images import words_of
from replicator.state.locks import hold
from replicator.state.place import EXTRA, Claim, Place, PostgresPlace
from replicator.state.sqlite import connect_to_move, open_database
from replicator.state.tables import images, metadata

_BUSY_SECONDS: Final = 5.0
_AT_ONCE: Final = 10_000
"""Rows of one statement, which has seconds."""

Rows = Callable[[Table], Iterator[Sequence[Any]]]
"""The rows of a table, in the order of its columns, as the driver has them."""


async def move(source: Place, target: Place) -> Mapping[str, int]:
    """Copies a state to a place that has none yet, all of it or nothing; the source stays as it is.

    Neither may be in use meanwhile. No more than `_AT_ONCE` rows are in memory.

    Returns:
        The number of rows by table.

    Raises:
        StateInUse: an agent or a sync has one of them.
        StateError: the source does not exist or is of another schema, the target is not empty, or one of them cannot be
            used. The target is then empty.
    """
    if str(source) == str(target):
        raise StateError(f"state {target}: is the one to move from")
    claim = Claim("agent")
    with hold(source, claim), hold(target, claim):
        if isinstance(target, Path):
            database: Database = await open_database(target, _BUSY_SECONDS)
        else:
            database = await _postgresql(target, claim).opened()
        try:
            with database.mapped("move"):
                # One piece of work: where the connection to the target is lost, it is done again as a whole.
                return await database.run(lambda connection: _copy(source, connection))
        finally:
            await database.close()


def _postgresql(place: PostgresPlace, claim: Claim) -> Database:
    try:
        from replicator.state.postgres.database import PostgresDatabase  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise StateError(f"state {place}: {EXTRA} ({error})") from error
    return PostgresDatabase(place, claim=claim)


def _copy(source: Place, target: Connection) -> dict[str, int]:
    with _opened(source) as rows, transaction(target):
        for table in metadata.sorted_tables:
            if target.execute(select(exists(select(table)))).scalar():
                raise StateError(f"is not empty: it has {table.name}; name a new file or an empty database")
        return {table.name: _fill(target, table, rows(table)) for table in metadata.sorted_tables}


@contextmanager
def _opened(source: Place) -> Iterator[Rows]:
    """The source as of one moment."""
    if isinstance(source, Path):
        with closing(connect_to_move(source, _BUSY_SECONDS)) as connection:
            connection.exec_driver_sql("BEGIN")
            yield lambda table: iter(connection.exec_driver_sql(_select(table)))
        return
    try:
        from replicator.state.postgres.moving import opened  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise StateError(f"state {source}: {EXTRA} ({error})") from error
    with opened(source) as read:
        yield lambda table: read(_select(table), _AT_ONCE)


def _select(table: Table) -> str:
    return f"SELECT {_columns(table)} FROM {table.name}"  # noqa: S608  our own names


def _columns(table: Table) -> str:
    return ", ".join(f'"{column.name}"' for column in table.columns)


def _fill(target: Connection, table: Table, rows: Iterator[Sequence[Any]]) -> int:
    count = 0
    insert = _inserted
    if target.dialect.name == POSTGRESQL:
        from replicator.state.postgres.moving import copied as insert  # noqa: PLC0415 - an extra
    while part := list(islice(rows, _AT_ONCE)):
        insert(target, table.name, _columns(table), part)
        if table is images:
            _write_words(target, part)
        count += len(part)
    if target.dialect.name == POSTGRESQL and "id" in table.columns and "id" in table.primary_key:
        # The numbers that come next.
        last = f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), max(id)) FROM {table.name}"  # noqa: S608
        target.execute(text(last))
    return count


def _inserted(target: Connection, table: str, columns: str, rows: Sequence[Sequence[Any]]) -> None:
    marks = ", ".join("?" * len(rows[0]))
    statement = f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608  our own names
    target.exec_driver_sql(statement, [tuple(row) for row in rows])


def _write_words(target: Connection, rows: Iterable[Sequence[Any]]) -> None:
    """The words of images, which the source may have in a form that only finds them."""
    names = [column.name for column in images.columns]
    written = []
    for row in rows:
        image = dict(zip(names, row, strict=True))
        labels, annotations = (msgspec.json.decode(image[name]) for name in ("labels", "annotations"))
        if words := words_of(labels, annotations):
            written.append({"id": image["id"], "text": words})
    if written:
        target.execute(ADD_WORDS[target.dialect.name], written)
