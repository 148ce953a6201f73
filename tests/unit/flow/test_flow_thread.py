import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from replicator.flow.thread import run_in_thread


async def test_what_the_call_returns_or_raises_comes_back() -> None:
    assert await run_in_thread(lambda: threading.current_thread() is threading.main_thread()) is False
    with pytest.raises(ZeroDivisionError):
        await run_in_thread(lambda: 1 // 0)


@pytest.mark.parametrize("fails", [False, True])
async def test_who_is_cancelled_however_often_goes_on_only_when_the_call_has_ended(*, fails: bool) -> None:
    loop, begun = asyncio.get_running_loop(), asyncio.Event()
    may_end, ended = threading.Event(), threading.Event()

    def call() -> None:
        loop.call_soon_threadsafe(begun.set)
        may_end.wait(10)
        ended.set()
        if fails:
            raise OSError("too late for anybody to hear")

    task = asyncio.create_task(run_in_thread(call))
    await begun.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_call_runs_in_the_threads_that_are_given() -> None:
    with ThreadPoolExecutor(1, "ours") as threads:
        name = await run_in_thread(lambda: threading.current_thread().name, threads)
    assert name.startswith("ours")
