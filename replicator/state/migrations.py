"""How a state file gets its schema, and from an older one to today's.

The version is SQLite's `user_version`: how many of `STEPS` a file has seen. A step, once released, is never
changed; a new schema is a new step at the end, with `tables` following.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from replicator.errors import StateError

APPLICATION_ID: Final = 0x72706C63
"""SQLite's `application_id` ("rplc"): tells our file from another program's database."""

STEPS: tuple[str, ...] = (
    """
    CREATE TABLE names (id INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE beliefs (
        destination INTEGER NOT NULL, repository INTEGER NOT NULL, tag TEXT NOT NULL,
        digest BLOB NOT NULL, source_digest BLOB NOT NULL, rule INTEGER NOT NULL,
        checked_at FLOAT NOT NULL, asked_at FLOAT NOT NULL,
        PRIMARY KEY (destination, repository, tag)
    ) WITHOUT ROWID;
    CREATE TABLE pending (
        rule INTEGER NOT NULL, destination INTEGER NOT NULL, repository INTEGER NOT NULL, tag TEXT NOT NULL,
        digest BLOB, since FLOAT NOT NULL, attempts INTEGER NOT NULL,
        error TEXT NOT NULL, reason TEXT NOT NULL, not_before FLOAT NOT NULL,
        source TEXT NOT NULL, asked_at FLOAT NOT NULL,
        PRIMARY KEY (rule, destination, repository, tag)
    ) WITHOUT ROWID;
    CREATE TABLE repositories (
        site INTEGER NOT NULL, repository INTEGER NOT NULL,
        PRIMARY KEY (site, repository)
    ) WITHOUT ROWID;
    CREATE TABLE whereabouts (
        site INTEGER NOT NULL, digest BLOB NOT NULL, repository INTEGER NOT NULL, seen_at FLOAT NOT NULL,
        PRIMARY KEY (site, digest, repository)
    ) WITHOUT ROWID;
    CREATE TABLE created (digest BLOB NOT NULL PRIMARY KEY, at FLOAT NOT NULL) WITHOUT ROWID;
    CREATE TABLE standings (
        rule INTEGER NOT NULL, destination INTEGER NOT NULL, first_seen FLOAT NOT NULL,
        last_look FLOAT, last_success FLOAT, in_step INTEGER NOT NULL, held INTEGER NOT NULL,
        last_error TEXT NOT NULL,
        PRIMARY KEY (rule, destination)
    ) WITHOUT ROWID;
    CREATE TABLE runs (
        rule INTEGER NOT NULL, destination INTEGER NOT NULL, started_at FLOAT NOT NULL, ended_at FLOAT NOT NULL,
        outcome TEXT NOT NULL, complete_look BOOLEAN NOT NULL,
        in_step INTEGER NOT NULL, held INTEGER NOT NULL, failed INTEGER NOT NULL, error TEXT NOT NULL,
        PRIMARY KEY (rule, destination, started_at)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE listed (
        site INTEGER NOT NULL, repository INTEGER NOT NULL, tag TEXT NOT NULL,
        digest BLOB NOT NULL, version TEXT NOT NULL,
        PRIMARY KEY (site, repository, tag)
    ) WITHOUT ROWID;
    ALTER TABLE runs ADD COLUMN narrowed BOOLEAN NOT NULL DEFAULT 0
    """,
    """
    CREATE TABLE paused (rule TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE told (
        receiver TEXT NOT NULL, rule TEXT NOT NULL, destination TEXT NOT NULL, condition TEXT NOT NULL,
        PRIMARY KEY (receiver, rule, destination, condition)
    ) WITHOUT ROWID
    """,
)
"""Statements parted by semicolons; executed one by one, as a script would end the transaction."""


def is_current(connection: Connection) -> bool:
    """Whether the file has today's schema; False for an older one and an empty file. Changes nothing.

    Called inside a transaction, or the answers may be of two moments.

    Raises:
        StateError: the file is another program's, or from a newer version of this one.
    """
    version = _number(connection, "PRAGMA user_version")
    owner = _number(connection, "PRAGMA application_id")
    tables = _number(connection, "SELECT count(*) FROM sqlite_master")
    if owner != APPLICATION_ID and (tables or owner or version):
        raise StateError("the file is another program's database; give another path for the state")
    if version > len(STEPS):
        raise StateError(
            f"written by a newer replicator (schema {version}, this one knows {len(STEPS)}):"
            " use that version, or move the file away; the state is only an accelerator"
        )
    return version == len(STEPS)


def migrate(connection: Connection) -> None:
    """Takes the schema to today's. Called inside a write transaction, which makes it all or nothing.

    Raises:
        StateError: as `is_current`; another process may have been here since the caller asked.
    """
    if is_current(connection):
        return
    for step in STEPS[_number(connection, "PRAGMA user_version") :]:
        for statement in step.split(";"):
            connection.exec_driver_sql(statement)
    connection.exec_driver_sql(f"PRAGMA user_version = {len(STEPS)}")
    connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")


def _number(connection: Connection, statement: str) -> int:
    return int((connection.exec_driver_sql(statement)).scalar_one())
