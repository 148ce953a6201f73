"""What `check` says of a database that is to hold the state."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import psycopg

from replicator.errors import ReplicatorError
from replicator.policy.recheck import CLOCK_SLACK_SECONDS
from replicator.state.place import PostgresPlace
from replicator.state.postgres import schema
from replicator.state.postgres.connecting import connect, explain
from replicator.state.postgres.schema import Program

OLDEST_SERVER: Final = 14

_FACTS: Final = """
SELECT current_setting('server_version'), current_setting('server_encoding'), current_user::text, pg_is_in_recovery(),
    current_schema()::text, coalesce(has_schema_privilege(current_schema(), 'CREATE'), false),
    extract(epoch FROM clock_timestamp())::double precision,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
    current_setting('max_connections')::integer,
    to_regclass('beliefs') IS NULL OR has_table_privilege(to_regclass('beliefs'), 'SELECT, INSERT, UPDATE, DELETE')
"""


class _Facts(NamedTuple):
    version: str
    encoding: str
    role: str
    is_standby: bool
    schema: str | None
    may_create: bool
    now: float
    connections: int
    most_connections: int
    may_write: bool


def check_database(place: PostgresPlace) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """What was found, each with what it is of, and the problems. Changes nothing, and raises nothing."""
    try:
        with connect(place, read_only=True) as connection:
            before = time.time()
            [row] = connection.execute(_FACTS.encode()).fetchall()
            ahead = row[6] - (before + time.time()) / 2
            facts = _Facts(*row)
            tables, problem = _tables(connection)
            problems = [*_problems(facts, ahead, connection.info.server_version), *problem]
            return tuple(_findings(facts, ahead, tables, connection)), tuple(problems)
    except psycopg.Error as error:
        return (), (explain(error),)
    except ReplicatorError as error:  # its password, or a pooler
        return (), (str(error).removeprefix("open: "),)


def _findings(
    facts: _Facts, ahead: float, tables: str, connection: psycopg.Connection[Any]
) -> Iterator[tuple[str, str]]:
    yield "server", f"PostgreSQL {facts.version}"
    yield "encryption", "TLS" if connection.pgconn.ssl_in_use else "none"
    yield "role", f"{facts.role}, {'may' if facts.may_create else 'may not'} create tables"
    yield "tables", tables
    yield "connections", f"{facts.connections} of {facts.most_connections}"
    yield "clock", f"{abs(ahead):.1f} s {'ahead' if ahead > 0 else 'behind'}"


def _tables(connection: psycopg.Connection[Any]) -> tuple[str, list[str]]:
    program = Program()
    try:
        if not schema.has_tables(connection, program):
            return "none yet; the first sync or run makes them", []
    except ReplicatorError as error:
        problem = str(error).removeprefix("open: ")
        return "of another generation", [] if "brings them up to date" in problem else [problem]
    return f"of generation {program.code}", []


def _problems(facts: _Facts, ahead: float, version: int) -> Iterator[str]:
    if version < OLDEST_SERVER * 10_000:
        yield f"PostgreSQL {facts.version} is too old; version {OLDEST_SERVER} is required"
    if facts.encoding != "UTF8":
        yield f"the database's encoding is {facts.encoding}; create it with ENCODING 'UTF8'"
    if facts.is_standby:
        yield "the server is a standby and takes no writes; let agent.state name the primary"
    if facts.schema is None:
        yield f"the role {facts.role} has no schema to work in; make it the owner of the database"
    elif not facts.may_create:
        yield f"the role {facts.role} may not create tables in {facts.schema!r}; make it the owner of the database"
    elif not facts.may_write:
        yield f"the role {facts.role} may not write the tables; they belong to another role"
    if abs(ahead) > CLOCK_SLACK_SECONDS:
        yield f"its clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's; run NTP on both"
