"""The tables of the newest schema. `migrations` makes them; a test compares the two.

Sites, repositories and rules are interned in `names`, digests are kept as raw bytes and the tables are clustered
by their keys, so that a tag in step costs well under a hundred bytes.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    Dialect,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.types import TypeEngine

from replicator.model.digest import Digest, encoded

_ALGORITHMS: Final = {32: "sha256", 64: "sha512"}
"""`model.digest` knows these two, and the length tells them apart."""


class _DigestBytes(TypeDecorator[Digest]):
    """A digest as its raw bytes."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Digest | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002  SQLAlchemy's
        return None if value is None else bytes.fromhex(encoded(value))

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> Digest | None:  # noqa: ARG002  SQLAlchemy's
        if value is None:
            return None
        if len(value) not in _ALGORITHMS:
            raise ValueError(f"a digest of {len(value)} bytes")
        return Digest(f"{_ALGORITHMS[len(value)]}:{value.hex()}")


metadata: Final = MetaData()
_Kind = type[TypeEngine[Any]]


def _key(name: str, kind: _Kind = Integer) -> Column[Any]:
    return Column(name, kind, primary_key=True, nullable=False, autoincrement=False)


def _value(name: str, kind: _Kind, *, nullable: bool = False) -> Column[Any]:
    return Column(name, kind, nullable=nullable)


names: Final = Table(
    "names",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)
"""Sites, repositories and rules by number. Never changed nor removed, so numbers may be cached."""

beliefs: Final = Table(
    "beliefs",
    metadata,
    _key("destination"),
    _key("repository"),
    _key("tag", Text),
    _value("digest", _DigestBytes),
    _value("source_digest", _DigestBytes),
    _value("rule", Integer),
    _value("checked_at", Float),
    _value("asked_at", Float),
    sqlite_with_rowid=False,
)

pending: Final = Table(
    "pending",
    metadata,
    _key("rule"),
    _key("destination"),
    _key("repository"),
    _key("tag", Text),
    _value("digest", _DigestBytes, nullable=True),
    _value("since", Float),
    _value("attempts", Integer),
    _value("error", Text),
    _value("reason", Text),
    _value("not_before", Float),
    _value("source", Text),
    _value("asked_at", Float),
    sqlite_with_rowid=False,
)

repositories: Final = Table(
    "repositories", metadata, _key("site"), _key("repository"), sqlite_with_rowid=False
)
"""Where we ever put or saw something."""

whereabouts: Final = Table(
    "whereabouts",
    metadata,
    _key("site"),
    _key("digest", _DigestBytes),
    _key("repository"),
    _value("seen_at", Float),
    sqlite_with_rowid=False,
)

created: Final = Table(
    "created", metadata, _key("digest", _DigestBytes), _value("at", Float), sqlite_with_rowid=False
)

listed: Final = Table(
    "listed",
    metadata,
    _key("site"),
    _key("repository"),
    _key("tag", Text),
    _value("digest", _DigestBytes),
    _value("version", Text),
    sqlite_with_rowid=False,
)
"""What listings with digests said."""

standings: Final = Table(
    "standings",
    metadata,
    _key("rule"),
    _key("destination"),
    _value("first_seen", Float),
    _value("last_look", Float, nullable=True),
    _value("last_success", Float, nullable=True),
    _value("in_step", Integer),
    _value("held", Integer),
    _value("last_error", Text),
    sqlite_with_rowid=False,
)
"""`pending` counts the rest."""

runs: Final = Table(
    "runs",
    metadata,
    _key("rule"),
    _key("destination"),
    _key("started_at", Float),
    _value("ended_at", Float),
    _value("outcome", Text),
    _value("complete_look", Boolean),
    _value("in_step", Integer),
    _value("held", Integer),
    _value("failed", Integer),
    _value("error", Text),
    _value("narrowed", Boolean),
    sqlite_with_rowid=False,
)

paused: Final = Table("paused", metadata, _key("rule", Text), sqlite_with_rowid=False)
"""Rules that an agent does not run until they are resumed."""

told: Final = Table(
    "told",
    metadata,
    _key("receiver", Text),
    _key("rule", Text),
    _key("destination", Text),
    _key("condition", Text),
    sqlite_with_rowid=False,
)
"""What receivers of notifications know of: conditions that hold until they are told the end of it."""
