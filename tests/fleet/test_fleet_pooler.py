"""Agents whose connections go through PgBouncer, each with a session of its own."""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from psycopg.conninfo import make_conninfo

from replicator.fleet.work import Work
from tests.acceptance.test_state_postgres import pooled
from tests.fleet.agents import LightAgent, joined, until
from tests.fleet.test_fleet_ownership import end_session
from tests.postgres import PASSWORD, Database


async def test_a_fleet_works_behind_a_pooler_that_gives_sessions(shared: str, database: Database) -> None:
    """Work is divided, and an agent whose session ends goes on."""
    agents = [LightAgent("a"), LightAgent("b")]
    with (
        tempfile.TemporaryDirectory(prefix="replicator-pooler-") as name,
        pooled(Path(name), database, "session") as url,
    ):
        async with AsyncExitStack() as stack:
            for agent in agents:
                await stack.enter_async_context(joined(make_conninfo(url, password=PASSWORD), agent))
            await agents[0].fleet.defer(
                [Work("apps", ("fra",), "interval", shard=number, of=64) for number in range(20)]
            )
            await until(lambda: all(len(agent.claims) == 4 for agent in agents))
            end_session(shared, "a")
            await agents[0].claims[0].confirm()
            for agent in agents:
                agent.gate.set()
            await until(lambda: {work.shard for agent in agents for work in agent.did} == set(range(20)))
