"""The state on PostgreSQL: who may use it, what it survives, and how it gets there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection

from replicator.discovery.query import parse_query
from replicator.errors import StateError, StateInUse
from replicator.model.digest import digest_of
from replicator.ports import Created, ImageSeen, Missing, Pending, Placed, Placement, RunRow, Seen, TagBelief
from replicator.ports.search import ImageFacts
from replicator.state import queries
from replicator.state.move import move
from replicator.state.place import Claim, Place, PostgresPlace
from replicator.state.postgres import connecting, locks
from replicator.state.postgres import database as pg
from replicator.state.postgres.checking import check_database
from replicator.state.postgres.database import PostgresDatabase
from replicator.state.postgres.migrations import Step
from replicator.state.postgres.schema import Program, announce, migrate
from replicator.state.store import StoredState, open_state
from tests.fakes.clock import FakeClock
from tests.postgres import PASSWORD, ROLE, Database, Postgres
from tests.unit.state.conftest import place_of

ONE, TWO = digest_of(b"one"), digest_of(b"two")


def placed(tag: str) -> Placed:
    belief = TagBelief(tag, ONE, ONE, "rule", 5.0)
    return Placed("rule", "fra", belief, "app", Placement(ONE, "f", 5.0, 5.0))


@asynccontextmanager
async def opened(
    place: Place, *, claim: Claim | None = None, read_only: bool = False
) -> AsyncIterator[StoredState]:
    state = await open_state(place, clock=FakeClock(), claim=claim, read_only=read_only)
    try:
        yield state
    finally:
        await state.aclose()


async def fill(state: StoredState, tags: int = 3) -> None:
    state.begin("rule", "fra")
    for number in range(tags):
        state.record(placed(f"v{number}"))
    state.record(Missing("rule", "fra", Pending("app", "late", None, 5.0, 2, "refused")))
    state.record(Seen("fra", "app", TWO))
    state.record(Created(ONE, 3.5))
    labels = {"org.opencontainers.image.description": "Serves invoices"}
    state.record(ImageSeen(ImageFacts(ONE, 3.0, labels=labels, layers=((TWO, 5),))))
    await state.set_paused("other", paused=True)
    await state.close_run(RunRow("rule", "fra", 1.0, 2.0, "ok", True, 1, 0, 0))


async def told(state: StoredState) -> list[Any]:
    """Everything that it answers."""
    return [
        await state.beliefs("fra", "app"),
        await state.placements("fra", "app"),
        await state.pending("rule", "fra", "app"),
        await state.whereabouts("fra", [TWO]),
        await state.created([ONE]),
        await state.standings(),
        await state.runs("rule", "fra"),
        await state.paused(),
        await state.facts([ONE]),
        await state.search(parse_query(["invoic"]), 10),
    ]


# --- other agents write meanwhile ---


async def test_what_another_agent_ends_in_between_is_no_damage(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest tag that is pending is read after the sums, and by then is not pending any more."""
    execute = Connection.execute

    def in_between(self: Connection, statement: Any, *arguments: Any, **options: Any) -> Any:
        if statement is queries.OLDEST_PENDING:
            with psycopg.connect(database.dsn, autocommit=True) as another:
                another.execute("DELETE FROM pending")
        return execute(self, statement, *arguments, **options)

    async with opened(place_of(database)) as state:
        await fill(state)
        monkeypatch.setattr(Connection, "execute", in_between)
        (standing,) = await state.standings()
        assert (standing.pending, standing.oldest_repository, standing.oldest_tag) == (1, "app", "late")
        (standing,) = await state.standings()
        assert standing.pending == 0
        state.record(Missing("rule", "fra", Pending("app", "late", None, 5.0, 2, "refused")))
        await state.close_run(RunRow("rule", "fra", 3.0, 4.0, "ok", True, 1, 0, 0))


# --- the database goes away ---


