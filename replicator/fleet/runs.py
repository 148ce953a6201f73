"""The fleet's runs in the database: what has ended, in bounded number, and what is in progress."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from psycopg.types.json import Jsonb

from replicator.fleet.connections import Connection
from replicator.fleet.history import OpenLook, PastRun, look_id

RUNS_KEPT: Final = 1_000
"""Of all rules together; older ones are removed."""
_MAY_BE_LATE: Final = 20
"""A row with a lower number may be committed later, so this many rows are read again."""

_INSERT: Final = "INSERT INTO fleet_runs (run, report) SELECT * FROM unnest(%s::jsonb[], %s::jsonb[])"
_PRUNE: Final = "DELETE FROM fleet_runs WHERE number <= (SELECT max(number) FROM fleet_runs) - %s"
_SINCE: Final = "SELECT number, run FROM fleet_runs WHERE number > %s ORDER BY number DESC LIMIT %s"
_REPORT: Final = "SELECT report FROM fleet_runs WHERE run->>'id' = %s"
_LOOKS: Final = (
    "SELECT rule, source, destinations, cause, shards, shards - remaining, extract(epoch FROM at)::float8"
    " FROM fleet_looks ORDER BY at LIMIT %s"
)


async def keep(connection: Connection, runs: Sequence[PastRun]) -> None:
    """Writes runs that have ended."""
    plain = [msgspec.to_builtins(msgspec.structs.replace(run, report=None)) for run in runs]
    reports = [None if run.report is None else Jsonb(run.report) for run in runs]
    await connection.execute(_INSERT.encode(), ([Jsonb(each) for each in plain], reports))
    await connection.execute(_PRUNE.encode(), (RUNS_KEPT,))


async def since(connection: Connection, number: int) -> dict[int, PastRun]:
    """Runs without their reports, written after that number, and the last few before it. Skips those of another version."""
    cursor = await connection.execute(_SINCE.encode(), (number - _MAY_BE_LATE, RUNS_KEPT))
    found: dict[int, PastRun] = {}
    for at, run in await cursor.fetchall():
        try:
            found[at] = msgspec.convert(run, PastRun)
        except msgspec.ValidationError:
            continue
    return found


async def report(connection: Connection, run_id: str) -> dict[str, Any] | None:
    """The report of a run, None if it is not known any more."""
    row = await (await connection.execute(_REPORT.encode(), (run_id,))).fetchone()
    return None if row is None else row[0]


async def open_looks(connection: Connection) -> list[OpenLook]:
    """Looks in progress, in the order they began."""
    rows = await (await connection.execute(_LOOKS.encode(), (RUNS_KEPT,))).fetchall()
    return [
        OpenLook(look_id(rule, at), rule, source, tuple(destinations), cause, shards, through, at)
        for rule, source, destinations, cause, shards, through, at in rows
    ]
