"""The state in a SQLite file."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, overload

import msgspec
from sqlalchemy import Connection, Executable

from replicator.errors import StateError
from replicator.model.digest import Digest
from replicator.policy.recheck import CLOCK_SLACK_SECONDS
from replicator.ports import (
    AcceptedEvent,
    BehindRepository,
    Clock,
    DuePlacement,
    Entry,
    Listed,
    Pending,
    Placement,
    RunRow,
    Seen,
    Standing,
    TagBelief,
    Unit,
)
from replicator.ports.search import Holding, ImageFacts, Move, Query
from replicator.state import merge, queries, reading, statements
from replicator.state import search as index
from replicator.state.batch import Batch
from replicator.state.database import Database, mapped, open_database, open_for_reading, transaction
from replicator.state.writing import BatchWriter, Names, execute_many, sweep, write_run

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_K = TypeVar("_K")
_V = TypeVar("_V")

BUSY_SECONDS: Final = 5.0
"""How long another process's write transaction is waited for."""
FLUSH_SECONDS: Final = 1.0
FLUSH_SIZE: Final = 500
"""What was recorded is written in the background after so long, or once it is so much."""
USE_SECONDS: Final = 7 * 86_400.0
"""How precisely it is remembered that a creation time was wanted."""
MAX_SIZE: Final = 200_000
"""No more is held in memory while the file cannot be written; the rest is left out, and `flush` says so."""


class Told(msgspec.Struct, frozen=True):
    """A receiver of notifications knows that a condition holds for a rule at a destination."""

    receiver: str
    rule: str
    destination: str
    condition: str


async def open_state(
    path: Path, *, clock: Clock, read_only: bool = False, busy_seconds: float = BUSY_SECONDS
) -> SqliteState:
    """Opens the state. A file that does not exist starts empty; so does one of another schema, which is kept as `*.old`.

    Args:
        path: the file; its folder is created where missing.
        clock: tells and spends time.
        read_only: nothing is written: a file that does not exist, or is of another schema, reads as empty and is
            left alone. What would record raises `StateError`.
        busy_seconds: how long another process's write is waited for.

    Raises:
        StateError: the file is not a database, another program's, damaged, busy for too long, or cannot be opened,
            created or written. It is then left as it is.
    """
    open_it = open_for_reading if read_only else open_database
    return SqliteState(await open_it(path, busy_seconds), clock, read_only=read_only)


