"""One agent's part in a fleet: its session, its queue, its heartbeats, and what it does about agents that are lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from replicator.errors import StateError
from replicator.events import Events, Warned
from replicator.events.agent import DatabaseSeen, FleetSeen, JobBegun, SplitOff, TakenOver
from replicator.fleet import agents as living_agents
from replicator.fleet import definitions, failures, looks
from replicator.fleet.agents import Self
from replicator.fleet.connections import DATABASE_ERRORS, Connection, Dsn, as_state_error
from replicator.fleet.definitions import Definition
from replicator.fleet.duties import Duties
from replicator.fleet.looks import Look, LookBegun
from replicator.fleet.ownership import BlobClaims, Claim, Claims
from replicator.fleet.pulls import Pulls
from replicator.fleet.queue import Queue
from replicator.fleet.relay import Relay
from replicator.fleet.roster import SKEW_SECONDS, Agent, Roster
from replicator.fleet.session import Session
from replicator.fleet.times import Times
from replicator.fleet.work import LOOKS_QUEUE, Done, Work, queue_to
from replicator.fleet.workers import Workers
from replicator.flow.ending import end
from replicator.ports import Clock

_log = logging.getLogger(__name__)

_SWEEP: Final = "sweep"
_HOURS_KEPT: Final = 24

_COUNTS: Final = "SELECT queue_name, status::text, count(*) FROM procrastinate_jobs GROUP BY 1, 2"


class Fleet:
    """See the module. Made by `Fleet.join`."""

    def __init__(
        self, dsn: Dsn, me: Self, duties: Duties, *, jobs: int, events: Events, clock: Clock, times: Times
    ) -> None:
        self.me = me
        self._duties = duties
        self._events = events
        self._clock = clock
        self.times = times
        self._claims = Claims()
        self._session = Session(dsn, me.name, times, on_back=self._came_back)
        self._queue = Queue(dsn, me.name, perform=self._perform, ended=self._ended)
        self._workers = Workers(self._queue, jobs, times)
        self._relay = Relay(dsn, me.name, events, self._queue.fetch)
        self._owned: dict[int, Claim] = {}
        self.blob_claims = BlobClaims(self._session)
        self.pulls = Pulls(me.name, self._queue)
        self.living: Sequence[Agent] = ()
        self._roster = Roster((), clock.now(), times.dead)
        self.draining = False
        """Somebody asked this agent to take no more work: `replicator fleet drain`."""
        self._is_working = False
        self._time: tuple[float, float] = (clock.now(), clock.monotonic())
        self._orphaned: dict[str, float] = {}
        self._adopted: set[str] = set()
        self._sweeps_in = 0
        self._ownerless: frozenset[int] = frozenset()
        self._warned_of_skew = False

    @classmethod
    @contextlib.asynccontextmanager
    async def join(
        cls, dsn: Dsn, me: Self, duties: Duties, *, jobs: int, events: Events, clock: Clock, times: Times
    ) -> AsyncIterator[Fleet]:
        """An agent that is part of the fleet; it takes work after `begin`. Raises StateError."""
        logging.getLogger("procrastinate").setLevel(logging.ERROR)  # says each job's start and end
        fleet = cls(dsn, me, duties, jobs=jobs, events=events, clock=clock, times=times)
        await fleet._session.open()
        try:
            with as_state_error("connect"):
                await fleet._queue.open()
            await fleet._beat()
            async with asyncio.TaskGroup() as tasks:
                side = [
                    tasks.create_task(each)
                    for each in (fleet._live(), fleet._sweep(), fleet._maintain(), fleet._relay.run())
                ]
                try:
                    yield fleet
                finally:
                    await fleet._leave()
                    await end(*side)
        finally:
            await fleet._queue.aclose()
            await fleet._session.aclose()

    # --- facts ---

    @property
    def is_up(self) -> bool:
        """Whether the database is there."""
        return self._session.is_up

    @property
    def leads(self) -> bool:
        """Whether this is the one agent that does what has to be done once for all."""
        return self.is_up and self._sweeps_in == self._session.generation

    def now(self) -> float:
        """Epoch seconds by the database's clock, as of the last heartbeat and the steady time since."""
        at, steady = self._time
        return at + self._clock.monotonic() - steady

    @property
    def roster(self) -> Roster:
        """All agents, as of the last heartbeat."""
        return replace(self._roster, is_current=self.is_up)

    def shares(self, sites: Collection[str]) -> Mapping[str, float]:
        """By site, this agent's part of its limits."""
        return living_agents.shares(self.me.name, self.living, sites)

    # --- work ---

    def begin(self) -> None:
        """Takes work from now on, also of destinations that are new in the config."""
        self._is_working = True
        self._serve()

    def stop(self) -> None:
        """Takes no more work."""
        self._is_working = False
        self._serve()

    async def defer(self, works: Sequence[Work]) -> None:
        """See `Queue.defer`. Raises StateError."""
        with as_state_error("put work into the queue"):
            now = self.now()
            await self._queue.defer(
                [msgspec.structs.replace(work, since=work.since or now) for work in works]
            )

    async def alone(self, rule: str) -> list[Work]:
        """See `Queue.alone`. Raises StateError."""
        with as_state_error("look for repositories that were split off"):
            return await self._queue.alone(rule)

    async def split_off(self, claim: Claim, work: Work) -> bool:
        """See `Queue.split_off`. Raises StateError, OwnershipLostError."""
        with as_state_error("split off a repository"):
            work = msgspec.structs.replace(work, since=self.now())
            if not await self._queue.split_off(claim.job, work):
                return False
        self._events.emit(SplitOff(work.rule, work.destinations, work.alone))
        return True

    async def within_cap(self, works: Sequence[Work]) -> list[Work]:
        """As many of these as may wait beside what waits already. Raises StateError."""
        with as_state_error("count what waits"):
            return await self._queue.within_cap(works)

    async def defer_tick(self, work: Work, periodic_id: str, tick: int) -> bool:
        """See `Queue.defer_tick`. Raises StateError."""
        with as_state_error("put a look into the queue"):
            return await self._queue.defer_tick(work, periodic_id, tick)

    @property
    def is_eldest(self) -> bool:
        """Whether no living agent joined before this one: then nobody took care of rules and events before it."""
        mine = (self.me.started, self.me.name)
        return all((each.started, each.name) > mine for each in self.living if each.name != self.me.name)

    async def note_definition(self, rule: str, identity: str, *, since: float) -> Definition:
        """See `definitions.note`. Raises StateError."""
        async with self.connection("note a rule") as connection:
            return await definitions.note(connection, rule, identity, since=since)

    async def forget_definition(self, rule: str, identity: str) -> None:
        """See `definitions.forget`. Raises StateError."""
        async with self.connection("forget a rule") as connection:
            await definitions.forget(connection, rule, identity)

    @contextlib.asynccontextmanager
    async def connection(self, operation: str) -> AsyncIterator[Connection]:
        """A connection, and a transaction, for `operation`. Raises StateError."""
        with as_state_error(operation):
            async with self._queue.connection() as connection:
                yield connection

    async def note_failures(self, rule: str, sites: Sequence[str], tick: int) -> None:
        """A shard of a look failed as a whole at these destinations. Raises StateError."""
        async with self.connection("note failures") as connection:
            for site in sites:
                await failures.note(connection, rule, site, tick)

    async def failures(self, rule: str, healthy: Collection[str]) -> Mapping[str, tuple[int, float]]:
        """By destination, how many looks in a row failed, and how many seconds ago; those that are healthy are forgotten.

        Raises StateError.
        """
        async with self.connection("read failures") as connection:
            found = await failures.find(connection, rule)
            for site in set(found).intersection(healthy):
                await failures.forget(connection, rule, site)
            return {site: known for site, known in found.items() if site not in healthy}

    async def begin_look(self, look: LookBegun) -> None:
        """The look's end is told once its shards are through. Raises StateError."""
        async with self.connection("begin a look") as connection:
            await looks.begin(connection, look)

    # --- inside: work ---

    async def _perform(self, number: int, work: Work) -> Done:
        each = [work.lock]
        if work.shard is not None and len(work.destinations) > 1:
            each += [_to_one(work, destination).lock for destination in work.destinations]
        try:
            claim = await self._claims.take(self._session, each, number, shared=self._duties.places(work))
        except StateError:
            return Done(again=work)
        if claim is None:
            return Done(again=work, delay=self.times.busy)
        self._owned[number] = claim
        if work.since:
            self._events.emit(JobBegun(max(0.0, self.now() - work.since)))
        return await self._duties.perform(work, claim)

    async def _ended(self, number: int, ended: Sequence[Look]) -> None:
        claim = self._owned.pop(number, None)
        if claim is not None:
            await self._claims.give_back(claim)
        for look in ended:
            await self._duties.look_ended(look)

    def _serve(self) -> None:
        if self.draining or not self._is_working:
            self._workers.serve(())
            return
        serves = self.me.serves
        sites = {site for site in self._duties.destinations() if serves is None or site in serves}
        self._workers.serve({LOOKS_QUEUE, *map(queue_to, sites | self._adopted)})

    async def _leave(self) -> None:
        self.stop()
        self._queue.give_up()
        await self._workers.aclose()
        with contextlib.suppress(StateError):
            await living_agents.leave(self._session, self.me.name)

    async def _came_back(self) -> None:
        await self._claims.retake(self._session)
        self._adopted.clear()
        with contextlib.suppress(StateError):
            await self._beat()
        self._duties.changed()

    # --- inside: who lives ---

    async def _live(self) -> None:
        while True:
            await asyncio.sleep(self.times.heartbeat * random.uniform(0.9, 1.1))  # noqa: S311
            try:
                if self.is_up:
                    await self._beat()
            except StateError as error:
                _log.info("no heartbeat: %s", error)
            self._events.emit(DatabaseSeen(self.is_up))
            self._duties.changed()

    async def _beat(self) -> None:
        began = self._clock.monotonic()
        draining, now = await living_agents.beat(self._session, self.me)
        steady = self._clock.monotonic()
        self._time = (now, steady)
        self.me.clock_skew = round(self._clock.now() - now - (steady - began) / 2, 3)
        self._warn_of_skew()
        everyone = await living_agents.agents(self._session)
        self._roster = Roster(tuple(everyone), self._clock.now(), self.times.dead)
        self._note_living([each for each in everyone if each.silent <= self.times.dead])
        dead = [each.name for each in everyone if self.times.dead < each.silent < 20 * self.times.dead]
        await self._end_what_is_silent(dead)
        self.draining = draining
        await self._adopt(now)
        await self._tell()
        self._serve()

    def _note_living(self, living: Sequence[Agent]) -> None:
        before, now = ({each.name for each in agents} for agents in (self.living, living))
        self.living = living
        if not before:
            _log.info("joined the fleet; agents: %s", ", ".join(sorted(now)))
            return
        for change, names in (("joined", now - before), ("left, or is silent", before - now)):
            for name in sorted(names):
                _log.info("agent %s %s; agents: %d", name, change, len(now))

    async def _tell(self) -> None:
        """Tells how the fleet is; one agent counts the jobs, too."""
        serving = {site: sum(each.has(site) for each in self.living) for site in self._duties.destinations()}
        jobs = None
        if self.leads:
            jobs = {(queue, status): count for queue, status, count in await self._session.fetch(_COUNTS)}
        self._events.emit(FleetSeen(len(self.living), serving, jobs))

    def _warn_of_skew(self) -> None:
        skew = self.me.clock_skew
        if abs(skew) > SKEW_SECONDS and not self._warned_of_skew:
            what = "ahead of" if skew > 0 else "behind"
            self._events.emit(
                Warned(None, f"the clock of this machine is {abs(skew):.0f} s {what} that of the database")
            )
        self._warned_of_skew = abs(skew) > SKEW_SECONDS

    async def _adopt(self, now: float) -> None:
        """Takes the work of destinations that nobody has served for long: one agent each; gives it back, or when draining."""
        sites = () if self.draining else self._duties.destinations()
        nobodys = living_agents.orphans(self.living, sites)
        self._orphaned = {site: self._orphaned.get(site, now) for site in nobodys}
        for site in self._adopted - nobodys:
            self._adopted.discard(site)
            await self._session.unlock(f"site {site}")
        for site, since in self._orphaned.items():
            is_due = now - since >= self.times.orphaned and site not in self._adopted
            if is_due and await self._session.try_lock(f"site {site}"):
                self._adopted.add(site)
                _log.warning("no agent serves %s; taking over its work", site)

    # --- inside: what is lost ---

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.times.sweep * random.uniform(0.9, 1.1))  # noqa: S311
            if not self.is_up:
                self._ownerless = frozenset()
                continue
            try:
                await self._take_over_what_is_lost()
            except (StateError, *DATABASE_ERRORS) as error:
                _log.info("cannot look for lost work: %s", str(error).strip())

    async def _end_what_is_silent(self, dead: Collection[str]) -> None:
        """Ends the sessions of agents without a heartbeat, and takes over what they owned."""
        owned = await living_agents.end_sessions(self._session, dead, self.times.dead)
        if not owned:
            return
        try:
            await self._take_over(owned & await living_agents.ownerless(self._session))
        except DATABASE_ERRORS as error:  # the next sweep does it
            _log.info("cannot take over lost work: %s", str(error).strip())

    async def _take_over_what_is_lost(self) -> None:
        """One agent does it. A job is lost when two looks in a row found no session that has it."""
        generation = self._session.generation
        if self._sweeps_in != generation:
            if not await self._session.try_lock(_SWEEP):
                return
            self._sweeps_in = generation
        found = await living_agents.ownerless(self._session)
        lost, self._ownerless = found & self._ownerless, found
        await self._take_over(lost)

    async def _take_over(self, lost: Collection[int]) -> None:
        for number in lost:
            work = await self._queue.take_over(number)
            if work is not None:
                _log.warning("took over %s", work)
                self._events.emit(TakenOver(work.rule, work.destinations, work.shard))

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(self.times.maintenance * random.uniform(0.5, 1.0))  # noqa: S311
            try:
                async with self._session.holding("maintenance") as mine:
                    if mine:
                        await self._remove_the_old()
            except (StateError, *DATABASE_ERRORS) as error:
                _log.info("cannot remove old rows: %s", str(error).strip())

    async def _remove_the_old(self) -> None:
        await self._queue.manager.delete_old_jobs(
            _HOURS_KEPT, include_failed=True, include_cancelled=True, include_aborted=True
        )
        await living_agents.forget_the_dead(self._session)
        async with self._queue.connection() as connection:
            await looks.forget(connection)
            await failures.forget_the_old(connection)


def _to_one(work: Work, destination: str) -> Work:
    return msgspec.structs.replace(work, destinations=(destination,))
