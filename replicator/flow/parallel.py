"""Many small requests to a site, a bounded number at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

from replicator.errors import SiteError

WIDTH: Final = 32

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


async def each(
    items: Iterable[_Item], do: Callable[[_Item], Awaitable[_Result]], *, width: int = WIDTH
) -> list[_Result]:
    """What `do` returns for each item, in the items' order.

    Raises:
        SiteError: the first failure; nothing new was started after it, and everything in progress has ended.
    """
    items = list(items)
    if len(items) <= 1:  # as for nearly every image: a task would cost more than it gains
        return [await do(item) for item in items]
    waiting = enumerate(items)
    done: dict[int, _Result] = {}
    failures: list[SiteError] = []

    async def work() -> None:
        for number, item in waiting:
            if failures:
                return
            try:
                done[number] = await do(item)
            except SiteError as error:
                failures.append(error)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(width, len(items))):
            tasks.create_task(work())
    if failures:
        raise failures[0]
    return [done[number] for number in sorted(done)]
