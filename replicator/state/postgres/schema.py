"""Which generations of the program may use a database, and how it gets the tables that this one needs.

Two tables say it: `schema_steps` has the steps that were applied, `schema_codes` the oldest and the newest generation that
may use the database. Every connection holds a shared advisory lock with the number of its generation, so that a step which
older agents would not survive waits until none is connected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import psycopg

from replicator import __version__
from replicator.errors import StateError
from replicator.state.postgres.locks import GENERATIONS, MIGRATION
from replicator.state.postgres.migrations import BESIDE, CODE, STEPS, Step

_Connection = psycopg.Connection[Any]

_CREATE: Final = """
CREATE TABLE schema_steps (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now(), by text NOT NULL);
CREATE TABLE schema_codes (oldest integer NOT NULL, newest integer NOT NULL);
INSERT INTO schema_codes VALUES (1, 0);
"""
WAIT_SECONDS: Final = 60
"""How long another agent's migration is waited for."""


class Program(NamedTuple):
    """A generation of the program: its number, the oldest that may run beside it, and its steps."""

    code: int = CODE
    beside: int = BESIDE
    steps: Sequence[Step] = STEPS
    version: str = __version__


def announce(connection: _Connection, program: Program) -> None:
    """Says to others that a program of this generation is connected, for as long as the connection lasts."""
    connection.execute("SELECT pg_advisory_lock_shared(%s, %s)", (GENERATIONS, program.code))


def has_tables(connection: _Connection, program: Program) -> bool:
    """Whether the database has our tables, of a generation that the program can read.

    Raises:
        StateError: they are of another generation.
    """
    codes = _codes(connection)
    if codes is None:
        return False
    _refuse_if_too_old(codes, program)
    if codes[1] < program.code:
        raise StateError(
            f"open: its tables are of generation {codes[1]}, this replicator ({program.version}) needs {program.code}; "
            "replicator run or sync brings them up to date"
        )
    return True


def migrate(connection: _Connection, program: Program) -> None:
    """Applies the steps that are missing, all or none. Agents that start at the same time do so one after the other.

    Raises:
        StateError: the program is too old for the database, or too new for agents that are connected; the tables are
            another program's. Nothing is changed.
    """
    with connection.transaction():
        connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{WAIT_SECONDS}s",))
        connection.execute("SELECT set_config('statement_timeout', '0', true)")
        connection.execute("SELECT set_config('idle_in_transaction_session_timeout', '60s', true)")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION,))
        codes = _codes(connection)
        if codes is None:
            _refuse_others_tables(connection)
            connection.execute(_CREATE)
            codes = (1, 0)
        _refuse_if_too_old(codes, program)
        oldest_alive = _oldest_connected(connection)
        if codes[1] < program.code and oldest_alive is not None and oldest_alive < program.beside:
            raise StateError(
                f"open: this replicator ({program.version}, generation {program.code}) is too new: an agent of generation "
                f"{oldest_alive} is connected to the database; upgrade all agents to generation {program.beside} first"
            )
        _apply(connection, program, codes, oldest_alive)


def _apply(
    connection: _Connection, program: Program, codes: tuple[int, int], oldest_alive: int | None
) -> None:
    done = {row[0] for row in connection.execute("SELECT name FROM schema_steps")}
    oldest, newest = codes
    for step in program.steps:
        is_contract_too_early = step.oldest > (program.code if oldest_alive is None else oldest_alive)
        if step.name in done or is_contract_too_early:
            continue
        step.apply(connection)
        connection.execute(
            "INSERT INTO schema_steps (name, by) VALUES (%s, %s)", (step.name, program.version)
        )
        oldest = max(oldest, step.oldest)
    newest = max(newest, program.code)
    if (oldest, newest) != codes:
        connection.execute("UPDATE schema_codes SET oldest = %s, newest = %s", (oldest, newest))


def _codes(connection: _Connection) -> tuple[int, int] | None:
    """The oldest and the newest generation that may use the database; None where it has no tables of ours."""
    found = connection.execute("SELECT to_regclass('schema_codes') IS NOT NULL").fetchone()
    if found is None or not found[0]:
        return None
    row = connection.execute("SELECT oldest, newest FROM schema_codes").fetchone()
    return None if row is None else (int(row[0]), int(row[1]))


def _refuse_if_too_old(codes: tuple[int, int], program: Program) -> None:
    if program.code < codes[0]:
        raise StateError(
            f"open: this replicator ({program.version}, generation {program.code}) is too old: the database is for "
            f"generations {codes[0]} to {codes[1]}; upgrade it"
        )


def _refuse_others_tables(connection: _Connection) -> None:
    row = connection.execute(
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace "
        "AND c.relname IN ('names', 'beliefs', 'pending', 'units', 'events', 'runs', 'images', 'schema_steps') LIMIT 1"
    ).fetchone()
    if row is not None:
        raise StateError(
            f"open: the database has a table {row[0]!r} of another program; give replicator a database of its own"
        )


def _oldest_connected(connection: _Connection) -> int | None:
    """The oldest generation of the programs that are connected, but for this connection's own."""
    row = connection.execute(
        "SELECT min(objid::bigint) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objsubid = 2 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()",
        (GENERATIONS,),
    ).fetchone()
    return None if row is None or row[0] is None else int(row[0])
