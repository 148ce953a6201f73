"""The queue's connections: who waits for one can be cancelled at any moment."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from psycopg_pool import AsyncConnectionPool

from replicator.fleet.connections import POOL_SIZE, connector
from tests.postgres import Database

STEPS = 20
"""Turns of the event loop until who waits has got a connection that was given back: more than it takes."""


async def test_a_cancellation_counts_when_it_comes_with_the_connection(database: Database) -> None:
    """An agent that stops would wait for a task that goes on for ever."""
    queue = connector(database.dsn)
    await queue.open_async()
    try:
        for step in range(STEPS):
            await cancelled_after(queue.pool, step)
        async with AsyncExitStack() as stack, asyncio.timeout(30):
            for _ in range(POOL_SIZE[1]):  # none was lost
                await stack.enter_async_context(queue.pool.connection())
    finally:
        await queue.close_async()


async def cancelled_after(pool: AsyncConnectionPool, steps: int) -> None:
    """Cancels who waits for a connection so many turns of the event loop after there is one."""

    async def wait() -> None:
        async with pool.connection():
            await asyncio.sleep(0)
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    async with AsyncExitStack() as stack:
        for _ in range(POOL_SIZE[1]):
            await stack.enter_async_context(pool.connection())
        waiting = asyncio.get_running_loop().create_task(wait())
        while not pool.get_stats().get("requests_waiting"):  # noqa: ASYNC110
            await asyncio.sleep(0)
    for _ in range(steps):
        await asyncio.sleep(0)
    waiting.cancel()
    done, _ = await asyncio.wait({waiting}, timeout=10)
    assert done, steps
    assert waiting.cancelled()
