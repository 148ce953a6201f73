"""The worker that takes jobs from the queue, replaced when other queues are to be served."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Collection
from typing import Final

from procrastinate.worker import Worker

from replicator.fleet.connections import DATABASE_ERRORS
from replicator.fleet.queue import Queue
from replicator.fleet.times import Times

_log = logging.getLogger(__name__)

BACK_OFF: Final = (0.5, 30.0)
"""Seconds until a worker that ended by itself is started again: the first time, and at most."""
_NEVER: Final = 7 * 86_400.0
"""The heartbeat of procrastinate and its requests to abort are not used: sessions tell who lives."""


class Workers:
    """Works for some queues; the jobs of a worker that is replaced go on.

    Args:
        queue: the queue.
        jobs: how many at once.
        times: intervals.
    """

    def __init__(self, queue: Queue, jobs: int, times: Times) -> None:
        self._queue = queue
        self._jobs = jobs
        self._times = times
        self.queues: frozenset[str] = frozenset()
        self._worker: Worker | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, queues: Collection[str]) -> None:
        """From now on takes jobs of these queues alone; none: takes no more."""
        wanted = frozenset(queues)
        if wanted == self.queues:
            return
        self.queues = wanted
        if self._worker is not None:
            self._worker.stop()  # type: ignore[no-untyped-call]
            self._worker = None
        if wanted:
            self._worker = self._new(wanted)
            task = asyncio.get_running_loop().create_task(self._keep_running(self._worker))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Takes no more; returns when all jobs have ended."""
        self.serve(())
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _new(self, queues: Collection[str]) -> Worker:
        return Worker(
            self._queue.app,
            queues=sorted(queues),
            concurrency=self._jobs,
            fetch_job_polling_interval=self._times.poll,
            abort_job_polling_interval=_NEVER,
            update_heartbeat_interval=_NEVER,
            stalled_worker_timeout=_NEVER,
            install_signal_handlers=False,
            delete_jobs="always",
        )

    async def _keep_running(self, worker: Worker) -> None:
        wait, longest = BACK_OFF
        while worker is self._worker:
            try:
                await worker.run()  # type: ignore[no-untyped-call]
                wait = BACK_OFF[0]
            except DATABASE_ERRORS as error:
                _log.warning("the worker ended: %s; it is started again", str(error).strip())
            except Exception:  # noqa: BLE001  # an error of procrastinate's must not end the agent's work
                _log.exception("the worker broke; it is started again")
            if worker is self._worker:
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311
                wait = min(longest, wait * 2)
