"""How far a fleet goes: the real database and the real queue, with agents that do nothing for a job.

`python -m bench.fleet [--agents N,N...] [--tags N]` prints what docs/scaling.md quotes. Nothing is copied: what is measured is
what the fleet itself costs, in jobs a second, transactions, connections and bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from multiprocessing.synchronize import Event as Flag
from pathlib import Path
from typing import Any

import psycopg

from replicator.events import Events
from replicator.fleet.agents import Self
from replicator.fleet.duties import Duties
from replicator.fleet.fleet import Fleet
from replicator.fleet.ownership import Claim
from replicator.fleet.queue import Queue
from replicator.fleet.times import Times
from replicator.fleet.work import Done, Work
from replicator.flow.clock import SystemClock
from replicator.model.digest import digest_of
from replicator.ports import Placed, Placement, TagBelief
from replicator.state.place import PostgresPlace
from replicator.state.store import open_state
from tests.postgres import Database, Postgres, running_postgres

SITE = "fra"
SHARDS = 64
RULES = 20
JOBS_AT_ONCE = 8
IDLE_SECONDS = 20.0
PROCESSES = 4
"""With more agents than this, several are in one process: what is looked at is the database."""
CONNECTIONS = 1_000
TAKEOVERS = 3
WRITTEN_TAGS = 50_000
"""Through the state, as runs write them; the rest is made by the database itself."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the database had done until then."""

    at: float
    transactions: int
    connections: int


async def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", default="1,2,4,10")
    parser.add_argument("--idle", default="10,100")
    parser.add_argument("--takeovers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--tags", type=int, default=2_000_000)
    options = parser.parse_args()
    print(f"cores: {os.cpu_count()}, load: {os.getloadavg()[0]:.1f}")
    with running_postgres(autovacuum_naptime="15s", max_connections=str(CONNECTIONS)) as server:
        for count in map(int, filter(None, options.agents.split(","))):
            await drained(server, count)
        for count in map(int, filter(None, options.idle.split(","))):
            await idle(server, count)
        if options.tags:
            await tags(server, options.tags)
        for number in (signal.SIGKILL, signal.SIGSTOP) if options.takeovers else ():
            await taken_over(server, number)


# --- the queue ---


async def drained(server: Postgres, agents: int) -> None:
    """How fast so many agents empty a queue of jobs that do nothing."""
    database = await _made(server)
    queue = Queue(database.dsn, "bench", perform=_nothing, ended=_ended)
    await queue.open()
    works = [
        Work(f"rule-{rule}", (SITE,), "interval", shard=shard, of=SHARDS)
        for rule in range(RULES)
        for shard in range(SHARDS)
    ]
    began = time.monotonic()
    await queue.defer(works)
    deferred = time.monotonic() - began
    size = _size(database, "procrastinate_jobs")
    processes, go = await _started(database, agents)
    before = _seen(database)
    go.set()
    while _one(database, "SELECT count(*) FROM procrastinate_jobs"):  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0.2)
    after = _seen(database)
    for process in processes:
        process.terminate()
        process.join()
    await queue.aclose()
    server.drop(database)
    seconds = after.at - before.at
    print(
        f"{agents} agents: {len(works)} jobs deferred in {deferred:.2f} s ({size / len(works):.0f} B a job),"
        f" done in {seconds:.1f} s: {len(works) / seconds:.0f} jobs/s,"
        f" {(after.transactions - before.transactions) / len(works):.1f} transactions a job"
    )


async def idle(server: Postgres, agents: int) -> None:
    """What so many agents cost the database that have nothing to do."""
    database = await _made(server)
    began = time.monotonic()
    processes, go = await _started(database, agents)
    joined = time.monotonic() - began
    go.set()
    await asyncio.sleep(5)
    before, used = _seen(database), _used(server)
    await asyncio.sleep(IDLE_SECONDS)
    after, used_then = _seen(database), _used(server)
    living = _one(database, "SELECT count(*) FROM fleet_agents WHERE heartbeat > now() - interval '20 s'")
    for process in processes:
        process.kill()
        process.join()
    server.drop(database)
    seconds = after.at - before.at
    rate = (after.transactions - before.transactions) / seconds
    print(
        f"{agents} idle agents ({living} alive; joined in {joined:.0f} s): {rate:.0f} transactions/s"
        f" ({rate / agents:.2f} an agent), {after.connections} connections ({after.connections / agents:.1f} an agent),"
        f" PostgreSQL: {(used_then[0] - used[0]) / seconds:.2f} cores, {used_then[1] / 1e6:.0f} MB"
        f" ({used_then[1] / 1e6 / max(1, after.connections):.1f} MB a connection)",
        flush=True,
    )


