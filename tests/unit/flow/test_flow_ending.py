import asyncio

import pytest

from replicator.flow import ending


class Deaf:
    """Runs until it has been cancelled so often; drops it before that, as some libraries do."""

    def __init__(self, cancellations: int) -> None:
        self.left = cancellations

    async def run(self) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.left -= 1
                if not self.left:
                    raise


async def test_tasks_end_that_have_dropped_a_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "AGAIN_SECONDS", 0.0)
    tasks = [asyncio.create_task(Deaf(times).run()) for times in (1, 2, 5)]
    await asyncio.sleep(0)
    await ending.end(*tasks)
    assert all(task.cancelled() for task in tasks)


async def test_a_task_that_has_ended_before_is_left_alone() -> None:
    task = asyncio.create_task(asyncio.sleep(0, "result"))
    await task
    await ending.end(task)
    await ending.end()
    assert task.result() == "result"