async def test_what_was_recorded_survives_a_restart_of_the_database(
    postgres: Postgres, database: Database
) -> None:
    async with opened(place_of(database)) as state:
        state.record(placed("v1"))
        await state.flush()
        postgres.stop(kill=True)
        state.record(placed("v2"))
        writing = asyncio.create_task(state.flush())
        reading = asyncio.create_task(state.beliefs("fra", "app"))
        await asyncio.sleep(0.2)
        assert not writing.done()
        postgres.start()
        await writing
        assert set(await reading) == {"v1", "v2"}


async def test_batches_written_while_the_database_restarts_are_neither_lost_nor_halved(
    postgres: Postgres, database: Database
) -> None:
    async with opened(place_of(database)) as state:

        async def write() -> None:
            for number in range(40):
                state.record(placed(f"v{number}"))
                await state.flush()

        writing = asyncio.create_task(write())
        for _ in range(3):
            await asyncio.sleep(0.05)
            postgres.restart()
        await writing
    async with opened(place_of(database), read_only=True) as again:
        assert len(await again.beliefs("fra", "app")) == 40
        assert list(await again.placements("fra", "app")) == [ONE]


async def test_a_database_that_stays_away_is_not_waited_for_without_end(
    postgres: Postgres, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pg, "RECONNECT_SECONDS", 0.3)
    state = await open_state(place_of(database), clock=FakeClock())
    postgres.stop()
    try:
        state.record(placed("v1"))
        with pytest.raises(StateError, match=r"^state postgresql://.*: write: .*refused"):
            await state.flush()
        with pytest.raises(StateError, match=r": read events: "):
            await state.events()
    finally:
        postgres.start()
    await state.flush()
    assert set(await state.beliefs("fra", "app")) == {"v1"}
    await state.aclose()


async def test_a_lock_that_is_not_given_up_ends_the_wait(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connecting._SESSION, "lock_timeout", "100ms")
    state = await open_state(place_of(database), clock=FakeClock())
    state.record(placed("v1"))
    with psycopg.connect(database.dsn) as other:
        other.execute("LOCK TABLE beliefs IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StateError, match=r": write: another process held a lock for \d+ s"):
            await state.flush()
    await state.flush()
    assert set(await state.beliefs("fra", "app")) == {"v1"}
    await state.aclose()


async def test_statements_and_servers_that_hang_are_given_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connecting._SESSION, "statement_timeout", "100ms")
    base = PostgresDatabase(place_of(database))
    await base.opened()
    with pytest.raises(StateError, match="did not answer within"), base.mapped("read"):
        await base.run(lambda connection: connection.exec_driver_sql("SELECT pg_sleep(60)"))
    await base.close()
    # The server does not end it either.
    monkeypatch.setitem(connecting._SESSION, "statement_timeout", "20s")
    base = PostgresDatabase(place_of(database))
    await base.opened()
    monkeypatch.setattr(pg, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(pg, "RECONNECT_SECONDS", 0.0)

    def hang(connection: Any) -> None:
        connection.exec_driver_sql("SET statement_timeout = 0")
        connection.exec_driver_sql("SELECT pg_sleep(60)")

    with pytest.raises(StateError, match="connection"), base.mapped("read"):
        await base.run(hang)
    assert await base.run(lambda connection: connection.exec_driver_sql("SELECT 1").scalar()) == 1
    await base.close()


# --- who may use it ---


async def test_one_agent_has_the_state_for_itself(database: Database) -> None:
    place = place_of(database)
    async with opened(place, claim=Claim("agent")):
        with pytest.raises(
            StateInUse, match=r"in use by replicator .* process \d+ .*: one state is for one agent"
        ):
            await open_state(place, clock=FakeClock(), claim=Claim("agent"))
        with pytest.raises(StateInUse, match=r"sync --remote"):
            await open_state(place, clock=FakeClock(), claim=Claim("sync", ("rule",)))
        with pytest.raises(StateInUse, match=r"fleet"):
            await open_state(place, clock=FakeClock(), claim=Claim("fleet"))
        async with opened(place, read_only=True):
            pass
    async with opened(place, claim=Claim("fleet")), opened(place, claim=Claim("fleet")):
        pass


async def test_syncs_of_different_rules_run_beside_each_other(database: Database) -> None:
    place = place_of(database)
    async with opened(place, claim=Claim("sync", ("a",))), opened(place, claim=Claim("sync", ("b",))):
        with pytest.raises(StateInUse, match=r"rule 'a' is being run by replicator"):
            await open_state(place, clock=FakeClock(), claim=Claim("sync", ("a", "c")))
        with pytest.raises(StateInUse, match=r"wait until that sync ends"):
            await open_state(place, clock=FakeClock(), claim=Claim("agent"))


async def test_who_lost_the_state_with_the_connection_writes_no_more(
    database: Database, postgres: Postgres
) -> None:
    place = place_of(database)
    first = await open_state(place, clock=FakeClock(), claim=Claim("agent"))
    first.record(placed("v1"))
    await first.flush()
    postgres.execute(
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database.name}'"  # noqa: S608
    )
    with psycopg.connect(database.dsn, autocommit=True, application_name="another agent") as other:
        other.execute("SELECT pg_advisory_lock(%s)", (locks._AGENTS,))
        first.record(placed("v2"))
        with pytest.raises(StateInUse, match="in use by another agent"):
            await first.flush()
    await first.flush()  # the other has gone, and nothing is lost
    await first.aclose()
    async with opened(place, read_only=True) as again:
        assert set(await again.beliefs("fra", "app")) == {"v1", "v2"}


