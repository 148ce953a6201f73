"""Connections to PostgreSQL: opened with every wait bounded, and what their errors mean."""

from __future__ import annotations

import os
import re
import socket
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo

from replicator.errors import StateError
from replicator.state.place import PostgresPlace

CONNECT_SECONDS: Final = 10
STATEMENT_SECONDS: Final = 30
"""How long the server may take for one statement."""
LOCK_SECONDS: Final = 20
"""How long one statement may wait for locks of others."""

KEEPALIVES: Final = {
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""Of libpq: a silent cut of the network is noticed within 15 s instead of two hours."""
SERVER_KEEPALIVES: Final = {
    f"tcp_{name.removeprefix('tcp_')}": str(value) for name, value in KEEPALIVES.items()
}
"""The same, as settings of the server's side: it soon frees what a client that froze or vanished has locked."""

_SESSION: Final = {
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    "lock_timeout": f"{LOCK_SECONDS}s",
    "idle_in_transaction_session_timeout": "10s",
    **SERVER_KEEPALIVES,
    "jit": "off",  # for queries of seconds, of which there are none
    "timezone": "UTC",
}


def connect(place: PostgresPlace, *, read_only: bool = False) -> psycopg.Connection[Any]:
    """A connection in driver-level autocommit.

    Raises:
        psycopg.Error: it cannot be opened.
        ConfigError: the password cannot be read.
        StateError: a pooler gives each transaction another session.
    """
    connection = psycopg.connect(conninfo(place), autocommit=True)
    try:
        settings = _SESSION | ({"default_transaction_read_only": "on"} if read_only else {})
        calls = ", ".join(["set_config(%s, %s, false)"] * len(settings))
        connection.execute(f"SELECT {calls}".encode(), [each for pair in settings.items() for each in pair])
        _refuse_shared_sessions(place, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_shared_sessions(place: PostgresPlace, connection: psycopg.Connection[Any]) -> None:
    """Raises `StateError` where another client is given the session of a connection that is idle."""
    own = session_of(connection)
    if own == connection.info.backend_pid:
        return  # no pooler in between: it would say another number
    with psycopg.connect(conninfo(place), autocommit=True) as other:
        if session_of(other) == own:
            raise StateError(
                "open: a pooler gives each transaction another session (PgBouncer with pool_mode = transaction), and the "
                "state needs one of its own: use pool_mode = session, or the port of PostgreSQL itself"
            )


def conninfo(place: PostgresPlace) -> str:
    """Everything that libpq needs, the password included."""
    return make_conninfo(
        place.url,
        connect_timeout=CONNECT_SECONDS,
        application_name=client_name(),
        client_encoding="utf8",
        **KEEPALIVES,
        password=None if place.password is None else place.password(),
    )


def session_of(connection: psycopg.Connection[Any]) -> int:
    """The process of the server that works for a connection; a pooler gives the client another number."""
    [(session,)] = connection.execute("SELECT pg_backend_pid()").fetchall()
    return int(session)


def end_session(connection: psycopg.Connection[Any], session: int) -> None:
    """Ends a session that this process had, where the server still has it, and waits a few seconds until it is gone."""
    connection.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE pid = %s AND application_name = %s AND usename = current_user",
        (session, client_name()),
    )


def client_name() -> str:
    """What `pg_stat_activity` and messages call this process."""
    return f"replicator {os.uname().nodename[:40]} process {os.getpid()}"


def cut(connection: psycopg.Connection[Any]) -> None:
    """Ends a connection that another thread waits for, which gets an error at once."""
    with socket.socket(fileno=os.dup(connection.pgconn.socket)) as end:
        end.shutdown(socket.SHUT_RDWR)


_MEANINGS: Final = {
    "57014": f"the database did not answer within {STATEMENT_SECONDS} s",
    "55P03": f"another process held a lock for {LOCK_SECONDS} s",
    "25006": "the database takes no writes; if it is a standby, let agent.state name the primary",
    "42501": "the role lacks rights; it must own the database, or be allowed to create in its schema",
    "53100": "the disk of the database is full",
    "53300": "the database has no connection left; raise max_connections",
    "42P01": "a table is missing; restart replicator, which creates it",
}
_REFUSALS: Final = (
    (
        "password authentication failed",
        "the password is wrong; check agent.state_password, and that the role exists",
    ),
    ("no password supplied", "the database wants a password; set agent.state_password"),
    (
        "no pg_hba.conf entry",
        "the database does not admit this host, user or encryption; see its pg_hba.conf",
    ),
    ("remaining connection slots", "the database has no connection left; raise max_connections"),
    ("too many clients", "the database has no connection left; raise max_connections"),
    (
        r'FATAL: database ".*" does not exist',
        "the database is missing; create it: CREATE DATABASE ... OWNER ...",
    ),
    (r'FATAL: role ".*" does not exist', "the role is missing; create it: CREATE ROLE ... LOGIN"),
    (
        "Connection refused",
        "no server listens there; start PostgreSQL, or check host and port in agent.state",
    ),
)
"""Patterns of what libpq says when it cannot connect. The first three do not pass by themselves."""


def explain(error: BaseException | None) -> str:
    """What an error means, and what to do about it. Never has a password in it."""
    known = _MEANINGS.get(getattr(error, "sqlstate", None) or "")
    said = " ".join(str(error).split())
    if known is None:
        known = next((advice for words, advice in _REFUSALS if re.search(words, said)), None)
    return said if known is None else f"{known} ({said})"


def may_pass(error: BaseException | None) -> bool:
    """Whether a connection that could not be opened may be opened soon: the server is away or starting, or is full."""
    said = str(error)
    return not any(re.search(words, said) for words, _ in _REFUSALS[:3]) and "does not exist" not in said
