"""The queue in the database: procrastinate's, and what it leaves to its users.

Of one lock there is one job in progress and one that waits: a second that wants to wait is merged into the first. A job
that an agent does not end is deleted and deferred anew, with another number: so a number is ever run by one agent, and an
agent that was thought dead and wakes up neither ends nor fails what another one does.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar

import msgspec
from procrastinate import App, JobContext, PsycopgConnector, exceptions
from procrastinate import jobs as queued
from procrastinate.manager import JobManager, NotificationCallback
from psycopg.types.json import Jsonb

from replicator.errors import OwnershipLostError
from replicator.fleet.connections import DATABASE_ERRORS, Connection, Dsn, connector
from replicator.fleet.looks import Look, count_down, count_up
from replicator.fleet.work import Done, Work, merged

T = TypeVar("T")

_log = logging.getLogger(__name__)

TASK: Final = "replicator.work"
MAX_WAITING: Final = 5_000
"""Jobs that may wait for one site: each fetch of whatever other agent looks at all of them."""
MAX_ALONE: Final = 1_000
"""Repositories that may wait by themselves for one site: each shard asks which of its rule there are."""
ANALYZE_AFTER: Final = 1_000
"""Jobs inserted until the planner is told; without, a fetch costs five times as much."""
_TRIES: Final = 5
_RETRY_SECONDS: Final = 1.0

_WAITING: Final = (
    "SELECT id, queueing_lock, args FROM procrastinate_jobs"
    " WHERE status = 'todo' AND queueing_lock = ANY(%s) ORDER BY id FOR UPDATE"
)
_CHANGE: Final = "UPDATE procrastinate_jobs SET args = %s, priority = greatest(priority, %s) WHERE id = %s"
_OFFER: Final = (
    "UPDATE procrastinate_jobs SET args = args - 'left', scheduled_at = NULL"
    " WHERE queueing_lock = %s AND status = 'todo' AND args ? 'left'"
)
"""Work that an agent without its rule has left, and that one with its rule wants, waits no longer."""
_END: Final = (
    "SELECT procrastinate_finish_job_v1(id, 'succeeded', true) FROM procrastinate_jobs"
    " WHERE id = %s AND status = 'doing'"
)
_COUNT: Final = "SELECT count(*) FROM procrastinate_jobs WHERE queue_name = %s AND status = 'todo'"
_COUNT_ALONE: Final = (
    "SELECT count(*) FROM procrastinate_jobs WHERE queue_name = %s AND status = 'todo' AND args ? 'alone'"
)
_ALONE: Final = (
    "SELECT args FROM procrastinate_jobs"
    " WHERE args->>'rule' = %s AND args ? 'alone' AND status IN ('todo', 'doing')"
)
_LEAVE: Final = """
INSERT INTO procrastinate_jobs (queue_name, task_name, priority, lock, queueing_lock, args, scheduled_at)
SELECT queue_name, task_name, priority, lock, queueing_lock, args, now() + make_interval(secs => %s)
FROM procrastinate_jobs WHERE id = %s AND status = 'doing' ON CONFLICT DO NOTHING
"""
"""A job that waits with its lock covers it."""
UNREAD_SECONDS: Final = 30.0
"""Until a job is offered again that an agent of another version could not read."""
_LOCK_MINE: Final = "SELECT 1 FROM procrastinate_jobs WHERE id = %s AND status = 'doing' FOR UPDATE"


class Queue:
    """The queue, as one agent sees it.

    Args:
        dsn: the database.
        agent: the agent's name.
        perform: does a piece of work; the number is the job's.
        ended: told a job's number when it is over, or is another agent's, and the looks that are through with it.
    """

    def __init__(
        self,
        dsn: Dsn,
        agent: str,
        *,
        perform: Callable[[int, Work], Awaitable[Done]],
        ended: Callable[[int, Sequence[Look]], Awaitable[None]],
    ) -> None:
        self._connector = connector(dsn)
        self._agent = agent
        self._perform = perform
        self._done: dict[int, tuple[Work, Done]] = {}
        self._unread: set[int] = set()
        self._inserted = 0
        self.app = App(connector=self._connector)
        self.manager = _Patient(self._connector, end=self._end)
        self.app.job_manager = self.manager
        self._ended = ended
        self.app.task(name=TASK, pass_context=True)(self._do)

    def give_up(self) -> None:
        """From now on the end of a job is tried once; of one that the database does not take, others begin the work anew."""
        self.manager.is_patient = False

    async def open(self) -> None:
        """Connects. Raises one of `DATABASE_ERRORS`."""
        await self.app.open_async()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self.app.close_async()

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        """A connection of the pool, and a transaction. Entering raises one of `DATABASE_ERRORS`."""
        return self._connector.pool.connection()

    async def fetch(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Executes one statement, in a transaction. Raises one of `DATABASE_ERRORS`."""
        async with self.connection() as connection:
            cursor = await connection.execute(query.encode(), arguments)
            return [] if cursor.description is None else await cursor.fetchall()

    async def defer_tick(self, work: Work, periodic_id: str, tick: int) -> bool:
        """Defers a look unless somebody did for this tick (epoch seconds); False: somebody did.

        Raises one of `DATABASE_ERRORS`.
        """
        job = _job(work)
        job = job.evolve(task_kwargs={**job.task_kwargs, "timestamp": tick})
        try:
            return await self.manager.defer_periodic_job(job, periodic_id, tick) is not None
        except exceptions.AlreadyEnqueued:  # the look of an earlier tick has not begun
            await self.fetch(_OFFER, work.lock)
            return False

    async def within_cap(self, works: Sequence[Work]) -> list[Work]:
        """As many of these works as may wait: `MAX_WAITING` for one site. A later look wants the others again.

        Raises one of `DATABASE_ERRORS`.
        """
        room = {
            queue: max(0, MAX_WAITING - (await self.fetch(_COUNT, queue))[0][0])
            for queue in {work.queue for work in works}
        }
        kept = []
        for work in works:
            if room[work.queue]:
                room[work.queue] -= 1
                kept.append(work)
        return kept

    async def defer(self, works: Iterable[Work]) -> None:
        """Has works wait, each merged into the one that waits with its lock. Durable on return.

        What waits because an agent without its rule has left it is offered at once.

        Raises one of `DATABASE_ERRORS`.
        """
        wanted = merged(works)
        await self._in_transaction(lambda connection: self._merge_in(connection, wanted, None))
        self._inserted += len(wanted)
        if self._inserted >= ANALYZE_AFTER:
            self._inserted = 0
            await self.fetch("ANALYZE procrastinate_jobs")

    async def alone(self, rule: str) -> list[Work]:
        """The repositories of a rule that wait or are in progress by themselves. Raises one of `DATABASE_ERRORS`."""
        found = []
        for (args,) in await self.fetch(_ALONE, rule):
            with contextlib.suppress(ValueError):
                found.append(Work.read(args))
        return found

    async def split_off(self, job: int, work: Work) -> bool:
        """Has a repository, of which the job's agent writes nothing any more, wait by itself.

        The looks that wait for the job wait for the repository, too. False: too many wait already.

        Raises:
            OwnershipLostError: the job is not this agent's any more, and whoever has it may write to the repository.
            psycopg.Error: or another one of `DATABASE_ERRORS`.
        """
        return await self._in_transaction(lambda connection: self._split_off(connection, job, work))

    async def take_over(self, job: int) -> Work | None:
        """Has a job that nobody owns begin anew. None: it has ended, or it cannot be read.

        Raises one of `DATABASE_ERRORS`.
        """
        return await self._in_transaction(lambda connection: self._begin_anew(connection, job))

    # --- inside ---

    async def _do(self, context: JobContext, /, **args: Any) -> None:
        number = context.job.id or 0
        try:
            work = Work.read(args)
        except ValueError as error:
            self._unread.add(number)
            _log.warning(
                "job %s is of another version of replicator (%s); left to agents that know it", number, error
            )
            return
        self._done[number] = (work, await self._perform(number, work))

    async def _end(self, ended: queued.Job) -> None:
        """Ends a job and, if it is still this agent's, has wait what is left of it. One transaction.

        One that this agent does not know, or could not read, waits for an agent of the version that does.
        """
        job, looks = ended.id or 0, list[Look]()
        async with self.connection() as connection, connection.transaction():
            if ended.task_name != TASK or job in self._unread:
                await connection.execute(_LEAVE.encode(), (UNREAD_SECONDS, job))
            mine = await (await connection.execute(_END.encode(), (job,))).fetchone()
            if mine and job in self._done:
                work, done = self._done[job]
                if done.again is not None:
                    again = msgspec.structs.replace(done.again, since=0.0)
                    await self._put_back(connection, again, done.delay)
                elif work.shard is not None:
                    looks = [
                        look
                        for tick in work.ticks
                        if (look := await count_down(connection, work.rule, tick, self._agent, done.report))
                    ]
        self._done.pop(job, None)
        self._unread.discard(job)
        await self._ended(job, looks)

    async def _in_transaction(self, change: Callable[[Connection], Awaitable[T]]) -> T:
        """Makes a change, again where another agent puts work with the same lock into the queue at that moment."""
        for attempt in range(1, _TRIES + 1):
            try:
                async with self.connection() as connection, connection.transaction():
                    return await change(connection)
            except exceptions.AlreadyEnqueued:
                if attempt == _TRIES:
                    raise
        raise AssertionError("unreachable: the last try returns or raises")

    async def _split_off(self, connection: Connection, job: int, work: Work) -> bool:
        # Whoever takes the job over waits for this transaction, and then sees the repository in the queue.
        if await (await connection.execute(_LOCK_MINE.encode(), (job,))).fetchone() is None:
            raise OwnershipLostError("the work was taken over by another agent")
        waiting = await (await connection.execute(_COUNT_ALONE.encode(), (work.queue,))).fetchone()
        if waiting is not None and waiting[0] >= MAX_ALONE:
            return False
        known = await self._merge_in(connection, [work], None)
        ticks = set(work.ticks).difference(*(each.ticks for each in known))
        await count_up(connection, work.rule, ticks)
        return True

    async def _begin_anew(self, connection: Connection, job: int) -> Work | None:
        cursor = await connection.execute(
            "SELECT args, task_name FROM procrastinate_jobs WHERE id = %s AND status = 'doing' FOR UPDATE",
            (job,),
        )
        row = await cursor.fetchone()
        if row is None:
            return None
        work = None
        with contextlib.suppress(ValueError):
            work = Work.read(row[0]) if row[1] == TASK else None
        if work is None:  # of another version: agents that know it take it
            await connection.execute(_LEAVE.encode(), (0.0, job))
            await connection.execute(_END.encode(), (job,))
            return None
        await connection.execute(_END.encode(), (job,))
        work = msgspec.structs.replace(work, takeovers=work.takeovers + 1)
        await self._merge_in(connection, [work], None)
        return work

    async def _put_back(self, connection: Connection, work: Work, delay: float) -> None:
        at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=delay) if delay else None
        await self._merge_in(connection, [work], at)

    async def _merge_in(
        self, connection: Connection, works: Sequence[Work], at: dt.datetime | None
    ) -> list[Work]:
        """Returns those that waited already."""
        by_lock = {work.lock: work for work in works}
        known: list[Work] = []
        cursor = await connection.execute(_WAITING.encode(), (list(by_lock),))
        for job, lock, args in await cursor.fetchall():
            work = by_lock.pop(lock)
            if "left" in args and not work.left:
                await connection.execute(_OFFER, (lock,))
            try:
                known.append(Work.read(args))
                both = known[-1].merge(work)
            except ValueError:  # of another version: what it wanted is in the whole
                both = msgspec.structs.replace(work, whole=True, repositories={})
            if (kept := both.plain()) != args:
                await connection.execute(_CHANGE, (Jsonb(kept), both.priority, job))
        if by_lock:
            new = [
                _job(by_lock[lock], at) for lock in sorted(by_lock)
            ]  # one order for all, or two would wait for each other
            await self.manager.batch_defer_jobs_async(new, connection=connection)
        return known


