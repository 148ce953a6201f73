"""Single flight: what several want at the same time is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from replicator.errors import ReplicatorError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Ended(ReplicatorError):
    """Work that somebody waited for cancelled itself.

    Raised instead of `CancelledError`, which a `TaskGroup` would take for an orderly end of a waiter that nobody
    cancelled: work that was not done must never look like work that was.
    """


class Once(Generic[K, V]):
    """Shares one call among all callers with the same key while it is in progress.

    The first caller does the work, in its own task: most work is wanted by one caller alone, and a task for each costs
    more than a small request. Where the first is cancelled, the others begin anew. Everyone gets the same outcome,
    failures included (zot's waiters read a failure as success). Nothing is remembered once the work is done: the next
    caller starts anew.
    """

    def __init__(self) -> None:
        self._waiting: dict[K, list[asyncio.Future[tuple[V] | None]]] = {}
        """Those who wait for work in progress; they get its result, or None where they are to begin anew."""

    def __len__(self) -> int:
        return len(self._waiting)

    async def run(self, key: K, make: Callable[[], Awaitable[V]]) -> V:
        """The outcome of `make()`, or of the call in progress for the same key.

        Raises:
            Ended: see there.
            Exception: what `make` raised; each waiter gets the same object.
        """
        while True:
            waiting = self._waiting.get(key)
            if waiting is None:
                return await self._work(key, make)
            outcome: asyncio.Future[tuple[V] | None] = asyncio.get_running_loop().create_future()
            waiting.append(outcome)
            done = await outcome
            if done is not None:
                return done[0]

    async def _work(self, key: K, make: Callable[[], Awaitable[V]]) -> V:
        waiting = self._waiting[key] = []
        try:
            result = await make()
        except asyncio.CancelledError:
            self._end(key, waiting, None)
            if _cancelled():
                raise
            raise Ended(f"{key}: ended before it was done") from None
        except Exception as error:
            del self._waiting[key]
            for outcome in waiting:
                if not outcome.done():
                    outcome.set_exception(error)
            raise
        self._end(key, waiting, (result,))
        return result

    def _end(self, key: K, waiting: list[asyncio.Future[tuple[V] | None]], result: tuple[V] | None) -> None:
        del self._waiting[key]
        for outcome in waiting:
            if not outcome.done():
                outcome.set_result(result)


def _cancelled() -> bool:
    """Whether the running task itself was asked to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
