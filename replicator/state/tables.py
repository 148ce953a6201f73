"""The tables. `schema` creates them.

Sites, repositories and rules are interned in `names`, digests are kept as raw bytes and the tables are clustered
by their keys, so that a tag in step costs well under a hundred bytes.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.types import TypeEngine

from replicator.model.digest import Digest, encoded
from replicator.state.dialect import POSTGRESQL

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
_Kind = type[TypeEngine[Any]] | TypeEngine[Any]

_Text: Final = Text().with_variant(Text(collation="C"), POSTGRESQL)
"""Text in the order of its bytes, as SQLite has it: PostgreSQL would sort as its locale does."""


def _key(name: str, kind: _Kind = Integer) -> Column[Any]:
    return Column(name, kind, primary_key=True, nullable=False, autoincrement=False)


def _value(name: str, kind: _Kind, *, nullable: bool = False) -> Column[Any]:
    return Column(name, kind, nullable=nullable)


names: Final = Table(
    "names",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", _Text, nullable=False, unique=True),
)
"""Sites, repositories and rules by number. Never changed nor removed, so numbers may be cached."""

beliefs: Final = Table(
    "beliefs",
    metadata,
    _key("destination"),
    _key("repository"),
    _key("tag", _Text),
    _value("digest", _DigestBytes),
    _value("source_digest", _DigestBytes),
    _value("rule", Integer),
    _value("checked_at", Float),
    _value("asked_at", Float),
    _value("companions", _Text),
    Index("beliefs_by_digest", "destination", "repository", "digest"),
    sqlite_with_rowid=False,
)

placements: Final = Table(
    "placements",
    metadata,
    _key("destination"),
    _key("repository"),
    _key("digest", _DigestBytes),
    _value("fingerprint", _Text),
    _value("written_at", Float),
    _value("verified_at", Float),
    sqlite_with_rowid=False,
)

pending: Final = Table(
    "pending",
    metadata,
    _key("rule"),
    _key("destination"),
    _key("repository"),
    _key("tag", _Text),
    _value("digest", _DigestBytes, nullable=True),
    _value("since", Float),
    _value("attempts", Integer),
    _value("error", _Text),
    _value("reason", _Text),
    _value("not_before", Float),
    _value("source", _Text),
    _value("asked_at", Float),
    _value("hold", _Text),
    sqlite_with_rowid=False,
)

units: Final = Table(
    "units",
    metadata,
    _key("rule"),
    _key("destination"),
    _key("repository"),
    _value("target", _Text),
    _value("source_complete_at", Float, nullable=True),
    _value("destination_complete_at", Float, nullable=True),
    _value("in_step", Integer),
    _value("held", Integer),
    _value("unknown", Integer),
    _value("error", _Text),
    _value("asked_at", Float),
    sqlite_with_rowid=False,
)

events: Final = Table(
    "events",
    metadata,
    _key("site", _Text),
    _key("repository", _Text),
    _key("tag", _Text),
    _value("id", _Text),
    _value("digest", _Text, nullable=True),
    _value("at", Float),
    _value("accepted_at", Float),
    Index("events_by_id", "id", unique=True),
    sqlite_with_rowid=False,
)
"""What was accepted and not answered yet; the empty text stands for any repository or tag."""

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
    "created",
    metadata,
    _key("digest", _DigestBytes),
    _value("at", Float),
    _value("used_at", Float),
    sqlite_with_rowid=False,
)

listed: Final = Table(
    "listed",
    metadata,
    _key("site"),
    _key("repository"),
    _key("tag", _Text),
    _value("digest", _DigestBytes),
    _value("version", _Text),
    sqlite_with_rowid=False,
)
"""What listings with digests said."""

refusals: Final = Table(
    "refusals",
    metadata,
    _key("site"),
    _key("repository", _Text),
    _value("at", Float),
    _value("cause", _Text),
    sqlite_with_rowid=False,
)
"""When sites last refused to list tags with digests; the empty text stands for all repositories."""

standings: Final = Table(
    "standings",
    metadata,
    _key("rule"),
    _key("destination"),
    _value("first_seen", Float),
    _value("catalog_at", Float, nullable=True),
    _value("last_look", Float, nullable=True),
    _value("last_success", Float, nullable=True),
    _value("in_step", Integer),
    _value("held", Integer),
    _value("last_error", _Text),
    sqlite_with_rowid=False,
)
"""`units` and `pending` count the rest."""

shards: Final = Table(
    "shards",
    metadata,
    _key("rule"),
    _key("destination"),
    _key("of"),
    _key("shard"),
    _value("catalog_at", Float, nullable=True),
    _value("ended_at", Float),
    _value("is_ok", Boolean),
    _value("error", _Text),
    sqlite_with_rowid=False,
)
"""The last run of each shard of a rule that a fleet looks at: `of` is how many there are."""

runs: Final = Table(
    "runs",
    metadata,
    _key("rule"),
    _key("destination"),
    _key("started_at", Float),
    _value("ended_at", Float),
    _value("outcome", _Text),
    _value("complete_look", Boolean),
    _value("in_step", Integer),
    _value("held", Integer),
    _value("failed", Integer),
    _value("error", _Text),
    _value("narrowed", Boolean),
    sqlite_with_rowid=False,
)

swept: Final = Table("swept", metadata, _key("what", _Text), _value("at", Float), sqlite_with_rowid=False)
"""When what nobody uses any more was last thrown away."""

paused: Final = Table("paused", metadata, _key("rule", _Text), sqlite_with_rowid=False)
"""Rules that an agent does not run until they are resumed."""

told: Final = Table(
    "told",
    metadata,
    _key("receiver", _Text),
    _key("rule", _Text),
    _key("destination", _Text),
    _key("condition", _Text),
    sqlite_with_rowid=False,
)
"""What receivers of notifications know of: conditions that hold until they are told the end of it."""

images: Final = Table(
    "images",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", _DigestBytes, nullable=False, unique=True),
    _value("created", Float, nullable=True),
    _value("artifact_type", _Text),
    _value("platforms", _Text),
    _value("labels", _Text),
    _value("annotations", _Text),
    _value("size", BigInteger),
)
"""What is known of images by their root digest. Words of labels and annotations are found in `image_text`, which each database has in its own way."""

image_layers: Final = Table(
    "image_layers",
    metadata,
    _key("layer", _DigestBytes),
    _key("image"),
    _value("size", BigInteger),
    Index("layers_by_image", "image"),
    sqlite_with_rowid=False,
)

moves: Final = Table(
    "moves",
    metadata,
    _key("destination"),
    _key("repository"),
    _key("tag", _Text),
    _key("at", Float),
    _value("digest", _DigestBytes),
    sqlite_with_rowid=False,
)
"""What tags of destinations have named, and since when."""
