"""How many tasks an image takes: of small images, they are a good part of what the engine costs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from replicator.demo.images import image, layer
from tests.engine.world import world


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """The tasks that are begun inside, by what they do."""
    begun: Counter[str] = Counter()
    loop = asyncio.get_running_loop()

    def begin(
        _: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        **options: Any,
    ) -> asyncio.Future[Any]:
        begun[str(getattr(work, "__qualname__", work))] += 1
        return asyncio.Task(work, loop=loop, **options)

    loop.set_task_factory(begin)
    try:
        yield begun
    finally:
        loop.set_task_factory(None)


async def _copied(tags: int) -> Counter[str]:
    async with world() as w:
        for number in range(tags):
            w.put("app", f"v{number}", image(f"v{number}", [layer(f"own {number}", 500)]))
        with counting() as begun:
            assert (await w.sync_one()).totals.tags.copied == tags
    return begun


async def test_an_image_takes_a_task_to_look_to_read_to_copy_and_for_each_blob_but_one() -> None:
    more = await _copied(40) - await _copied(10)
    assert more.total() == 30 * 4, more
