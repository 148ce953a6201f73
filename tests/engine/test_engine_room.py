"""How many tags of a source are in hand at once."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from replicator.engine.observe.room import REPOSITORIES, TAGS, Room


@given(st.lists(st.integers(0, 2 * TAGS), max_size=60))
async def test_all_come_in_turn_and_beyond_a_few_only_small_ones(sizes: list[int]) -> None:
    room, inside = Room(), list[int]()

    async def visit(size: int) -> None:
        await room.come(size)
        inside.append(size)
        assert len(inside) <= REPOSITORIES or sum(inside) <= TAGS
        await asyncio.sleep(0)
        inside.remove(size)
        room.go(size)

    async with asyncio.TaskGroup() as tasks:
        for size in sizes:
            tasks.create_task(visit(size))


async def test_many_small_ones_are_in_hand_together() -> None:
    room = Room()
    async with asyncio.timeout(30):
        for _ in range(4 * REPOSITORIES):
            await room.come(TAGS // (4 * REPOSITORIES))
