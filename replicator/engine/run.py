"""One execution of one rule, as a view over its scan and its destinations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

from replicator.engine.accounting import counted
from replicator.engine.content.source import SourceContent
from replicator.engine.context import DRAIN_SECONDS, Context
from replicator.engine.destination import DestinationRun
from replicator.engine.observe.source import SourceScan
from replicator.engine.observe.wanted import WantedTags
from replicator.engine.record import Recorder
from replicator.engine.result import RuleResult, first_causes
from replicator.engine.shared import Shared
from replicator.errors import ReplicatorError, StateError
from replicator.events import Observed, RunEnded, RunStarted, Warned
from replicator.policy.rule import Rule
from replicator.ports import ExpectsContent, Standing


class RuleRun:
    """One execution of one rule."""

    def __init__(self, rule: Rule, context: Context, content: SourceContent) -> None:
        self._rule = rule
        self._context = context
        self._began = context.clock.monotonic()
        self._destinations: list[DestinationRun] = []
        self._scan_began = context.clock.now()
        self._scan_was_cut = False
        self._unlisten: dict[str, Callable[[], None]] = {}
        self._ends: dict[str, asyncio.Task[None]] = {}
        self._scan = SourceScan(
            rule,
            context,
            content,
            on_batch=self._offer,
            on_failure=self._fail,
            on_warning=self._warn,
        )

    @classmethod
    async def begin(cls, rule: Rule, names: Sequence[str], context: Context, shared: Shared) -> RuleRun:
        """The run, ready to go."""
        run = cls(rule, context, shared.content(rule.source))
        if not context.request.dry:
            for name in names:
                context.state.begin(rule.name, name)
        first_seen: dict[str, float] = {}
        for standing in await context.state.standings([rule.name]):
            first_seen[standing.destination] = standing.first_seen
            if standing.destination in names:
                await _expect_content(standing, rule.source, context)
        for name in names:
            if not context.request.dry:
                shared.feed(rule.source, name)
            transfers, writer = shared.writers(rule.source, name)
            destination = DestinationRun(
                rule,
                name,
                context,
                content=shared.content(rule.source),
                since=await _dating(rule, name, context, first_seen.get(name)),
                writer=writer,
                transfers=transfers,
                queue=shared.queue(name),
            )
            run._destinations.append(destination)
            run._unlisten[name] = shared.listen(rule.source, destination.recorder.warn)
        return run

    @property
    def _recorders(self) -> list[Recorder]:
        return [destination.recorder for destination in self._destinations]

    async def run(self) -> None:
        """Scans, and feeds the destinations while scanning."""
        names = tuple(recorder.result.destination for recorder in self._recorders)
        if not self._context.request.dry:
            started = RunStarted(self._rule.name, self._rule.source, names, self._context.request.narrowed_to)
            self._context.events.emit(started)
        async with asyncio.TaskGroup() as tasks:
            scan = tasks.create_task(self._scan_and_tell())
            work = [tasks.create_task(self._work(destination)) for destination in self._destinations]
            drain = tasks.create_task(self._drain([scan, *work], scan))
            await asyncio.wait([scan, *work])
            drain.cancel()

    async def _work(self, destination: DestinationRun) -> None:
        with counted(destination.recorder.result.totals):
            await destination.run()
        with suppress(StateError):  # `close` tries again, and raises it when the others are through
            if not self._was_cut(destination):
                self._settle(destination)
            await self._end(destination)

    def _settle(self, destination: DestinationRun) -> None:
        """What a scan without gaps says about everything that it did not find."""
        repositories = self._scan.repositories
        if repositories is not None:
            at = self._scan_began if self._scan.listed_at is None else self._scan.listed_at
            destination.recorder.catalog(repositories, at)
        if self._scan.complete:
            destination.settle(self._scan_began)

    async def _scan_and_tell(self) -> None:
        self._scan_began = self._context.clock.now()
        try:
            await self._scan.run()
            request = self._context.request
            if self._scan.complete and not request.dry and request.shard is None:
                self._context.events.emit(Observed(self._rule.name, self._scan_began))
        except asyncio.CancelledError:
            self._scan_was_cut = True
            if not self._context.request.draining.is_set():
                raise
        finally:
            self._offer(None)

    async def _drain(self, work: Sequence[asyncio.Task[None]], scan: asyncio.Task[None]) -> None:
        """Waits for a drain; then ends the scan at once and the rest when its time is over."""
        await self._context.request.draining.wait()
        scan.cancel()
        await asyncio.wait(work, timeout=DRAIN_SECONDS)
        for task in work:
            task.cancel()

    def _was_cut(self, destination: DestinationRun) -> bool:
        """Whether a drain left something undone there. What was complete by then is not affected."""
        return self._context.request.draining.is_set() and (self._scan_was_cut or not destination.is_through)

    def _offer(self, batch: WantedTags | None) -> None:
        for destination in self._destinations:
            destination.offer(batch)

    def _fail(self, error: ReplicatorError) -> None:
        for recorder in self._recorders:
            recorder.complete_look = False
            recorder.failure(error)

    def _warn(self, text: str) -> None:
        self._context.events.emit(Warned(self._rule.source, text))
        for recorder in self._recorders:
            recorder.warn(text)

    async def close(self) -> RuleResult:
        """Closes the rows that are still open, and gives the result."""
        for destination in self._destinations:
            await self._end(destination)
        return RuleResult(
            self._rule.name,
            self._rule.source,
            [recorder.result for recorder in self._recorders],
            filters=self._scan.filters if self._context.request.dry else None,
        )

    async def _end(self, destination: DestinationRun) -> None:
        """Closes a destination's row, once, however often it is called; cancelled, it has closed it all the same.

        Raises `StateError`: it is not closed, and the next call tries again.
        """
        name = destination.recorder.result.destination
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
        recorder = destination.recorder
        row = recorder.close(interrupted=self._was_cut(destination))
        standing = None if self._context.request.dry else await self._context.state.close_run(row)
        self._unlisten.pop(row.destination)()
        if standing is not None:
            tags = recorder.result.totals.tags
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
                    repositories=self._context.request.narrowed_to,
                    causes=first_causes(recorder.result.failures),
                    untrusted=recorder.untrusted_tags if row.complete_look else None,
                    shard=row.shard,
                )
            )
        if self._context.request.listener.ended is not None:
            self._context.request.listener.ended(self._rule.name, recorder.result)


async def _dating(
    rule: Rule, destination: str, context: Context, first_seen: float | None
) -> Callable[[str], float]:
    """What dates changes that a run sees first, by source repository, epoch seconds.

    The last complete listing of the repository still agreed; an event's own time is more precise, but its clock may be
    wrong. Where the repository was never listed, the age of the rule is all there is.
    """
    now = context.clock.now()
    scope = context.request.scope
    named = None if scope is None else scope.repositories.keys()
    agreed = await _agreed(rule, destination, context, named)
    if named is not None and not named <= agreed.keys():
        agreed = await _agreed(rule, destination, context, None)
    # A repository that is new was not in the catalog when the others were listed.
    oldest = max(agreed.values(), default=now if first_seen is None else min(now, first_seen))

    def since(repository: str) -> float:
        at = agreed.get(repository, oldest)
        return at if scope is None or scope.at is None else min(now, max(at, scope.at))

    return since


async def _agreed(
    rule: Rule, destination: str, context: Context, repositories: Collection[str] | None
) -> Mapping[str, float]:
    """When source repositories were last listed completely, those that ever were; all, or these."""
    assignment = context.request.assignment
    if repositories is not None or assignment is None or assignment.tick is None:
        return await _read_agreed(rule, destination, context, repositories)
    return await context.ticks.agreed.get(
        (rule.name, destination), assignment.tick, lambda: _read_agreed(rule, destination, context, None)
    )


async def _read_agreed(
    rule: Rule, destination: str, context: Context, repositories: Collection[str] | None
) -> dict[str, float]:
    now = context.clock.now()
    return {
        unit.repository: min(now, unit.source_complete_at)
        for unit in await context.state.units(rule.name, destination, repositories)
        if unit.source_complete_at is not None
    }


async def _expect_content(standing: Standing, source: str, context: Context) -> None:
    """Tells sites in which there were images that they are not empty: what looks so is not mounted."""
    sites = [
        site
        for name in (source, standing.destination)
        if isinstance(site := context.sites[name], ExpectsContent)
    ]
    if sites and await _had_images(standing, context):
        for site in sites:
            site.expect_content()


async def _had_images(standing: Standing, context: Context) -> bool:
    """Whether there were images at the destination, as far as the state knows."""
    if standing.in_step or not standing.unknown:
        return standing.in_step > 0
    # The last run could not ask, so nothing counts as in step; what was found there before is still believed.
    for unit in await context.state.units(standing.rule, standing.destination):
        was_listed = unit.destination_complete_at is not None
        if unit.unknown and was_listed and await context.state.beliefs(unit.destination, unit.target):
            return True
    return False
