"""Destinations at which whole looks failed, by rule: what all agents have to know so that none tries too early."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from replicator.fleet.connections import Connection

_NOTE: Final = """
INSERT INTO fleet_facts AS known (site, key, value) VALUES (%s, %s, jsonb_build_object('failures', 1, 'tick', %s::bigint))
ON CONFLICT (site, key) DO UPDATE SET at = now(), value = jsonb_build_object(
  'failures', (known.value->>'failures')::int + CASE WHEN known.value->'tick' = excluded.value->'tick' THEN 0 ELSE 1 END,
  'tick', excluded.value->'tick')
"""
_FIND: Final = """
SELECT site, (value->>'failures')::int, extract(epoch FROM now() - at)::float8 FROM fleet_facts WHERE key = %s
"""
_FORGET: Final = "DELETE FROM fleet_facts WHERE key = %s AND site = %s"
_FORGET_THE_OLD: Final = (
    "DELETE FROM fleet_facts WHERE key LIKE 'failures %%' AND at < now() - make_interval(secs => %s)"
)
KEPT_SECONDS: Final = 7 * 86_400.0
"""How long a failure is known that nothing came after: longer than any look waits for it to pass."""


async def note(connection: Connection, rule: str, site: str, tick: int) -> None:
    """A shard of the look at this tick failed as a whole; several shards of one look count once."""
    await connection.execute(_NOTE.encode(), (site, _key(rule), tick))


async def find(connection: Connection, rule: str) -> Mapping[str, tuple[int, float]]:
    """By destination, how many looks in a row failed, and how many seconds ago the last one did."""
    cursor = await connection.execute(_FIND.encode(), (_key(rule),))
    return {site: (failures, ago) for site, failures, ago in await cursor.fetchall()}


async def forget(connection: Connection, rule: str, site: str) -> None:
    """It does not fail any more."""
    await connection.execute(_FORGET.encode(), (_key(rule), site))


async def forget_the_old(connection: Connection) -> None:
    """Forgets what was noted of rules and destinations that are not in the config any more."""
    await connection.execute(_FORGET_THE_OLD.encode(), (KEPT_SECONDS,))


def _key(rule: str) -> str:
    return f"failures {rule}"
