"""What `check` says of a database that will not do, with real ones."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from replicator.errors import StateError
from replicator.state.place import PostgresPlace
from replicator.state.postgres import checking
from replicator.state.postgres.checking import check_database
from replicator.state.postgres.schema import Program, migrate
from replicator.state.store import open_state
from tests.fakes.clock import FakeClock
from tests.postgres import PASSWORD, ROLE, Database, Postgres, running_postgres
from tests.unit.state.conftest import place_of


def problems(database: Database) -> list[str]:
    found = list(check_database(place_of(database))[1])
    assert all(PASSWORD not in each for each in found)
    return found


def test_a_server_that_is_too_old(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "OLDEST_SERVER", 99)
    [found] = problems(database)
    assert found.startswith("PostgreSQL 1")
    assert found.endswith("is too old; version 99 is required")


def test_a_database_that_is_not_utf8(postgres: Postgres) -> None:
    name = "latin"
    postgres.execute(
        f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE template0 ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'"
    )
    database = Database(name, postgres.port)
    try:
        assert problems(database) == ["the database's encoding is LATIN1; create it with ENCODING 'UTF8'"]
    finally:
        postgres.drop(database)


@pytest.mark.parametrize(("seconds", "said"), [(700, "behind"), (-700, "ahead of")])
def test_a_clock_that_is_off(
    database: Database, monkeypatch: pytest.MonkeyPatch, seconds: int, said: str
) -> None:
    here = time.time
    monkeypatch.setattr(time, "time", lambda: here() + seconds)
    [found] = problems(database)
    assert found in {
        f"its clock is {each} s {said} this machine's; run NTP on both" for each in (699, 700, 701)
    }


def test_tables_of_another_role(postgres: Postgres, database: Database) -> None:
    as_admin = psycopg.connect(postgres.admin, dbname=database.name, autocommit=True)
    with as_admin as connection:
        migrate(connection, Program())
        tables = [sql.SQL("schema_codes"), sql.SQL("schema_steps")]
        connection.execute(
            sql.SQL("GRANT SELECT ON {} TO {}").format(sql.SQL(", ").join(tables), sql.Identifier(ROLE))
        )
    assert problems(database) == [f"the role {ROLE} may not write the tables; they belong to another role"]


async def test_a_standby() -> None:
    """A server that reads its own log and takes no writes."""
    with running_postgres() as server:
        database = server.create()
        server.stop()
        (server.folder / "data" / "standby.signal").touch()
        server.start()
        assert problems(database) == [
            "the server is a standby and takes no writes; let agent.state name the primary"
        ]
        with pytest.raises(StateError, match=r"if it is a standby, let agent\.state name the primary"):
            await open_state(place_of(database), clock=FakeClock())


async def test_without_the_extra(database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "replicator.state.postgres.database", None)
    place = PostgresPlace(database.url, lambda: PASSWORD)
    with pytest.raises(StateError, match=r"needs an extra: pip install 'replicator\[postgres\]'"):
        await open_state(place, clock=FakeClock())
    state = await open_state(tmp_path / "state.db", clock=FakeClock())
    await state.aclose()
