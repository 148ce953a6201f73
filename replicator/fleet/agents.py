"""The agents of a fleet: each writes down that it lives, and reads who else does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from psycopg.types.json import Jsonb

from replicator.fleet.connections import as_state_error, connect
from replicator.fleet.roster import Agent, Doing, Roster
from replicator.fleet.session import Session, presence
from replicator.state.postgres.locks import sessions_of

_log = logging.getLogger(__name__)

KEPT_SECONDS: Final = 86_400.0
"""How long an agent that went without a word is still listed."""

_BEAT: Final = """
INSERT INTO fleet_agents AS known
  (name, version, serves, sites, heartbeat, started, draining, doing, clock_skew)
VALUES (%s, %s, %s, %s, now(), to_timestamp(%s), false, %s, %s)
ON CONFLICT (name) DO UPDATE SET
  version = excluded.version, serves = excluded.serves, sites = excluded.sites, heartbeat = now(),
  draining = known.draining AND known.started = excluded.started, started = excluded.started,
  doing = excluded.doing, clock_skew = excluded.clock_skew
RETURNING draining, extract(epoch FROM now())::float8
"""
_LIST: Final = """
SELECT name, version, serves, sites, extract(epoch FROM now() - heartbeat)::float8,
  extract(epoch FROM started)::float8, draining, doing, clock_skew, extract(epoch FROM now())::float8
FROM fleet_agents ORDER BY name COLLATE "C"
"""
_SILENT_SESSIONS: Final = """
WITH held AS (
  SELECT pid, classid::bigint << 32 | objid::bigint AS lock FROM pg_locks
  WHERE locktype = 'advisory' AND granted AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
SELECT DISTINCT pid, job.id
FROM held JOIN pg_stat_activity AS session USING (pid)
  LEFT JOIN held AS owned USING (pid)
  LEFT JOIN procrastinate_jobs AS job ON job.status = 'doing' AND hashtextextended(job.lock, 0) = owned.lock
WHERE (held.lock = ANY(%s) OR held.lock IN (SELECT hashtextextended(name, 0) FROM unnest(%s::text[]) AS name))
  AND session.backend_start < now() - make_interval(secs => %s) AND pid <> pg_backend_pid()
"""
_OWNERLESS: Final = """
SELECT job.id FROM procrastinate_jobs job
WHERE job.status = 'doing' AND job.lock IS NOT NULL AND NOT EXISTS (
  SELECT 1 FROM pg_locks held
  WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
    AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (held.classid::bigint << 32 | held.objid::bigint) = hashtextextended(job.lock, 0))
"""
_END: Final = "SELECT pg_terminate_backend(pid, %s) FROM unnest(%s::int[]) AS pid"
_END_MS: Final = 1_000
"""How long the end of a session is waited for; it takes a few milliseconds."""


@dataclass(slots=True)
class Self:
    """What this agent writes about itself; `sites` and `doing` change."""

    name: str
    version: str
    serves: tuple[str, ...] | None
    started: float
    sites: Collection[str] = ()
    doing: Sequence[Doing] = field(default_factory=tuple)
    clock_skew: float = 0.0


async def beat(session: Session, me: Self) -> tuple[bool, float]:
    """Writes that it lives. Returns whether it is to drain, and the database's time. Raises StateError."""
    ((draining, now),) = await session.fetch(
        _BEAT,
        me.name,
        me.version,
        None if me.serves is None else sorted(me.serves),
        sorted(me.sites),
        me.started,
        Jsonb(msgspec.to_builtins(me.doing)),
        me.clock_skew,
    )
    return bool(draining), float(now)


async def agents(session: Session) -> list[Agent]:
    """All agents that are written down, by name. Raises StateError."""
    return [read(row) for row in await session.fetch(_LIST)]


def read(row: Sequence[Any]) -> Agent:
    """An agent from a row of `LIST`."""
    name, version, serves, sites, silent, started, draining, doing, skew, now = row
    return Agent(
        name,
        version,
        None if serves is None else tuple(serves),
        tuple(sites or ()),
        float(silent),
        float(started),
        bool(draining),
        _doing(doing),
        float(skew or 0.0),
        float(now),
    )


def _doing(plain: Any) -> tuple[Doing, ...]:
    """What an agent does; of one of another version, what can be read."""
    try:
        return msgspec.convert(plain, tuple[Doing, ...])
    except msgspec.ValidationError:
        return ()


async def roster(dsn: str, dead: float, now: Callable[[], float]) -> Roster:
    """All agents, for who is none of them: `dead` and `now` as in `Roster`. Raises StateError."""
    with as_state_error("list the agents"):
        async with await connect(dsn, "replicator fleet") as connection:
            cursor = await connection.execute(_LIST.encode())
            rows = await cursor.fetchall()
            return Roster(tuple(map(read, rows)), now(), dead)


async def set_draining(dsn: str, name: str, *, draining: bool) -> bool:
    """Asks an agent to take no more work, or to take some again. False: there is none of this name. Raises StateError."""
    with as_state_error("drain an agent"):
        async with await connect(dsn, "replicator fleet") as connection:
            cursor = await connection.execute(
                b"UPDATE fleet_agents SET draining = %s WHERE name = %s", (draining, name)
            )
            return cursor.rowcount > 0


async def end_sessions(session: Session, dead: Collection[str], age: float) -> frozenset[int]:
    """Ends the sessions of agents that say nothing any more: what they own is free, and rows that their state has locked.

    Sessions younger than `age` (seconds) are left: such an agent has just come back. Returns the numbers of the jobs that the
    ended sessions owned. Raises StateError.
    """
    if not dead:
        return frozenset()
    states = [sessions_of(name) for name in dead]
    found = await session.fetch(_SILENT_SESSIONS, states, [presence(name) for name in dead], age)
    if pids := sorted({pid for pid, _ in found}):
        _log.warning("ending %d sessions of agents that are silent: %s", len(pids), ", ".join(dead))
        await session.fetch(_END, _END_MS, pids)
    return frozenset(job for _, job in found if job is not None)


async def ownerless(session: Session) -> frozenset[int]:
    """Jobs in progress that no session owns; one that was just fetched is among them for a moment. Raises StateError."""
    return frozenset(row[0] for row in await session.fetch(_OWNERLESS))


async def leave(session: Session, name: str) -> None:
    """Removes the agent, which stops. Raises StateError."""
    await session.fetch("DELETE FROM fleet_agents WHERE name = %s", name)


async def forget_the_dead(session: Session) -> None:
    """Removes those who went long ago. Raises StateError."""
    await session.fetch(
        "DELETE FROM fleet_agents WHERE heartbeat < now() - make_interval(secs => %s)", KEPT_SECONDS
    )


def shares(me: str, living: Sequence[Agent], sites: Collection[str]) -> Mapping[str, float]:
    """By site, this agent's part of the site's limits: divided among those who have work with it now."""
    return {
        site: 1.0 / max(1, len({each.name for each in living if site in each.sites} | {me})) for site in sites
    }


def orphans(living: Sequence[Agent], sites: Collection[str]) -> frozenset[str]:
    """The destinations that nobody serves."""
    return frozenset(site for site in sites if not any(each.has(site) for each in living))