class _Patient(JobManager):
    """procrastinate's statements, for a worker that outlives its database: it waits instead of stopping."""

    def __init__(self, connector: PsycopgConnector, *, end: Callable[[queued.Job], Awaitable[None]]) -> None:
        super().__init__(connector)
        self._end = end
        self.is_patient = True

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> queued.Job | None:
        """No job while the database is away."""
        try:
            return await super().fetch_job(queues, worker_id)
        except DATABASE_ERRORS as error:
            _log.warning("cannot fetch a job: %s", str(error).strip() or type(error).__name__)
            return None

    async def finish_job(self, job: queued.Job, status: queued.Status, delete_job: bool) -> None:  # noqa: FBT001
        """Ends the job, if it is still this worker's; waits for the database until the agent stops."""
        del status, delete_job  # what became of the work is in the state
        while True:
            try:
                await self._end(job)
            except DATABASE_ERRORS as error:
                _log.info("cannot end job %s yet: %s", job.id, str(error).strip())
            else:
                return
            if not self.is_patient:
                return
            await asyncio.sleep(_RETRY_SECONDS)

    async def update_heartbeat(self, worker_id: int) -> None:
        """Nobody reads it: who lives is told by sessions."""

    async def listen_for_jobs(
        self, *, on_notification: NotificationCallback, queues: Iterable[str] | None = None
    ) -> None:
        """Listens again and again; between, the worker polls."""
        while True:
            try:
                await super().listen_for_jobs(on_notification=on_notification, queues=queues)
            except DATABASE_ERRORS:
                await asyncio.sleep(_RETRY_SECONDS)


def _job(work: Work, at: dt.datetime | None = None) -> queued.Job:
    return queued.Job(
        queue=work.queue,
        priority=work.priority,
        lock=work.lock,
        queueing_lock=work.lock,
        task_name=TASK,
        task_kwargs=work.plain(),
        scheduled_at=at,
    )
