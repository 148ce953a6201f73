"""The engine: rules in, what became of them out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from replicator.engine.context import Context
from replicator.engine.counted import counted
from replicator.engine.destination import DestinationRun
from replicator.engine.inhand import InHand
from replicator.engine.look import Batch, Look
from replicator.engine.result import DestinationResult, RuleResult
from replicator.engine.scope import Scope
from replicator.engine.shared import Shared
from replicator.engine.spool import Spool
from replicator.engine.supply import Supply
from replicator.engine.tally import Tally
from replicator.errors import ReplicatorError, StateError
from replicator.events import Events, Observed, RunEnded, RunStarted, Warned
from replicator.policy.rule import Rule
from replicator.ports import Clock, Site, State

DRAIN_SECONDS: Final = 25.0
"""What is under way when a drain begins gets so long; systemd's stop timeout leaves room for the rest."""


class Engine:
    """Runs rules over sites.

    Args:
        sites: every site that the rules name.
        state: the memory.
        events: told everything.
        clock: the time.
        spool: for sources that feed several destinations; None streams.
        rules: all rules there are, also those not run: their targets are theirs.
    """

    def __init__(
        self,
        *,
        sites: Mapping[str, Site],
        state: State,
        events: Events,
        clock: Clock,
        spool: Spool | None,
        rules: Sequence[Rule] = (),
    ) -> None:
        self._sites = sites
        self._state = state
        self._events = events
        self._clock = clock
        self._spool = spool
        self._rules = {rule.name: rule for rule in rules}
        self._in_hand = InHand(clock)
        self._shared: Shared | None = None
        self._drains: set[asyncio.Event] = set()
        self._draining = False

    async def sync(
        self,
        rules: Sequence[Rule],
        *,
        destinations: frozenset[str] | None = None,
        recheck: bool = False,
        unattended: bool = False,
        scope: Scope | None = None,
        drain: asyncio.Event | None = None,
        on_end: Callable[[str, DestinationResult], None] | None = None,
    ) -> list[RuleResult]:
        """Brings destinations in step.

        May be called while other calls are under way: runs that meet in a repository of a rule and destination go
        one after the other, and all share content and transfers.

        Args:
            rules: which, side by side.
            destinations: only these; None means all.
            recheck: asks each destination tag by tag, whatever is believed.
            unattended: leaves tags that failed before alone until their time has come.
            scope: looks only at what an event named.
            drain: once set, these runs end as `drain` ends all.
            on_end: told each rule's name and destination's result as soon as that destination is through, which may
                be long before the call returns.

        Raises:
            StateError: the memory cannot be kept; what was copied is copied.
        """
        context = self._context(rules, drain, recheck=recheck, unattended=unattended, scope=scope)
        context.on_end = on_end
        return await self._run(rules, destinations, context)

    async def plan(
        self, rules: Sequence[Rule], *, destinations: frozenset[str] | None = None
    ) -> list[RuleResult]:
        """What `sync` would do, asking only. Writes nothing, neither at a site nor to the state."""
        return await self._run(rules, destinations, self._context(rules, None, dry=True))

    def drain(self) -> None:
        """Begins nothing new. What is under way gets `DRAIN_SECONDS`; then `sync` returns, "interrupted"."""
        self._draining = True
        for drain in self._drains:
            drain.set()

    def _context(
        self,
        rules: Sequence[Rule],
        drain: asyncio.Event | None,
        *,
        dry: bool = False,
        recheck: bool = False,
        unattended: bool = False,
        scope: Scope | None = None,
    ) -> Context:
        draining = drain or asyncio.Event()
        if self._draining:
            draining.set()
        self._drains.add(draining)
        return Context(
            self._sites,
            self._state,
            self._events,
            self._clock,
            rules=self._rules | {rule.name: rule for rule in rules},
            in_hand=self._in_hand,
            dry=dry,
            recheck=recheck,
            unattended=unattended,
            scope=scope,
            draining=draining,
        )

    async def _run(
        self, rules: Sequence[Rule], destinations: frozenset[str] | None, context: Context
    ) -> list[RuleResult]:
        chosen = [(rule, _chosen(rule, destinations)) for rule in rules]
        try:
            async with self._sharing(context) as shared:
                runs = [await RuleRun.begin(rule, names, context, shared) for rule, names in chosen if names]
                await _run_all(runs)
                return [await run.close() for run in runs]
        finally:
            self._drains.discard(context.draining)

    @asynccontextmanager
    async def _sharing(self, context: Context) -> AsyncIterator[Shared]:
        """The generation to join. A plan has its own: it notes as present what it would only bring."""
        shared = None if context.dry else self._shared
        if shared is None or not shared.is_young:
            shared = Shared(self._sites, self._state, self._events, self._clock, self._spool)
            if not context.dry:
                self._shared = shared
        shared.enter()
        try:
            yield shared
        finally:
            if shared.is_last and self._shared is shared:
                self._shared = None  # nobody may join what is about to end
            await shared.leave()


def _chosen(rule: Rule, destinations: frozenset[str] | None) -> tuple[str, ...]:
    return tuple(name for name in rule.destinations if destinations is None or name in destinations)


