"""Which schema a state file has. There are no migrations: a file of another schema is replaced.

The state is only an accelerator, so starting empty costs requests and nothing else.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from sqlalchemy import Connection

from replicator.errors import StateError
from replicator.state.images import CREATE_TEXT
from replicator.state.tables import metadata

APPLICATION_ID: Final = 0x72706C63
"""SQLite's `application_id` ("rplc"): tells our file from another program's database."""

SCHEMA: Final = 7
"""SQLite's `user_version`. Raised whenever the tables change; a test remembers what they looked like."""


class Found(Enum):
    """What a file holds."""

    EMPTY = "nothing yet"
    CURRENT = "today's schema"
    OTHER = "another schema of ours"


def inspect(connection: Connection) -> Found:
    """What the file holds. Changes nothing.

    Called inside a transaction, or the answers may be of two moments.

    Raises:
        StateError: the file is another program's database.
    """
    version = _number(connection, "PRAGMA user_version")
    owner = _number(connection, "PRAGMA application_id")
    tables = _number(connection, "SELECT count(*) FROM sqlite_master")
    if not (owner or version or tables):
        return Found.EMPTY
    if owner != APPLICATION_ID:
        raise StateError("the file is another program's database; configure another path for the state")
    return Found.CURRENT if version == SCHEMA else Found.OTHER


def create(connection: Connection) -> None:
    """Creates the tables in an empty file. Called inside a write transaction, which makes it all or nothing."""
    metadata.create_all(connection)
    connection.exec_driver_sql(CREATE_TEXT)
    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA}")
    connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")


def _number(connection: Connection, statement: str) -> int:
    return int((connection.exec_driver_sql(statement)).scalar_one())
