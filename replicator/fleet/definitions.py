"""How each rule was last defined in any agent's config. The first agent with another definition has the rule scanned at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from replicator.fleet.connections import Connection

_NOTE: Final = """
INSERT INTO fleet_facts AS known (site, key, value) VALUES ('', %s, jsonb_build_object('identity', %s::text))
ON CONFLICT (site, key) DO UPDATE SET value = excluded.value, at = now()
WHERE known.value <> excluded.value OR known.at < to_timestamp(%s)
RETURNING extract(epoch FROM at)::float8, xmax = 0
"""
_FIND: Final = "SELECT extract(epoch FROM at)::float8 FROM fleet_facts WHERE site = '' AND key = %s"
_FORGET: Final = "DELETE FROM fleet_facts WHERE site = '' AND key = %s AND value = jsonb_build_object('identity', %s::text)"


@dataclass(frozen=True, slots=True)
class Definition:
    """When a rule got its present definition (epoch seconds of the database's clock).

    `is_news`: the last one that an agent noted was another, or was noted too long ago. `is_first`: no agent had noted any
    definition of the rule.
    """

    at: float
    is_news: bool
    is_first: bool = False


async def note(connection: Connection, rule: str, identity: str, *, since: float) -> Definition:
    """Notes how a rule is defined in this agent's config.

    `since`: a definition that was noted before this (epoch seconds of the database's clock) is noted anew, and is news.
    """
    cursor = await connection.execute(_NOTE.encode(), (_key(rule), identity, since))
    row = await cursor.fetchone()
    if row is not None:
        return Definition(row[0], is_news=True, is_first=row[1])
    known = await (await connection.execute(_FIND.encode(), (_key(rule),))).fetchone()
    return Definition(0.0 if known is None else known[0], is_news=False)


async def forget(connection: Connection, rule: str, identity: str) -> None:
    """The rule was removed from this agent's config: if it comes back, it is new."""
    await connection.execute(_FORGET.encode(), (_key(rule), identity))


def _key(rule: str) -> str:
    return f"definition {rule}"
