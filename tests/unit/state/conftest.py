"""Where the states of these tests are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from replicator.state.place import Place, PostgresPlace
from replicator.state.postgres.schema import Program, migrate
from replicator.state.tables import metadata
from tests.postgres import Database, Postgres


def place_of(database: Database) -> PostgresPlace:
    """A database of the tests as the state takes it."""
    return PostgresPlace(database.url, lambda: database.password)


@pytest.fixture(scope="session")
def with_tables(postgres: Postgres) -> Database:
    """A database with the state's tables. Shared: a copy for each test would cost more than most of the tests."""
    database = postgres.create()
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        migrate(connection, Program())
    return database


@pytest.fixture
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], Place]]:
    """A new place for a state in `sqlite` or `postgresql`, the same one each time."""
    used: list[Database] = []

    def place(kind: str) -> Place:
        if kind == "sqlite":
            return tmp_path / "state.db"
        used.append(request.getfixturevalue("with_tables"))
        return place_of(used[0])

    yield place
    for database in used[:1]:
        delete = sql.SQL("DELETE FROM {}")
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            for table in (*metadata.tables, "image_text"):
                connection.execute(delete.format(sql.Identifier(table)))