async def _run_all(runs: Sequence[RuleRun]) -> None:
    try:
        async with asyncio.TaskGroup() as tasks:
            for run in runs:
                tasks.create_task(run.run())
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error that is ours, else the first; a task group has nothing more to say than its tasks."""
    matching = group.subgroup(ReplicatorError) or group
    error: BaseException = matching
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class RuleRun:
    """One execution of one rule."""

    def __init__(self, rule: Rule, context: Context, supply: Supply) -> None:
        self._rule = rule
        self._context = context
        self._began = context.clock.monotonic()
        self._destinations: list[DestinationRun] = []
        self._look_was_cut = False
        self._unlisten: dict[str, Callable[[], None]] = {}
        self._ends: dict[str, asyncio.Task[None]] = {}
        self._look = Look(
            rule,
            context,
            supply,
            on_batch=self._offer,
            on_failure=self._fail,
            on_warning=self._warn,
        )

    @classmethod
    async def begin(cls, rule: Rule, names: Sequence[str], context: Context, shared: Shared) -> RuleRun:
        """The run, ready to go."""
        supply = shared.supply(rule.source)
        run = cls(rule, context, supply)
        if not context.dry:
            for name in names:
                context.state.begin(rule.name, name)
        standings = {
            standing.destination: standing for standing in await context.state.standings([rule.name])
        }
        now = context.clock.now()
        for name in names:
            standing = standings.get(name)
            since = (standing.last_look or standing.first_seen) if standing else now
            if context.scope is not None and context.scope.at is not None:
                # Within what can be: the last look still agreed, and a sender's clock may be wrong.
                since = min(now, max(since, context.scope.at))
            if not context.dry:
                shared.feed(rule.source, name)
            transfers, copying = shared.writers(rule.source, name)
            destination = DestinationRun(
                rule, name, context, supply=supply, since=since, copying=copying, transfers=transfers
            )
            run._destinations.append(destination)
            run._unlisten[name] = shared.listen(rule.source, destination.tally.warn)
        return run

    @property
    def _tallies(self) -> list[Tally]:
        return [destination.tally for destination in self._destinations]

    async def run(self) -> None:
        """Looks, and feeds the destinations while looking."""
        names = tuple(tally.result.destination for tally in self._tallies)
        if not self._context.dry:
            started = RunStarted(self._rule.name, self._rule.source, names, self._context.narrowed_to)
            self._context.events.emit(started)
        async with asyncio.TaskGroup() as tasks:
            look = tasks.create_task(self._look_and_tell())
            work = [tasks.create_task(self._work(destination)) for destination in self._destinations]
            drain = tasks.create_task(self._drain([look, *work], look))
            await asyncio.wait([look, *work])
            drain.cancel()

    async def _work(self, destination: DestinationRun) -> None:
        with counted(destination.tally.result.totals):
            await destination.run()
        with suppress(StateError):  # `close` tries again, and raises it when the others are through
            if self._look.complete and not self._was_cut(destination):
                await destination.settle()
            await self._end(destination)

    async def _look_and_tell(self) -> None:
        began = self._context.clock.now()
        try:
            await self._look.run()
            if self._look.complete and not self._context.dry:
                self._context.events.emit(Observed(self._rule.name, began))
        except asyncio.CancelledError:
            self._look_was_cut = True
            if not self._context.draining.is_set():
                raise
        finally:
            self._offer(None)

    async def _drain(self, work: Sequence[asyncio.Task[None]], look: asyncio.Task[None]) -> None:
        """Waits for a drain; then ends the look at once and the rest when its time is over."""
        await self._context.draining.wait()
        look.cancel()
        await asyncio.wait(work, timeout=DRAIN_SECONDS)
        for task in work:
            task.cancel()

    def _was_cut(self, destination: DestinationRun) -> bool:
        """Whether a drain left something undone there. What was done whole by the time it came is no worse for it."""
        return self._context.draining.is_set() and (self._look_was_cut or not destination.is_through)

    def _offer(self, batch: Batch | None) -> None:
        for destination in self._destinations:
            destination.offer(batch)

    def _fail(self, error: ReplicatorError) -> None:
        for tally in self._tallies:
            tally.complete_look = False
            tally.failure(error)

    def _warn(self, text: str) -> None:
        self._context.events.emit(Warned(self._rule.source, text))
        for tally in self._tallies:
            tally.warn(text)

    async def close(self) -> RuleResult:
        """Closes the rows that are still open, and gives the result."""
        for destination in self._destinations:
            await self._end(destination)
        return RuleResult(
            self._rule.name,
            self._rule.source,
            [tally.result for tally in self._tallies],
            filters=self._look.filters if self._context.dry else None,
        )

    async def _end(self, destination: DestinationRun) -> None:
        """Closes a destination's row, once, however often it is called; cancelled, it has closed it all the same.

        Raises `StateError`: it is not closed, and the next call tries again.
        """
        name = destination.tally.result.destination
        ending = self._ends.get(name)
        if ending is None or (ending.done() and ending.exception() is not None):
            ending = self._ends[name] = asyncio.create_task(self._close(destination))
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait({ending})
            raise

    async def _close(self, destination: DestinationRun) -> None:
        """Closes a destination's row, the last thing written of it, and tells that it is through."""
        tally = destination.tally
        row = tally.close(interrupted=self._was_cut(destination))
        standing = None if self._context.dry else await self._context.state.close_run(row)
        self._unlisten.pop(row.destination)()
        if standing is not None:
            tags = tally.result.totals.tags
            self._context.events.emit(
                RunEnded(
                    self._rule.name,
                    row.destination,
                    row.outcome,
                    self._context.clock.monotonic() - self._began,
                    in_step=row.in_step,
                    pending=standing.pending,
                    held=tags.held,
                    failed=tags.failed,
                    copied=tags.copied,
                    repositories=self._context.narrowed_to,
                )
            )
        if self._context.on_end is not None:
            self._context.on_end(self._rule.name, tally.result)
