"""A light agent as a process: the real fleet, and a registry that is a table, with a version for each tag.

`python -m tests.fleet.light DSN NAME SEED`. Work on a shard reads the source's version, takes its time, and writes that version
to the destination after it has confirmed its ownership, if the destination still has what it had at first: as a run does.
"""

from __future__ import annotations

import asyncio
import random
import sys

import psycopg

from replicator.errors import OwnershipLostError
from replicator.events import Events
from replicator.fleet.agents import Self
from replicator.fleet.duties import Duties
from replicator.fleet.fleet import Fleet
from replicator.fleet.looks import Look
from replicator.fleet.ownership import Claim
from replicator.fleet.work import Done, Work
from replicator.flow.clock import SystemClock
from tests.fleet.agents import FENCING, QUICK

TABLES = """
CREATE TABLE source (shard int PRIMARY KEY, version int NOT NULL);
CREATE TABLE destination (shard int PRIMARY KEY, version int NOT NULL);
CREATE TABLE written (shard int, version int, before int, agent text, at timestamptz DEFAULT clock_timestamp());
"""


class Light:
    """What the agent does."""

    def __init__(self, dsn: str, name: str, dice: random.Random) -> None:
        self._dsn = dsn
        self._name = name
        self._dice = dice

    async def perform(self, work: Work, claim: Claim) -> Done:
        """Brings one tag in step."""
        async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as registry:
            shard = (work.shard,)
            wanted = await (
                await registry.execute("SELECT version FROM source WHERE shard = %s", shard)
            ).fetchone()
            there = await (
                await registry.execute("SELECT version FROM destination WHERE shard = %s", shard)
            ).fetchone()
            assert wanted is not None
            assert there is not None
            if wanted == there:
                return Done()
            await asyncio.sleep(self._dice.uniform(0.0, 0.3))
            try:
                await claim.confirm()
            except OwnershipLostError:
                return Done(again=work)
            cursor = await registry.execute(
                "WITH old AS (SELECT version FROM destination WHERE shard = %s),"
                " new AS (UPDATE destination SET version = %s WHERE shard = %s AND version = %s RETURNING 1)"
                " INSERT INTO written SELECT %s, %s, old.version, %s FROM old, new",
                (work.shard, wanted[0], work.shard, there[0], work.shard, wanted[0], self._name),
            )
            return Done() if cursor.rowcount else Done(again=work)

    async def look_ended(self, look: Look) -> None:
        """No look has an `after` here."""


async def main(dsn: str, name: str, seed: str, fencing: str) -> None:
    """Works until it is ended. `fencing`: `1` where others are to notice soon that an agent is silent."""
    light = Light(dsn, name, random.Random(seed))
    duties = Duties(
        perform=light.perform,
        places=lambda _: (),
        destinations=lambda: ("fra",),
        look_ended=light.look_ended,
        changed=lambda: None,
    )
    clock = SystemClock()
    me = Self(name, "test", None, clock.now())
    async with Fleet.join(
        dsn, me, duties, jobs=4, events=Events(), clock=clock, times=FENCING if fencing == "1" else QUICK
    ) as fleet:
        fleet.begin()
        print("ready", flush=True)  # noqa: T201  # to the test
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