class SqliteState:
    """`ports.State`. Reads see all that was recorded before, durable or not.

    What is recorded gathers in a batch that is written as one transaction. Everything that touches the database
    runs one after the other, each in a task of its own, so that a caller who is cancelled leaves nothing half
    done: the work goes on without him. A batch that could not be written goes back under what came later.
    """

    def __init__(self, database: Database, clock: Clock, *, read_only: bool) -> None:
        self._database = database
        self._clock = clock
        self._read_only = read_only
        self._closed = False
        self._batch = Batch()
        self._left_out = 0
        self._names = Names()
        self._last_seen_at = 0.0
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._enough = asyncio.Event()
        self._background: asyncio.Task[None] | None = None

    # --- reading ---

    async def beliefs(
        self, destination: str, repository: str, tags: Collection[str] | None = None
    ) -> Mapping[str, TagBelief]:
        """See `ports.State`."""

        async def read() -> Mapping[str, TagBelief]:
            found = await self._read(lambda db: reading.read_beliefs(db, destination, repository, tags))
            found = self._batch.over_beliefs(found, (destination, repository), self._clock.now())
            return _only(found, tags)

        return await self._in_turn("read beliefs", read)

    async def placements(
        self, destination: str, repository: str, digests: Collection[Digest] | None = None
    ) -> Mapping[Digest, Placement]:
        """See `ports.State`."""

        async def read() -> Mapping[Digest, Placement]:
            found = await self._read(lambda db: reading.read_placements(db, destination, repository, digests))
            found = self._batch.over_placements(found, (destination, repository), self._clock.now())
            return _only(found, digests)

        return await self._in_turn("read placements", read)

    async def due_placements(self, destination: str, before: float, limit: int) -> Sequence[DuePlacement]:
        """See `ports.State`. Flushes first."""
        await self.flush()
        now = self._clock.now()

        async def read() -> Sequence[DuePlacement]:
            return await self._read(
                lambda db: reading.read_due_placements(db, destination, before, limit, now)
            )

        return await self._in_turn("read placements to verify", read)

    async def pending(
        self, rule: str, destination: str, repository: str, tags: Collection[str] | None = None
    ) -> Mapping[str, Pending]:
        """See `ports.State`."""

        async def read() -> Mapping[str, Pending]:
            key, place, now = (rule, destination, repository), (destination, repository), self._clock.now()
            recorded = self._batch.pending.get(key, ())

            def find(db: Connection) -> tuple[dict[str, Pending], dict[str, TagBelief]]:
                found = reading.read_pending(db, rule, destination, repository, tags)
                return found, reading.read_beliefs(db, destination, repository, recorded)

            found, beliefs = await self._read(find)
            beliefs = self._batch.over_beliefs(beliefs, place, now, only_ends=True)
            return _only(self._batch.over_pending(found, key, beliefs, now), tags)

        return await self._in_turn("read pending tags", read)

    async def pending_repositories(self, rule: str, destination: str) -> frozenset[str]:
        """See `ports.State`."""

        async def read() -> frozenset[str]:
            rows = await self._select(queries.PENDING_REPOSITORIES, rule=rule, destination=destination)
            recorded = (place[2] for place in self._batch.pending if place[:2] == (rule, destination))
            return frozenset(row[0] for row in rows).union(recorded)

        return await self._in_turn("read repositories with pending tags", read)

    async def units(self, rule: str, destination: str | None = None) -> Sequence[Unit]:
        """See `ports.State`. Flushes first."""
        await self.flush()

        async def read() -> Sequence[Unit]:
            return await self._read(lambda db: reading.read_units(db, rule, destination))

        return await self._in_turn("read units", read)

    async def knows_repository(self, site: str, repository: str) -> bool:
        """See `ports.State`."""

        async def read() -> bool:
            if (site, repository) in self._batch.repositories:
                return True
            return bool(await self._select(queries.KNOWS_REPOSITORY, site=site, repository=repository))

        return await self._in_turn("read repositories", read)

    async def whereabouts(self, site: str, digests: Iterable[Digest]) -> Mapping[Digest, Sequence[str]]:
        """See `ports.State`."""
        wanted = list(dict.fromkeys(digests))

        async def read() -> Mapping[Digest, Sequence[str]]:
            found = await self._read(lambda db: reading.read_whereabouts(db, site, wanted))
            return self._batch.over_whereabouts(found, site, wanted, self._clock.now())

        return await self._in_turn("read whereabouts", read)

    async def created(self, digests: Iterable[Digest]) -> Mapping[Digest, float]:
        """See `ports.State`. Notes what is still asked for: the rest is forgotten some day."""
        wanted = list(dict.fromkeys(digests))

        async def read() -> Mapping[Digest, float]:
            found = await self._read(lambda db: reading.read_created(db, wanted))
            recorded = self._batch.created
            found |= {digest: recorded[digest] for digest in wanted if digest in recorded}
            self._note_use(found)
            return {digest: at for digest, (at, _) in found.items()}

        return await self._in_turn("read creation times", read)

    async def listed(self, site: str, repository: str) -> Mapping[str, Listed]:
        """See `ports.State`."""

        async def read() -> Mapping[str, Listed]:
            found = await self._read(lambda db: reading.read_listed(db, site, repository))
            return self._batch.over_listed(found, (site, repository))

        return await self._in_turn("read listings", read)

    async def standings(self, rules: Sequence[str] | None = None) -> Sequence[Standing]:
        """See `ports.State`; by rule, then destination. Flushes first."""
        await self.flush()
        now = self._clock.now()

        async def read() -> Sequence[Standing]:
            found = await self._read(lambda db: reading.read_standings(db, now))
            return [standing for standing in found if rules is None or standing.rule in rules]

        return await self._in_turn("read standings", read)

    async def behind(self) -> Sequence[BehindRepository]:
        """See `ports.State`; by rule, destination and repository. Flushes first."""
        await self.flush()

        async def read() -> Sequence[BehindRepository]:
            return [BehindRepository(*row) for row in await self._select(queries.BEHIND)]

        return await self._in_turn("read repositories that are behind", read)

    async def search(self, query: Query, limit: int) -> Sequence[Holding]:
        """See `ports.search.ImageIndex`. Flushes first."""
        await self.flush()
        return await self._in_turn("search", lambda: self._read(lambda db: index.search(db, query, limit)))

    async def facts(self, digests: Sequence[Digest]) -> Mapping[Digest, ImageFacts]:
        """See `ports.search.ImageIndex`. Flushes first."""
        await self.flush()
        return await self._in_turn(
            "read images", lambda: self._read(lambda db: index.read_facts(db, digests))
        )

    async def moves(self, destination: str, repository: str, tag: str) -> Sequence[Move]:
        """See `ports.search.ImageIndex`. Flushes first."""
        await self.flush()
        return await self._in_turn(
            "read moves", lambda: self._read(lambda db: index.read_moves(db, destination, repository, tag))
        )

    async def unindexed(self, limit: int) -> Sequence[Holding]:
        """See `ports.search.ImageIndex`. Flushes first."""
        await self.flush()
        return await self._in_turn("search", lambda: self._read(lambda db: index.read_unindexed(db, limit)))

    async def events(self) -> Sequence[AcceptedEvent]:
        """See `ports.State`."""
        return await self._in_turn("read events", lambda: self._read(reading.read_events))

    async def runs(self, rule: str, destination: str) -> Sequence[RunRow]:
        """The last runs of a rule at a destination that are remembered, latest first."""
        return await self._in_turn(
            "read runs", lambda: self._read(lambda db: reading.read_runs(db, rule, destination))
        )

    async def paused(self) -> frozenset[str]:
        """The rules that are paused."""

        async def read() -> frozenset[str]:
            return frozenset(row[0] for row in await self._select(queries.PAUSED))

        return await self._in_turn("read paused rules", read)

    async def told(self) -> frozenset[Told]:
        """What receivers of notifications know of."""

        async def read() -> frozenset[Told]:
            return frozenset(Told(*row) for row in await self._select(queries.TOLD))

        return await self._in_turn("read what was told", read)

    # --- recording ---

    async def accept_events(
        self, events: Iterable[AcceptedEvent], *, instead_of: Collection[str] = ()
    ) -> None:
        """See `ports.State`; on the disk on return. An event whose names are not text is left out."""
        self._writable()
        rows = [_event_row(event) for event in events if _is_storable(event)]
        over = [{"the_id": each} for each in instead_of]
        work = ((statements.ANSWER, over), (statements.ACCEPT, rows))
        await self._in_turn("accept events", lambda: self._execute(*work, synced=True))

    async def answer_events(self, ids: Collection[str]) -> None:
        """See `ports.State`."""
        self._writable()
        work = statements.ANSWER, [{"the_id": each} for each in ids]
        await self._in_turn("answer events", lambda: self._execute(work))

    async def set_paused(self, rule: str, paused: bool) -> None:  # noqa: FBT001  # what is set, not a switch
        """Pauses or resumes a rule; durable on return. Raises `StateError`."""
        self._writable()
        work = (statements.PAUSE, [{"rule": rule}]) if paused else (statements.RESUME, [{"the_rule": rule}])
        await self._in_turn("pause or resume a rule", lambda: self._execute(work))

    async def tell(self, told: Told) -> None:
        """Notes that a receiver knows of a condition; durable on return. Raises `StateError`."""
        self._writable()
        work = statements.TELL, [msgspec.structs.asdict(told)]
        await self._in_turn("note what was told", lambda: self._execute(work))

    async def untell(self, told: Told) -> None:
        """Notes that a receiver knows of the condition's end; durable on return. Raises `StateError`."""
        self._writable()
        work = (
            statements.UNTELL,
            [{f"the_{name}": value for name, value in msgspec.structs.asdict(told).items()}],
        )
        await self._in_turn("note what was told", lambda: self._execute(work))

    def begin(self, rule: str, destination: str) -> None:
        """See `ports.State`. Raises `StateError` where the state is read-only or closed."""
        self._writable()
        self._batch.begin(rule, destination, self._clock.now())
        self._write_soon()

    def record(self, entry: Entry) -> None:
        """See `ports.State`. Raises `StateError` where the state is read-only or closed, and only there."""
        self._writable()
        if self._batch.size >= MAX_SIZE:
            self._left_out += 1
            return
        self._batch.add(entry, self._moment() if isinstance(entry, Seen) else self._clock.now())
        self._write_soon()

    async def forget(self, site: str, repository: str, digests: Iterable[Digest]) -> None:
        """See `ports.State`; durable like what is recorded."""
        self._writable()
        for digest in digests:
            self._batch.see(site, repository, digest, None)
        self._write_soon()

    async def flush(self) -> None:
        """See `ports.State`. Raises `StateError` if, and only if, something recorded before is not durable."""
        if not self._read_only:
            await self._in_turn("write", self._write)
        self._complain()

    async def close_run(self, row: RunRow) -> Standing:
        """See `ports.State`. The row and all that was recorded before it are one transaction."""
        self._writable()
        standing = await self._in_turn("close a run", lambda: self._commit(row))
        self._complain()
        return standing

    async def aclose(self) -> None:
        """Flushes and closes; closes also where flushing fails. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._background is not None:
            self._background.cancel()
        try:
            await self.flush()
        finally:
            await self._in_turn("close", self._database.close)

    # --- inside ---

    def _writable(self) -> None:
        if self._read_only or self._closed:
            why = "is open for reading only" if self._read_only else "is closed"
            raise StateError(f"state {self._database.path}: {why}")

    def _moment(self) -> float:
        """Now, and later than the moment before: whereabouts are kept in order by it."""
        self._last_seen_at = max(self._clock.now(), self._last_seen_at + 1e-6)
        return self._last_seen_at

    def _complain(self) -> None:
        if self._left_out:
            count, self._left_out = self._left_out, 0
            raise StateError(
                f"state {self._database.path}: could not be written for long; {count} entries were left out"
            )

    async def _in_turn(self, operation: str, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Does the work when all that was asked before is done, and to the end whatever becomes of the caller."""

        async def run() -> _T:
            async with self._turn:
                with mapped(self._database.path, operation):
                    return await work()

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _read(self, work: Callable[[Connection], _T]) -> _T:
        return await self._database.run(work)

    async def _select(self, statement: Executable, **parameters: object) -> Sequence[Any]:
        return await self._read(lambda db: db.execute(statement, parameters).all())

    async def _execute(self, *work: tuple[Executable, list[dict[str, Any]]], synced: bool = False) -> None:
        """Executes each statement with its rows, all in one transaction; `synced`: it survives a power cut."""

        def execute(db: Connection) -> None:
            with transaction(db, synced=synced):
                for statement, rows in work:
                    execute_many(db, statement, rows)

        await self._database.run(execute)

    def _note_use(self, found: Mapping[Digest, tuple[float, float]]) -> None:
        if self._read_only or self._closed:
            return
        now = self._clock.now()
        for digest, (at, used_at) in found.items():
            if not now - USE_SECONDS < used_at <= now + CLOCK_SLACK_SECONDS:
                self._batch.create(digest, at, now)
                self._write_soon()

    async def _write(self) -> None:
        if self._batch.size:
            await self._commit(None)

    @overload
    async def _commit(self, row: RunRow) -> Standing: ...
    @overload
    async def _commit(self, row: None) -> None: ...
    async def _commit(self, row: RunRow | None) -> Standing | None:
        """Writes the batch, and closes the run where a row is given, in one transaction."""
        batch, self._batch = self._batch, Batch()
        self._enough.clear()
        now = self._clock.now()

        def work(connection: Connection) -> Standing | None:
            with transaction(connection):
                BatchWriter(connection, batch, self._names, now).write()
                if row is None:
                    return None
                sweep(connection, now)
                return write_run(connection, row, self._names, now)

        try:
            standing = await self._database.run(work)
        except BaseException:
            self._names.undo()
            batch.absorb(self._batch, now)
            self._batch = batch
            raise
        self._names.commit()
        return standing

    def _write_soon(self) -> None:
        if self._batch.size >= FLUSH_SIZE:
            self._enough.set()
        if self._background is None or self._background.done():
            # It outlives whoever recorded first, whose run its log lines are not about.
            self._background = asyncio.get_running_loop().create_task(
                self._write_in_background(), context=contextvars.Context()
            )

    async def _write_in_background(self) -> None:
        """Writes until nothing is left, whenever there is enough or some time has passed."""
        failed = False
        while self._batch.size:
            await self._enough_or_later(only_later=failed)
            try:
                await self._in_turn("write", self._write)
            except StateError as error:
                # Nothing is lost: the batch is back, and whoever flushes hears of it if it lasts.
                if not failed:
                    _log.warning("%s; trying again", error)
                failed = True
            else:
                failed = False

    async def _enough_or_later(self, *, only_later: bool) -> None:
        loop = asyncio.get_running_loop()
        waits = {loop.create_task(self._clock.sleep(FLUSH_SECONDS))}
        if not only_later:
            waits.add(loop.create_task(self._wait_for_enough()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _wait_for_enough(self) -> None:
        await self._enough.wait()


def _only(known: Mapping[_K, _V], keys: Collection[_K] | None) -> Mapping[_K, _V]:
    return known if keys is None else {key: known[key] for key in keys if key in known}


def _is_storable(event: AcceptedEvent) -> bool:
    return all(merge.is_text(name) for name in (event.id, event.repository or "", event.tag or ""))


def _event_row(event: AcceptedEvent) -> dict[str, Any]:
    return msgspec.structs.asdict(event) | {"repository": event.repository or "", "tag": event.tag or ""}