# --- generations ---


def column(name: str) -> Callable[[Any], object]:
    return lambda connection: connection.execute(
        f"ALTER TABLE beliefs ADD COLUMN {name} integer NOT NULL DEFAULT 0"
    )


SECOND = Program(
    2,
    1,
    (
        *Program().steps,
        Step("0100_expand", 2, column("new")),
        Step("0101_contract", 2, lambda connection: connection.execute("DROP TABLE swept"), oldest=2),
    ),
    "2.0",
)
THIRD = Program(3, 2, SECOND.steps, "3.0")


def columns(database: Database, table: str = "beliefs") -> set[str]:
    with psycopg.connect(database.dsn) as connection:
        query = "SELECT column_name FROM information_schema.columns WHERE table_name = %s"
        return {row[0] for row in connection.execute(query, (table,))}


async def test_two_generations_work_side_by_side_until_the_older_has_gone(database: Database) -> None:
    place = place_of(database)
    async with opened(place) as old:
        old.record(placed("v1"))
        await old.flush()
        with psycopg.connect(database.dsn, autocommit=True) as new:
            announce(new, SECOND)
            migrate(new, SECOND)
            assert "new" in columns(database)
            assert columns(database, "swept")  # the older still needs it
            old.record(placed("v2"))
            await old.flush()
        with psycopg.connect(database.dsn, autocommit=True) as too_new:
            announce(too_new, THIRD)
            with pytest.raises(StateError, match=r"3\.0.* is too new: an agent of generation 1 is connected"):
                migrate(too_new, THIRD)
        async with opened(place, read_only=True) as beside:
            assert set(await beside.beliefs("fra", "app")) == {"v1", "v2"}
    with psycopg.connect(database.dsn, autocommit=True) as new:
        announce(new, SECOND)
        migrate(new, SECOND)
        migrate(new, SECOND)  # once is enough
    assert not columns(database, "swept")
    for read_only in (False, True):
        with pytest.raises(StateError, match=r"too old: the database is for generations 2 to 2; upgrade it"):
            await open_state(place, clock=FakeClock(), read_only=read_only)


def test_a_step_that_fails_leaves_nothing_behind(database: Database) -> None:
    steps = (*Program().steps, Step("bad", 1, lambda connection: connection.execute("SELECT nonsense")))
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        with pytest.raises(psycopg.Error):
            migrate(connection, Program(1, 1, steps))
        assert connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchone() == (0,)
        migrate(connection, Program())


