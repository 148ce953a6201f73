"""Looks at a rule whose shards are done by several agents: the last one to end knows that it is the last."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg.types.json import Jsonb

from replicator.fleet.connections import Connection

KEPT_SECONDS: Final = 86_400.0
"""A look whose shards were lost is forgotten after this."""

_BEGIN: Final = (
    "INSERT INTO fleet_looks (rule, tick, remaining) VALUES (%s, %s, %s) ON CONFLICT (rule, tick) DO NOTHING"
)
_COUNT_UP: Final = "UPDATE fleet_looks SET remaining = remaining + 1 WHERE rule = %s AND tick = ANY(%s)"
_COUNT: Final = (
    "UPDATE fleet_looks SET remaining = remaining - 1, results = results || %s WHERE rule = %s AND tick = %s"
    " RETURNING remaining, results"
)
_FORGET: Final = "DELETE FROM fleet_looks WHERE at < now() - make_interval(secs => %s)"


@dataclass(frozen=True, slots=True)
class Look:
    """A look that has ended: the report of each of its shards."""

    rule: str
    tick: int
    reports: Sequence[Mapping[str, Any]]


async def begin(connection: Connection, rule: str, tick: int, shards: int) -> None:
    """A look waits for this many shards."""
    await connection.execute(_BEGIN.encode(), (rule, tick, shards))


async def count_up(connection: Connection, rule: str, ticks: Collection[int]) -> None:
    """These looks wait for one more piece, which was split off one that they wait for."""
    if ticks:
        await connection.execute(_COUNT_UP.encode(), (rule, sorted(ticks)))


async def count_down(connection: Connection, rule: str, tick: int, report: Mapping[str, Any]) -> Look | None:
    """One piece more is through; the look, if it was the last."""
    cursor = await connection.execute(_COUNT.encode(), (Jsonb([report]), rule, tick))
    row = await cursor.fetchone()
    if row is None or row[0] > 0:
        return None
    await connection.execute(b"DELETE FROM fleet_looks WHERE rule = %s AND tick = %s", (rule, tick))
    return Look(rule, tick, row[1])


async def forget(connection: Connection) -> None:
    """Removes looks that will not end any more."""
    await connection.execute(_FORGET.encode(), (KEPT_SECONDS,))
