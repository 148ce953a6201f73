"""What is remembered: what the file says, with what is not written yet laid over it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Executable

from replicator.model.digest import Digest
from replicator.ports import (
    AcceptedEvent,
    BehindRepository,
    Clock,
    Listed,
    ListingRefused,
    Pending,
    Placement,
    RunRow,
    Standing,
    TagBelief,
    Unit,
)
from replicator.ports.search import Holding, ImageFacts, Move, Query
from replicator.state import queries, reading
from replicator.state import search as index
from replicator.state.batch import Batch
from replicator.state.database import Database, transaction

_T = TypeVar("_T")
_K = TypeVar("_K")
_V = TypeVar("_V")


class Notified(msgspec.Struct, frozen=True):
    """A receiver of notifications knows that a condition holds for a rule at a destination."""

    receiver: str
    rule: str
    destination: str
    condition: str


class Recall(ABC):
    """The part of `ports.State` that reads. Reads see all that was recorded before, durable or not.

    Everything that touches the database runs one after the other, each in a task of its own, so that a caller who is
    cancelled leaves nothing half done: the work goes on without him.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._batch = Batch()
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    @abstractmethod
    async def flush(self) -> None:
        """See `ports.State`."""

    @abstractmethod
    def _note_use(self, found: Mapping[Digest, tuple[float, float]]) -> None:
        """These creation times were asked for: when they are, and when they were asked for last."""

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
            return self._batch.over_placements(found, (destination, repository), digests)

        return await self._in_turn("read placements", read)

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

    async def units(
        self, rule: str, destination: str | None = None, repositories: Collection[str] | None = None
    ) -> Sequence[Unit]:
        """See `ports.State`. Flushes first."""
        await self.flush()

        async def read() -> Sequence[Unit]:
            return await self._read(lambda db: reading.read_units(db, rule, destination, repositories))

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

    async def listing_refusals(self, site: str, repository: str) -> Sequence[ListingRefused]:
        """See `ports.State`."""

        async def read() -> Sequence[ListingRefused]:
            found = await self._read(lambda db: reading.read_refusals(db, site, repository))
            return self._batch.over_refusals(found, (site, repository))

        return await self._in_turn("read refusals", read)

    async def standings(self, rules: Sequence[str] | None = None) -> Sequence[Standing]:
        """See `ports.State`; by rule, then destination. Flushes first."""
        await self.flush()
        now = self._clock.now()

        def at_one_moment(db: Connection) -> Sequence[Standing]:
            with transaction(db, writing=False):
                return reading.read_standings(db, now)

        async def read() -> Sequence[Standing]:
            found = await self._read(at_one_moment)
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

    async def told(self) -> frozenset[Notified]:
        """What receivers of notifications know of."""

        async def read() -> frozenset[Notified]:
            return frozenset(Notified(*row) for row in await self._select(queries.TOLD))

        return await self._in_turn("read what was told", read)

    # --- inside ---

    async def _in_turn(self, operation: str, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Does the work when all that was asked before is done, and to the end whatever becomes of the caller."""

        async def run() -> _T:
            async with self._turn:
                with self._database.mapped(operation):
                    return await work()

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: its caller may be gone, and asyncio would log it with a traceback

    async def _read(self, work: Callable[[Connection], _T]) -> _T:
        return await self._database.run(work)

    async def _select(self, statement: Executable, **parameters: object) -> Sequence[Any]:
        return await self._read(lambda db: db.execute(statement, parameters).all())


def _only(known: Mapping[_K, _V], keys: Collection[_K] | None) -> Mapping[_K, _V]:
    return known if keys is None else {key: known[key] for key in keys if key in known}
