"""The PostgreSQL that tests are given."""

from __future__ import annotations

import psycopg
import pytest

from tests.postgres import ROLE, Database, Postgres


def test_database_belongs_to_an_ordinary_role(database: Database) -> None:
    with psycopg.connect(database.dsn) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (ROLE,)
        assert connection.execute("SHOW is_superuser").fetchone() == ("off",)
        connection.execute("CREATE TABLE one (id bigint)")


def test_server_comes_back_with_its_databases(postgres: Postgres, database: Database) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS id")
        postgres.restart()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT id FROM kept")
    with psycopg.connect(database.dsn) as again:
        assert again.execute("SELECT id FROM kept").fetchone() == (1,)


def test_password_is_wanted(database: Database) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(database.url, password="another")