async def _started(database: Database, agents: int) -> tuple[list[Any], Flag]:
    """Processes with so many agents that have joined, and what has them begin."""
    context = multiprocessing.get_context("spawn")
    go, ready = context.Event(), context.Semaphore(0)
    count = min(agents, PROCESSES)
    parts = [agents // count + (number < agents % count) for number in range(count)]
    processes = [
        context.Process(target=_work, args=(database.dsn, f"agent-{number}", part, ready, go))
        for number, part in enumerate(parts)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        while not await asyncio.to_thread(ready.acquire, True, 1.0):
            if any(process.exitcode is not None for process in processes):
                for process in processes:
                    process.kill()
                raise SystemExit("an agent could not join; see above")
    return list(processes), go


def _used(server: Postgres) -> tuple[float, float]:
    """CPU seconds, and bytes of memory of their own, of all processes of the server that live."""
    master = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    seconds = memory = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == master:
                times = (process / "stat").read_text().rpartition(")")[2].split()
                seconds += (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
                rollup = (process / "smaps_rollup").read_text()
                memory += 1024 * int(rollup.partition("Private_Dirty:")[2].split()[0])
        except OSError:
            continue  # it has ended
    return seconds, memory


async def taken_over(server: Postgres, number: signal.Signals) -> None:
    """How long the work of an agent that is killed or frozen waits for another one."""
    seconds = []
    for _ in range(TAKEOVERS):
        database = await _made(server)
        context = multiprocessing.get_context("spawn")
        begun = context.SimpleQueue()
        first = context.Process(target=_work, args=(database.dsn, "first", 1, None, None, begun))
        first.start()
        queue = Queue(database.dsn, "bench", perform=_nothing, ended=_ended)
        await queue.open()
        await queue.defer([Work("rule", (SITE,), "interval", shard=0, of=1)])
        await queue.aclose()
        await asyncio.to_thread(begun.get)
        second = context.Process(target=_work, args=(database.dsn, "second", 1, None, None, begun))
        second.start()
        await asyncio.sleep(8)  # it has joined
        os.kill(first.pid or 0, number)
        lost = time.monotonic()
        await asyncio.to_thread(begun.get)
        seconds.append(time.monotonic() - lost)
        for process in (first, second):
            process.kill()
            process.join()
        server.drop(database)
    print(f"{number.name}: taken over after {', '.join(f'{each:.1f}' for each in sorted(seconds))} s")


def _work(dsn: str, name: str, agents: int, ready: Any, go: Flag | None, begun: Any = None) -> None:
    """A process with agents, until it is terminated. With `begun`, their jobs never end, and each is put there."""
    asyncio.run(_fleet(dsn, name, agents, ready, go, begun))


async def _fleet(dsn: str, name: str, agents: int, ready: Any, go: Flag | None, begun: Any) -> None:
    async def hold(work: Work, _claim: Claim) -> Done:
        begun.put(work.lock)
        await asyncio.Event().wait()
        return Done()

    duties = Duties(
        perform=_done if begun is None else hold,
        places=lambda _: (),
        destinations=lambda: {SITE},
        look_ended=_look_ended,
        changed=lambda: None,
    )
    clock, joining, everyone = SystemClock(), asyncio.Lock(), asyncio.Barrier(agents + 1)

    async def agent(number: int) -> None:
        async with AsyncExitStack() as stack:
            async with joining:
                me = Self(f"{name}-{number}", "bench", None, clock.now())
                joined = Fleet.join(
                    dsn, me, duties, jobs=JOBS_AT_ONCE, events=Events(), clock=clock, times=Times()
                )
                fleet = await stack.enter_async_context(joined)
            await everyone.wait()
            await everyone.wait()
            fleet.begin()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        for number in range(agents):
            tasks.create_task(agent(number))
        await everyone.wait()
        if ready is not None:
            ready.release()
        if go is not None:
            await asyncio.to_thread(go.wait)
        await everyone.wait()


async def _done(_work: Work, _claim: Claim) -> Done:
    return Done()


async def _nothing(_number: int, _work: Work) -> Done:
    return Done()


async def _ended(_number: int, _looks: Sequence[object]) -> None:
    return


async def _look_ended(_look: object) -> None:
    return


# --- the state ---


async def tags(server: Postgres, count: int) -> None:
    """How fast tags are written, how large their tables are, and what they cost to read."""
    database = await _made(server)
    state = await open_state(_place(database), clock=SystemClock())
    now, began = time.time(), time.monotonic()
    for number in range(WRITTEN_TAGS):
        digest = digest_of(number.to_bytes(8))
        belief = TagBelief(f"v{number % 1000}", digest, digest, "rule", now, now)
        placement = Placement(digest, digest, now, now)
        state.record(Placed("rule", SITE, belief, f"team/app-{number // 1000}", placement))
        if number % 5_000 == 4_999:
            await state.flush()
    await state.flush()
    seconds = time.monotonic() - began
    print(f"{WRITTEN_TAGS} tags written in {seconds:.1f} s: {WRITTEN_TAGS / seconds:.0f} a second")
    began = time.monotonic()
    _multiply(database, count)
    print(f"{count} tags made by the database in {time.monotonic() - began:.0f} s")
    for table in ("beliefs", "placements", "names"):
        size = _size(database, table)
        print(
            f"  {table}: {size / 1e6:.0f} MB, {size / count:.0f} B a tag; 10,000,000: {size / count / 100:.1f} GB"
        )
    for what, ask in (
        ("one repository of 1,000 tags", lambda: state.beliefs(SITE, "team/app-7")),
        ("standings", state.standings),
    ):
        began = time.monotonic()
        await ask()
        print(f"  {what}: {1000 * (time.monotonic() - began):.1f} ms")
    await state.aclose()
    server.drop(database)


def _multiply(database: Database, count: int) -> None:
    """Copies what is there into other repositories until there are so many tags."""
    copies = count // WRITTEN_TAGS - 1
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        (last,) = connection.execute("SELECT max(id) FROM names").fetchone() or (0,)
        repositories = WRITTEN_TAGS // 1_000
        connection.execute(
            "INSERT INTO names (id, name) SELECT %s + g, 'team/copy-' || g FROM generate_series(1, %s) g",
            (last, copies * repositories),
        )
        for table in ("beliefs", "placements"):
            columns = [
                row[0]
                for row in connection.execute(
                    "SELECT column_name FROM information_schema.columns WHERE table_name = %s", (table,)
                )
                if row[0] != "repository"
            ]
            names = ", ".join(f'"{column}"' for column in columns)
            connection.execute(
                f"INSERT INTO {table} (repository, {names})"  # noqa: S608  # our own names
                f" SELECT %s + (g - 1) * %s + dense_rank() OVER (PARTITION BY g ORDER BY repository), {names}"
                f" FROM {table}, generate_series(1, %s) g",
                (last, repositories, copies),
            )
        connection.execute("VACUUM ANALYZE")


# --- the database ---


async def _made(server: Postgres) -> Database:
    """An empty database with all tables."""
    database = server.create()
    state = await open_state(_place(database), clock=SystemClock())
    await state.aclose()
    return database


def _place(database: Database) -> PostgresPlace:
    return PostgresPlace(database.url, lambda: database.password)


def _one(database: Database, query: str, *arguments: object) -> int:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        row = connection.execute(query.encode(), arguments).fetchone()
        return int(row[0]) if row else 0


def _size(database: Database, table: str) -> int:
    return _one(database, "SELECT pg_total_relation_size(%s::regclass)", table)


def _seen(database: Database) -> Seen:
    where = "FROM pg_stat_database WHERE datname = current_database()"
    return Seen(
        time.monotonic(),
        _one(database, f"SELECT xact_commit {where}"),
        _one(database, f"SELECT numbackends {where}") - 1,
    )


if __name__ == "__main__":
    asyncio.run(main())
