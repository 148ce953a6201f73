"""Requests count where they were caused, also where runs and destinations work side by side."""

from __future__ import annotations

import asyncio

from replicator.engine.accounting import count_request, counted
from replicator.engine.result import Totals
from replicator.events import BytesRead, Events, RequestDone, RetryPlanned


async def test_what_is_begun_inside_counts_there_and_nowhere_else() -> None:
    events = Events()
    events.subscribe(count_request)
    both_there = asyncio.Barrier(2)

    async def ask(times: int) -> None:
        await both_there.wait()
        for _ in range(times):
            events.emit(RequestDone("hub", "ping", "200", 0.1))
            await asyncio.sleep(0)

    async def run(totals: Totals, times: int) -> None:
        with counted(totals):
            await asyncio.create_task(ask(times))

    one, other = Totals(), Totals()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run(one, 3))
        tasks.create_task(run(other, 5))
    events.emit(RequestDone("hub", "ping", "200", 0.1))
    assert (one.requests, other.requests) == (3, 5)


async def test_a_destinations_requests_are_its_runs_too() -> None:
    events = Events()
    events.subscribe(count_request)
    run, destination = Totals(), Totals()
    with counted(run):
        events.emit(RequestDone("hub", "list tags", "200", 0.1))
        with counted(destination):
            events.emit(RequestDone("fra", "list tags", "503", 0.1))
            events.emit(RetryPlanned("fra", "list tags", "unavailable", 1.0))
            events.emit(BytesRead("hub", 5))
    assert (run.requests, run.retries) == (2, 1)
    assert (destination.requests, destination.retries) == (1, 1)
