"""Where a state is: a file of SQLite, or a database of PostgreSQL. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec

EXTRA: Final = "PostgreSQL needs an extra: pip install 'replicator[postgres]'"
"""What to say where psycopg is not installed."""
LIBPQ_OPTIONS: Final = (
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "channel_binding",
    "target_session_attrs",
)
"""Parameters of libpq that a URL may have; https://www.postgresql.org/docs/current/libpq-connect.html, 34.1.2."""
_EXAMPLE: Final = 'write "postgresql://replicator@db.example.com/replicator"'


@dataclass(frozen=True, slots=True)
class PostgresPlace:
    """A database. `url` is libpq's, without a password; `password` reads it whenever a connection is opened.

    Without `password`, libpq takes what its own environment has, such as `~/.pgpass`.
    """

    url: str
    password: Callable[[], str] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """The URL without its parameters, for messages."""
        return self.url.partition("?")[0]


Place = Path | PostgresPlace
"""A path is that of SQLite's file."""


class Claim(msgspec.Struct, frozen=True):
    """What a process wants of a state for itself.

    `agent`: all of it. `fleet`: all of it together with the other agents of the fleet, which divide the work; they end the
    sessions of an `agent` that is silent. `sync`: these rules; others may run other rules.
    """

    kind: Literal["agent", "fleet", "sync"]
    rules: tuple[str, ...] = ()
    agent: str = ""


def parse_postgres(text: str) -> str:
    """A URL of PostgreSQL as libpq takes it. Raises ValueError, never with a password in its text."""
    try:
        parts = urlsplit(text)
        has_password = parts.password is not None
    except ValueError:
        raise ValueError(f"is not a URL; {_EXAMPLE}") from None
    query = parse_qsl(parts.query, keep_blank_values=True)
    if has_password or any(name == "password" for name, _ in query):
        raise ValueError('must not contain a password; set state_password = { file = "PATH" } instead')
    if not parts.path.strip("/") or "/" in parts.path.strip("/") or not parts.netloc:
        raise ValueError(f"must name a host and a database; {_EXAMPLE}")
    unknown = sorted({name for name, _ in query} - set(LIBPQ_OPTIONS))
    if unknown:
        raise ValueError(f"unknown parameter {unknown[0]!r}; known are {', '.join(LIBPQ_OPTIONS)}")
    return text
