"""The state in a database: a SQLite file, or PostgreSQL."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, overload

import msgspec
from sqlalchemy import Connection, Executable

from replicator.errors import StateError
from replicator.model.digest import Digest
from replicator.policy.recheck import CLOCK_SLACK_SECONDS
from replicator.ports import (
    AcceptedEvent,
    Clock,
    Entry,
    RunRow,
    Seen,
    Standing,
)
from replicator.state import merge, statements
from replicator.state.batch import Batch
from replicator.state.database import Database, transaction
from replicator.state.place import EXTRA, Claim, Place
from replicator.state.recall import Notified, Recall
from replicator.state.sqlite import open_database, open_for_reading
from replicator.state.writing import BatchWriter, Names, execute_many, sweep, write_run

_log = logging.getLogger(__name__)

BUSY_SECONDS: Final = 5.0
"""How long another process's write transaction is waited for."""
FLUSH_SECONDS: Final = 1.0
FLUSH_SIZE: Final = 500
"""What was recorded is written in the background after this many seconds, or this many entries."""
USE_SECONDS: Final = 7 * 86_400.0
"""How precisely it is remembered that a creation time was wanted."""
MAX_SIZE: Final = 200_000
"""No more is held in memory while the file cannot be written; the rest is left out, and `flush` says so."""


async def open_state(
    place: Place,
    *,
    clock: Clock,
    read_only: bool = False,
    claim: Claim | None = None,
    busy_seconds: float = BUSY_SECONDS,
) -> StoredState:
    """Opens the state. One that does not exist starts empty; so does a file of another schema, which is kept as `*.old`.

    Args:
        place: a file, whose folder is created where missing, or a database, which gets its tables where it has none.
        clock: tells and spends time.
        read_only: nothing is written: a file or tables that do not exist, and a file of another schema, read as empty and
            are left alone. What would record raises `StateError`.
        claim: what to hold of a database while it is open. Of a file, `locks.hold` holds it.
        busy_seconds: how long another process's write to a file is waited for.

    Raises:
        StateInUse: somebody else holds what is claimed of a database.
        StateError: the file is not a database, another program's, damaged, busy for too long, or cannot be opened,
            created or written; the database cannot be reached or used, or is of another generation of the program. It is
            then left as it is.
    """
    if isinstance(place, Path):
        open_it = open_for_reading if read_only else open_database
        return StoredState(await open_it(place, busy_seconds), clock, read_only=read_only)
    try:
        from replicator.state.postgres.database import PostgresDatabase  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise StateError(f"state {place}: {EXTRA} ({error})") from error
    database = PostgresDatabase(place, claim=claim, read_only=read_only)
    return StoredState(await database.opened(), clock, read_only=read_only)


class StoredState(Recall):
    """`ports.State`: `Recall`, and what records.

    What is recorded gathers in a batch that is written as one transaction. A batch that could not be written goes back
    under what came later.
    """

    def __init__(self, database: Database, clock: Clock, *, read_only: bool) -> None:
        super().__init__(database, clock)
        self._read_only = read_only
        self._closed = False
        self._left_out = 0
        self._names = Names()
        self._last_seen_at = 0.0
        self._enough = asyncio.Event()
        self._background: asyncio.Task[None] | None = None

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

    async def tell(self, told: Notified) -> None:
        """Notes that a receiver knows of a condition; durable on return. Raises `StateError`."""
        self._writable()
        work = statements.TELL, [msgspec.structs.asdict(told)]
        await self._in_turn("note what was told", lambda: self._execute(work))

    async def untell(self, told: Notified) -> None:
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
            raise StateError(f"state {self._database.name}: {why}")

    def _moment(self) -> float:
        """Now, and later than the moment before: whereabouts are kept in order by it."""
        self._last_seen_at = max(self._clock.now(), self._last_seen_at + 1e-6)
        return self._last_seen_at

    def _complain(self) -> None:
        if self._left_out:
            count, self._left_out = self._left_out, 0
            raise StateError(
                f"state {self._database.name}: could not be written for long; {count} entries were left out"
            )

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
            self._names.undo()  # of a transaction that was lost with its connection
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


def _is_storable(event: AcceptedEvent) -> bool:
    return all(merge.is_text(name) for name in (event.id, event.repository or "", event.tag or ""))


def _event_row(event: AcceptedEvent) -> dict[str, Any]:
    return msgspec.structs.asdict(event) | {"repository": event.repository or "", "tag": event.tag or ""}
