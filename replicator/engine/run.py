"""One execution of one rule, as a view over its scan and its destinations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from replicator.engine.accounting import counted
from replicator.engine.content.source import SourceContent
from replicator.engine.context import DRAIN_SECONDS, Context
from replicator.engine.destination import DestinationRun
from replicator.engine.observe.source import SourceScan
from replicator.engine.observe.wanted import WantedTags
from replicator.engine.record import Recorder
from replicator.engine.result import RuleResult
from replicator.engine.shared import Shared
from replicator.errors import ReplicatorError, StateError
from replicator.events import Observed, RunEnded, RunStarted, Warned
from replicator.policy.rule import Rule


class RuleRun:
    """One execution of one rule."""

    def __init__(self, rule: Rule, context: Context, content: SourceContent) -> None:
        self._rule = rule
        self._context = context
        self._began = context.clock.monotonic()
        self._destinations: list[DestinationRun] = []
        self._look_was_cut = False
        self._unlisten: dict[str, Callable[[], None]] = {}
        self._ends: dict[str, asyncio.Task[None]] = {}
        self._look = SourceScan(
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
        content = shared.content(rule.source)
        run = cls(rule, context, content)
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
            transfers, writer = shared.writers(rule.source, name)
            destination = DestinationRun(
                rule, name, context, content=content, since=since, writer=writer, transfers=transfers
            )
            run._destinations.append(destination)
            run._unlisten[name] = shared.listen(rule.source, destination.recorder.warn)
        return run

    @property
    def _recorders(self) -> list[Recorder]:
        return [destination.recorder for destination in self._destinations]

    async def run(self) -> None:
        """Looks, and feeds the destinations while looking."""
        names = tuple(recorder.result.destination for recorder in self._recorders)
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
        with counted(destination.recorder.result.totals):
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
            filters=self._look.filters if self._context.dry else None,
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
        standing = None if self._context.dry else await self._context.state.close_run(row)
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
                    repositories=self._context.narrowed_to,
                )
            )
        if self._context.on_end is not None:
            self._context.on_end(self._rule.name, recorder.result)
