"""How many repositories a scan looks at side by side."""

from __future__ import annotations

import asyncio

from replicator.engine.observe.room import (
    LARGE_REPOSITORIES_AT_ONCE,
    REPOSITORIES_AT_ONCE,
    TAGS_IN_HAND,
    Room,
)


async def _enter(room: Room, count: int) -> list[asyncio.Task[None]]:
    """Has repositories come; those that may be looked at are done."""
    comers = [asyncio.create_task(room.come(str(number))) for number in range(count)]
    await asyncio.sleep(0)
    return comers


async def test_many_small_repositories_are_in_progress_once_they_are_listed() -> None:
    room = Room()
    comers = await _enter(room, 2 * REPOSITORIES_AT_ONCE)
    assert sum(one.done() for one in comers) == LARGE_REPOSITORIES_AT_ONCE
    for number, comer in enumerate(comers[:REPOSITORIES_AT_ONCE]):
        await comer
        room.listed(str(number), 50)
    await asyncio.sleep(0)
    assert sum(one.done() for one in comers) == REPOSITORIES_AT_ONCE
    for number, comer in enumerate(comers):
        await comer
        room.go(str(number))


async def test_no_more_large_repositories_than_a_few_are_in_progress() -> None:
    room = Room()
    comers = await _enter(room, REPOSITORIES_AT_ONCE)
    room.listed("0", TAGS_IN_HAND)
    for number in range(1, LARGE_REPOSITORIES_AT_ONCE):
        room.listed(str(number), 1)
    await asyncio.sleep(0)
    assert sum(one.done() for one in comers) == LARGE_REPOSITORIES_AT_ONCE
    room.go("0")
    await asyncio.sleep(0)
    assert sum(one.done() for one in comers) > LARGE_REPOSITORIES_AT_ONCE
    for number, comer in enumerate(comers[1:], 1):
        await comer
        room.go(str(number))
