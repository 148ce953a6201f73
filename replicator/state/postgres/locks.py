"""Who may run at once: advisory locks of the connection that the state is used through.

The server frees a lock when its connection ends, however that ends. So whoever lost the connection has lost the state as
well until it has connected again and taken its locks anew.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import psycopg

from replicator.errors import StateInUse
from replicator.state.place import Claim

_Connection = psycopg.Connection[Any]

GENERATIONS: Final = 0x72706C63
"""First number of the locks whose second is a generation of the program."""


def lock_number(name: str) -> int:
    """The number of the advisory lock of a name."""
    digest = hashlib.blake2b(name.encode(), digest_size=8, person=b"replicator").digest()
    return int.from_bytes(digest, "big", signed=True)


def sessions_of(agent: str) -> int:
    """The lock that all sessions of an agent's state share: others of its fleet know by it what to end if it is silent."""
    return lock_number(f"agent:{agent}")


MIGRATION: Final = lock_number("migration")
_AGENTS: Final = lock_number("agents")
_SYNCS: Final = lock_number("syncs")


def take(connection: _Connection, claim: Claim) -> None:
    """Takes the locks of a claim, for as long as the connection lasts. Waits for nothing.

    Raises:
        StateInUse: somebody else holds what is claimed; says who.
    """
    match claim.kind:
        case "agent":
            _hold(connection, _AGENTS, "the database is in use", "one state is for one agent, or for a fleet")
        case "fleet":
            _hold(
                connection,
                _AGENTS,
                "the database is in use",
                "set [fleet] enabled there as well",
                shared=True,
            )
            _hold(connection, sessions_of(claim.agent), "", "", shared=True)
        case "sync":
            _hold(connection, _SYNCS, "", "", shared=True)
    # Both sides hold their own lock before they look for the other's: of two that start at once, one at least sees it.
    other, advice = (
        (_AGENTS, "ask it: sync --remote URL")
        if claim.kind == "sync"
        else (_SYNCS, "wait until that sync ends")
    )
    if (holder := _holder(connection, other)) is not None:
        raise StateInUse(f"the database is in use by {holder}: {advice}")
    for rule in sorted(set(claim.rules)):
        _hold(connection, lock_number(f"rule:{rule}"), f"rule {rule!r} is being run", "wait until it ends")


def _hold(connection: _Connection, number: int, what: str, advice: str, *, shared: bool = False) -> None:
    function = "pg_try_advisory_lock_shared" if shared else "pg_try_advisory_lock"
    row = connection.execute(f"SELECT {function}(%s)".encode(), (number,)).fetchone()  # one of two names
    if row is None or not row[0]:
        holder = _holder(connection, number) or "another process"
        raise StateInUse(f"{what} by {holder}: {advice}")


def _holder(connection: _Connection, number: int) -> str | None:
    """Who else holds a lock; None where nobody does."""
    row = connection.execute(
        "SELECT activity.application_name, locks.pid FROM pg_locks AS locks "
        "LEFT JOIN pg_stat_activity AS activity USING (pid) "
        "WHERE locks.locktype = 'advisory' AND locks.objsubid = 1 AND locks.granted AND locks.pid <> pg_backend_pid() "
        "AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND locks.classid::bigint = %s AND locks.objid::bigint = %s LIMIT 1",
        (number >> 32 & 0xFFFF_FFFF, number & 0xFFFF_FFFF),
    ).fetchone()
    return None if row is None else f"{row[0] or 'another process'} (its connection is {row[1]})"
