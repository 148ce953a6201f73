"""Which schema a state file has. Nothing is migrated: a file of another schema is replaced.

The state is only an accelerator, so starting empty costs requests and nothing else.
"""

from __future__ import annotations

import struct
from enum import Enum
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from replicator.errors import StateError
from replicator.state.dialect import CREATE_WORDS
from replicator.state.tables import metadata

APPLICATION_ID: Final = 0x72706C63
"""SQLite's `application_id` ("rplc"): tells our file from another program's database."""

SCHEMA: Final = 12
"""SQLite's `user_version`. Raised whenever the tables change; a test remembers what they looked like."""

_MAGIC: Final = b"SQLite format 3\0"
_HEAD: Final = struct.Struct(">16s44xI4xI")
"""What it begins with, then `user_version` at byte 60 and `application_id` at byte 68."""


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


def says_other_schema(path: Path) -> bool:
    """Whether the file's own first bytes say that it is ours, of another schema. False where they cannot be read.

    Asked before SQLite opens it: who closes a database deletes the files beside it by their names, and if another
    process has replaced the file meanwhile, these are the new file's (https://www.sqlite.org/howtocorrupt.html, 1.4).
    The numbers are at fixed places (https://www.sqlite.org/fileformat2.html, section 1.3).
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD.size)
        magic, version, owner = _HEAD.unpack(head)
    except (OSError, struct.error):
        return False
    return bool(magic == _MAGIC and owner == APPLICATION_ID and version != SCHEMA)


def create(connection: Connection) -> None:
    """Creates the tables in an empty file. Called inside a write transaction, which makes it all or nothing."""
    metadata.create_all(connection)
    connection.exec_driver_sql(CREATE_WORDS)
    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA}")
    connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")


def _number(connection: Connection, statement: str) -> int:
    return int((connection.exec_driver_sql(statement)).scalar_one())