async def test_agents_that_start_at_once_make_the_tables_once(database: Database) -> None:
    async with asyncio.TaskGroup() as tasks:
        states = [tasks.create_task(open_state(place_of(database), clock=FakeClock())) for _ in range(4)]
    for state in states:
        await state.result().aclose()


async def test_tables_of_another_program_are_left_alone(database: Database) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE events (mine integer)")
    with pytest.raises(
        StateError, match=r"table 'events' of another program; give replicator a database of its own"
    ):
        await open_state(place_of(database), clock=FakeClock())
    async with opened(place_of(database), read_only=True) as state:
        assert await state.standings() == []
    assert columns(database, "events") == {"mine"}


# --- check ---


async def test_check_tells_what_it_found(database: Database) -> None:
    findings, problems = check_database(place_of(database))
    assert problems == ()
    assert dict(findings)["tables"] == "none yet; the first sync or run makes them"
    assert dict(findings)["server"].startswith("PostgreSQL 1")
    async with opened(place_of(database)):
        assert dict(check_database(place_of(database))[0])["tables"] == "of generation 1"


def test_check_names_what_is_wrong(postgres: Postgres, database: Database) -> None:
    def problem(place: PostgresPlace) -> str:
        [only] = check_database(place)[1]
        assert PASSWORD not in only
        return only

    place = place_of(database)
    assert "the password is wrong; check agent.state_password" in problem(
        PostgresPlace(place.url, lambda: "no")
    )
    assert "the database is missing; create it" in problem(PostgresPlace(f"{place.url}x", place.password))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    nobody = f"postgresql://{ROLE}@127.0.0.1:{port}/x"
    assert "no server listens there" in problem(PostgresPlace(nobody, place.password))
    postgres.execute(f"ALTER DATABASE {database.name} OWNER TO postgres")
    assert "may not create tables in 'public'; make it the owner" in problem(place)
    with pytest.raises(StateError, match="lacks rights"):
        asyncio.run(open_state(place, clock=FakeClock()))


# --- moving ---


async def test_a_state_moves_to_postgresql_and_back(database: Database, tmp_path: Path) -> None:
    first, last, place = tmp_path / "state.db", tmp_path / "again.db", place_of(database)
    async with opened(first) as state:
        await fill(state, 25)
        before = await told(state)
    rows = await move(first, place)
    assert (rows["beliefs"], rows["placements"], rows["pending"], rows["paused"]) == (25, 1, 1, 1)
    async with opened(place) as state:
        assert await told(state) == before
        state.record(Seen("new", "repository", ONE))  # numbers go on after those that came
        await state.flush()
        after = await told(state)
    await move(place, last)
    async with opened(last) as state:
        assert await told(state) == after
        assert await state.knows_repository("new", "repository")


async def test_a_state_moves_only_whole_and_only_where_there_is_none(
    database: Database, tmp_path: Path
) -> None:
    path, place = tmp_path / "state.db", place_of(database)
    with pytest.raises(StateError, match="the database has no state in it"):
        await move(place, tmp_path / "other.db")
    with pytest.raises(StateError, match=r"state\.db: does not exist"):
        await move(path, place)
    async with opened(path) as state:
        await fill(state)
    async with opened(place, claim=Claim("agent")):
        with pytest.raises(StateInUse):
            await move(path, place)
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE runs ADD CONSTRAINT none CHECK (rule < 0)")
    with pytest.raises(StateError, match="violates check constraint"):
        await move(path, place)
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE runs DROP CONSTRAINT none")
    async with opened(place) as state:
        assert await state.standings() == []
        assert await state.beliefs("fra", "app") == {}
        await fill(state)
    with pytest.raises(StateError, match=r"is not empty: it has \w+; name a new file or an empty database"):
        await move(path, place)
