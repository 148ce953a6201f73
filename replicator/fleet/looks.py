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
    "INSERT INTO fleet_looks (rule, tick, source, destinations, cause, shards, remaining)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (rule, tick) DO NOTHING"
)
_COUNT_UP: Final = (
    "UPDATE fleet_looks SET remaining = remaining + 1, shards = shards + 1 WHERE rule = %s AND tick = ANY(%s)"
)
_COUNT: Final = """
WITH piece AS (
  INSERT INTO fleet_pieces (rule, tick, agent, report)
  SELECT rule, tick, %s, %s FROM fleet_looks WHERE rule = %s AND tick = %s)
UPDATE fleet_looks SET remaining = remaining - 1 WHERE rule = %s AND tick = %s RETURNING remaining
"""
_END: Final = (
    "DELETE FROM fleet_looks WHERE rule = %s AND tick = %s"
    " RETURNING source, destinations, cause, shards, extract(epoch FROM at)::float8"
)
_PIECES: Final = "DELETE FROM fleet_pieces WHERE rule = %s AND tick = %s RETURNING agent, report"
_FORGET: Final = (
    "DELETE FROM fleet_looks WHERE at < now() - make_interval(secs => %s)",
    "DELETE FROM fleet_pieces WHERE at < now() - make_interval(secs => %s)",
)


@dataclass(frozen=True, slots=True)
class LookBegun:
    """A look and how many shards it has, counted for destinations that are done together."""

    rule: str
    tick: int
    source: str
    destinations: tuple[str, ...]
    cause: str
    shards: int


@dataclass(frozen=True, slots=True)
class Look:
    """A look that has ended: the report of each of its shards. `started` in epoch seconds by the database's clock."""

    begun: LookBegun
    started: float
    agents: tuple[str, ...]
    reports: Sequence[Mapping[str, Any]]

    @property
    def rule(self) -> str:
        """The rule's name."""
        return self.begun.rule


async def begin(connection: Connection, look: LookBegun) -> None:
    """A look waits for its shards."""
    values = (
        look.rule,
        look.tick,
        look.source,
        list(look.destinations),
        look.cause,
        look.shards,
        look.shards,
    )
    await connection.execute(_BEGIN.encode(), values)


async def count_up(connection: Connection, rule: str, ticks: Collection[int]) -> None:
    """These looks wait for one more piece, which was split off one that they wait for."""
    if ticks:
        await connection.execute(_COUNT_UP.encode(), (rule, sorted(ticks)))


async def count_down(
    connection: Connection, rule: str, tick: int, agent: str, report: Mapping[str, Any]
) -> Look | None:
    """One piece more is through; the look, if it was the last."""
    key = (rule, tick)
    row = await (await connection.execute(_COUNT.encode(), (agent, Jsonb(report), *key, *key))).fetchone()
    if row is None or row[0] > 0:
        return None
    pieces = await (await connection.execute(_PIECES.encode(), key)).fetchall()
    look = await (await connection.execute(_END.encode(), key)).fetchone()
    if look is None:
        return None
    source, destinations, cause, shards, started = look
    begun = LookBegun(rule, tick, source, tuple(destinations), cause, shards)
    agents = tuple(sorted({name for name, _ in pieces}))
    return Look(begun, float(started), agents, [each for _, each in pieces])


async def forget(connection: Connection) -> None:
    """Removes looks that will not end any more."""
    for statement in _FORGET:
        await connection.execute(statement.encode(), (KEPT_SECONDS,))
