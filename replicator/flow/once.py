"""Single flight: what several want at the same time is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from replicator.errors import ReplicatorError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Ended(ReplicatorError):
    """Work that somebody waited for was ended by somebody else: its owner closed, or it cancelled itself.

    Raised instead of `CancelledError`, which a `TaskGroup` would take for an orderly end of a waiter that nobody
    cancelled: work that was not done must never look like work that was.
    """


class _Work(Generic[V]):
    __slots__ = ("task", "waiters")

    def __init__(self, task: asyncio.Task[V]) -> None:
        self.task = task
        self.waiters = 0


class Once(Generic[K, V]):
    """Shares one call among all callers with the same key while it is in progress.

    The work runs in a task of its own, so that a cancelled waiter does not kill it for the others. Everyone
    gets the same outcome, failures included (zot's waiters read a failure as success). Nothing is remembered
    once the work is done: the next caller starts anew. Whoever owns the `Once` closes it.
    """

    def __init__(self) -> None:
        self._under_way: dict[K, _Work[V]] = {}
        self._tasks: set[asyncio.Task[V]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._under_way)

    async def run(self, key: K, make: Callable[[], Awaitable[V]]) -> V:
        """The outcome of `make()`, or of the call in progress for the same key.

        When the last waiter is cancelled the work is cancelled too, and has ended before the waiter goes on.

        Raises:
            Ended: see there.
            Exception: what `make` raised; each waiter gets the same object.
        """
        work = self._under_way.get(key)
        if work is None or work.task.done():
            work = self._start(key, make)
        work.waiters += 1
        try:
            return await asyncio.shield(work.task)
        except asyncio.CancelledError:
            if work.task.cancelled() and not _cancelled():
                raise Ended(f"{key}: ended before it was done") from None
            if work.waiters == 1 and not work.task.done():
                await self._abandon(key, work)
            raise
        finally:
            work.waiters -= 1

    async def aclose(self) -> None:
        """Cancels the calls in progress and waits for them. From then on `run` raises `Ended`."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, key: K, make: Callable[[], Awaitable[V]]) -> _Work[V]:
        if self._closed:
            raise Ended(f"{key}: not begun, its owner has ended")

        async def work_it() -> V:
            return await make()

        def forget(task: asyncio.Task[V]) -> None:
            self._tasks.discard(task)
            self._drop(key, work)
            if not task.cancelled():
                task.exception()  # seen: with every waiter cancelled nobody else would fetch it

        task = asyncio.create_task(work_it())
        work = _Work(task)
        self._under_way[key] = work
        self._tasks.add(task)
        task.add_done_callback(forget)
        return work

    async def _abandon(self, key: K, work: _Work[V]) -> None:
        self._drop(key, work)  # a newcomer must not join what is about to die
        work.task.cancel()
        await asyncio.wait({work.task})

    def _drop(self, key: K, work: _Work[V]) -> None:
        if self._under_way.get(key) is work:
            del self._under_way[key]


def _cancelled() -> bool:
    """Whether the running task itself was asked to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
