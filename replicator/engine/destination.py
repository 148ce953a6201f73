"""One rule at one destination: from the batches of a scan to the row that closes the run."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from replicator.engine.answers import Answers
from replicator.engine.content.source import SourceContent
from replicator.engine.context import Context
from replicator.engine.copying import Copying
from replicator.engine.deciding import Deciding
from replicator.engine.faults import faults
from replicator.engine.observe.destination import Catalog, DestinationCatalogs
from replicator.engine.observe.subjects import named_by_referrers
from replicator.engine.observe.wanted import WantedTags
from replicator.engine.plan.action import Action
from replicator.engine.plan.decision import (
    Ask,
    Conflict,
    Copy,
    Decision,
    Gone,
    Held,
    InStep,
    Postponed,
    Skipped,
    told,
)
from replicator.engine.plan.stale import StaleTags
from replicator.engine.queue import Copies, CopyQueue, Prepared
from replicator.engine.record import Recorder
from replicator.engine.result import TagDecision
from replicator.engine.transfer.blob import BlobTransfers
from replicator.engine.transfer.graph import ImageWriter
from replicator.engine.units import UnitCount
from replicator.errors import Rejected, SiteError
from replicator.events import TagPlanned
from replicator.model.image import Image
from replicator.policy.mapping import target_repository, target_tag
from replicator.policy.rule import Rule
from replicator.policy.selection import exact_tags, judges_each_alone

FEW_TAGS: Final = 3
"""With at most this many exactly named tags, the destination is asked for each instead of for its whole listing."""
FEW_NAMED_TAGS: Final = 32
"""The same for tags that an event named: there may be 100,000 others."""


class DestinationRun:
    """Takes batches as the scan finds them, decides, copies, records.

    It has its own pace: what is slow here delays no other destination.

    Args:
        rule: the rule.
        destination: the site's name.
        context: the run.
        content: the source's content.
        since: tells of a source repository what dates changes that are first seen now (epoch seconds).
        writer: writes images there, shared by all rules.
        transfers: moves blobs there, shared too.
        queue: the destination's.
    """

    def __init__(
        self,
        rule: Rule,
        destination: str,
        context: Context,
        *,
        content: SourceContent,
        since: Callable[[str], float],
        writer: ImageWriter,
        transfers: BlobTransfers,
        queue: CopyQueue,
    ) -> None:
        self._rule = rule
        self._site = context.sites[destination]
        self._context = context
        self._request = context.request
        self._content = content
        self._since = since
        self.recorder = Recorder(rule, destination, context)
        self._answers = Answers(rule, destination, context)
        self._deciding = Deciding(
            rule,
            destination,
            context,
            content=content,
            since=since,
            act=self._act,
            recorder=self.recorder,
        )
        self._batches: asyncio.Queue[WantedTags | None] = asyncio.Queue()
        self._entered: set[str] = set()
        self._undecided_batches: Counter[str] = Counter()
        self._has_all_batches = False
        self._was_scanned_told = False
        self._undecided = False
        self._is_over = False
        self._stale = StaleTags(rule.name)
        self._catalogs = DestinationCatalogs(
            rule,
            destination,
            context,
            listing=_wants_listing(rule, context),
            only=self._only,
            on_failure=self._blind,
        )
        self._copying = Copying(
            rule,
            context,
            content=content,
            writer=writer,
            transfers=transfers,
            catalogs=self._catalogs,
            recorder=self.recorder,
            answers=self._answers,
        )
        copy = self._plan if self._request.dry else self._copy
        self._copies = Copies(queue, self._prepare, copy, self._request.draining)

    def offer(self, batch: WantedTags | None) -> None:
        """Takes a batch; None when the scan has ended."""
        self._batches.put_nowait(batch)

    async def run(self) -> None:
        """Returns when all that was offered is dealt with, or drained."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._take_batches())
                await self._copies.run()
            self._is_over = True
        finally:
            self._catalogs.release()

    @property
    def is_through(self) -> bool:
        """Whether all that was offered has been dealt with, so that a drain left nothing of it undone."""
        return self._is_over and not (
            self._undecided or self._copies.has_left or self.recorder.was_interrupted
        )

    # --- deciding ---

    async def _take_batches(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while (batch := await self._batches.get()) is not None:
                if self._copying.weighing.is_left(batch.target):
                    self._leave_to_others(batch)
                    continue
                if self._catalogs.is_left(batch.target):
                    self._leave_busy(batch)
                    continue
                self._catalogs.enter(batch.target)
                if batch.repository not in self._entered:
                    # Locked until the last batch of the source repository, not only for the time of this one.
                    self._entered.add(batch.repository)
                    self._catalogs.enter(batch.target)
                self._undecided_batches[batch.target] += 1
                tasks.create_task(self._decide(batch, self.recorder.units.enter_batch(batch)))
            self._has_all_batches = True
            self._tell_scanned()
        self._copies.close()

    def _leave_busy(self, batch: WantedTags) -> None:
        """Another run works on the target: it goes on, and one scan of the repository follows when it is free."""
        self._stale.unseen(batch.target)
        busy = self._request.listener.busy
        if batch.is_last and busy is not None:
            who = (self._rule.name, self._site.name, batch.repository)
            self._context.locks.when_free((self._site.name, batch.target), who, lambda: busy(*who))

    def _leave_to_others(self, batch: WantedTags) -> None:
        """The target has become a job of its own; what came of it before lets go of it with the last batch."""
        self._stale.unseen(batch.target)
        if batch.repository not in self._entered:
            return
        unit = self.recorder.units.enter_batch(batch)
        unit.is_complete = False
        if self.recorder.units.leave_batch(unit):
            self._tell_done(batch.repository)
        if batch.is_last:
            self._catalogs.leave(batch.target)

    async def _decide(self, batch: WantedTags, unit: UnitCount) -> None:
        try:
            catalog = await self._catalogs.catalog(batch.target)
            async with self._catalogs.turn(batch.target):
                await self._compare(batch, unit, catalog)
        except SiteError as error:
            self._stale.unseen(batch.target)
            self._blind(error)
        finally:
            if self.recorder.units.leave_batch(unit):
                self._tell_done(batch.repository)
            self._catalogs.leave(batch.target)
            if batch.is_last:
                self._catalogs.leave(batch.target)
            self._undecided_batches[batch.target] -= 1
            self._tell_scanned()

    async def _compare(self, batch: WantedTags, unit: UnitCount, catalog: Catalog | None) -> None:
        if catalog is None:
            self._stale.unseen(batch.target)
            self.recorder.unseen(batch.repository, len(batch.tags))
        elif self._request.draining.is_set():
            self._undecided = True
            unit.is_complete = False
        else:
            unit.listed_at = catalog.asked_at
            self.recorder.notice(catalog.notice)
            with faults(self._site.name, "compare tags", batch.target):
                self._note(batch, catalog)
                await self._deciding.decide(batch, catalog)
                self._answers.others(batch)
                self._answers.repository(batch)

    def _tell_scanned(self) -> None:
        """Tells, once, that all is decided on but what waits for other runs."""
        told, self._was_scanned_told = self._was_scanned_told, True
        if told:
            return
        if not self._has_all_batches or any(
            count and not self._catalogs.is_waiting(target)
            for target, count in self._undecided_batches.items()
        ):
            self._was_scanned_told = False
        elif self._request.listener.scanned is not None:
            self._request.listener.scanned(self._rule.name, self._site.name)

    def _tell_done(self, repository: str) -> None:
        done = self._request.listener.repository_done
        if done is not None:
            done(self._rule.name, self._site.name, repository)

    def _blind(self, error: SiteError) -> None:
        """The destination could not be asked: what it lacks is not known, so the scan was not complete."""
        self.recorder.complete_look = False
        self.recorder.failure(error)

    def _only(self, target: str) -> Collection[str] | None:
        """The tags of a target that matter to a narrowed run; None for all."""
        scope = self._request.scope
        if scope is None or not judges_each_alone(self._rule.tags):
            return None
        only = {pin.tag or pin.digest for table in self._rule.tags for pin in table.pins}
        for repository, tags in scope.repositories.items():
            with contextlib.suppress(ValueError):
                if target_repository(self._rule, repository) == target:
                    if tags is None or named_by_referrers(tags):
                        return None
                    only.update(tags)
        return {*_renamed(self._rule, only), *only}

    def _note(self, batch: WantedTags, catalog: Catalog) -> None:
        """Notes what is wanted, so that at the end it is known what no longer is."""
        self._stale.open(batch.repository, batch.target, catalog)
        for wanted in batch.tags:
            self._stale.wanted(batch.target, wanted.key)
        for tag in batch.unresolved:
            self._stale.wanted(batch.target, tag.target)
            pending = catalog.pending.get(tag.target)
            self.recorder.unresolved(batch, tag, pending, self._since(batch.repository))
        if batch.is_last:
            present = None if batch.present is None else _renamed(self._rule, batch.present)
            self._stale.present(batch.target, present)

    def settle(self, began: float) -> None:
        """After a complete scan: ends what is pending and no longer wanted, tells what the source no longer has.

        Nothing is deleted. `began` is when the scan did (epoch seconds).
        """
        for target, tag in self._stale.pending():
            self.recorder.unwanted(target, tag, began)
        for gone in self._stale.gone():
            self.recorder.kept(gone)

    # --- acting on decisions ---

    def _act(self, action: Action, catalog: Catalog, decision: Decision) -> None:
        self._tell_decided(action, decision)
        match decision:
            case InStep():
                self._record_in_step(action, catalog, decision)
            case Copy():
                self._queue(action)
            case Postponed(error=error):
                self.recorder.postponed(action, f"failed before ({error}); not tried again yet")
            case Conflict(other=other):
                self.recorder.failed(action, self._conflict(action, other), was_queued=False)
            case Held():
                self.recorder.held(action, decision.reason, decision.kind, was_queued=False)
            case Skipped(reason=reason):
                self.recorder.skipped(action, reason)
            case Gone():
                self.recorder.kept(decision)
            case Ask():
                raise AssertionError("a question is answered before anybody acts on it")
        if not isinstance(decision, (Copy, Postponed)):  # these are through later
            self._answers.through(action)

    def _tell_decided(self, action: Action, decision: Decision) -> None:
        decided, named = self._request.listener.decided, told(decision)
        if decided is not None and named is not None:
            decided(
                TagDecision(
                    self._rule.name,
                    self._site.name,
                    action.repository,
                    action.wanted.tag,
                    action.target,
                    action.key,
                    action.digest,
                    *named,
                )
            )

    def _record_in_step(self, action: Action, catalog: Catalog, decision: InStep) -> None:
        self.recorder.unchanged(action.repository)
        if decision.is_superseded:
            return
        if decision.is_confirmed or decision.is_verified or action.key in catalog.pending:
            self.recorder.placed(action, is_verified=decision.is_verified)

    def _conflict(self, action: Action, other: str) -> SiteError:
        claimant = f"rule {self._rule.name} (from {self._rule.source}: {action.repository})"
        cause = f"{claimant} wants {action.digest} there, but {other} has another digest for it"
        operation = f"claim tag {action.wanted.target}"
        return Rejected(self._site.name, operation, cause, repository=action.target)

    def _queue(self, action: Action) -> None:
        self._catalogs.enter(action.target)
        self._copying.weighing.enter(action)
        self.recorder.units.begin_copy(action)
        self.recorder.pend(action)
        if not self._request.dry:
            self._context.events.emit(TagPlanned(self._rule.name, self._site.name))
        self._copies.add(action)

    # --- copying ---

    async def _prepare(self, action: Action) -> Image | None:
        image = await self._copying.prepare(action)
        if image is None:
            self._leave(action)
        return image

    async def _copy(self, prepared: Prepared) -> None:
        await self._copying.copy(prepared)
        self._leave(prepared.action)

    async def _plan(self, prepared: Prepared) -> None:
        await self._copying.plan(prepared)
        self._leave(prepared.action)

    def _leave(self, action: Action) -> None:
        """An action has ended, whatever came of it."""
        self._copying.weighing.leave(action)
        if self.recorder.units.end_copy(action):
            self._tell_done(action.repository)
        self._catalogs.leave(action.target)


def _renamed(rule: Rule, tags: Iterable[str]) -> Iterator[str]:
    """The tags by the names they have at a destination; what can have none there is told by the scan."""
    for tag in tags:
        with contextlib.suppress(ValueError):
            yield target_tag(rule, tag)


def _wants_listing(rule: Rule, context: Context) -> bool:
    """Whether enough tags of a repository may be wanted that its listing is cheaper than asking for each."""
    scope = context.request.scope
    if scope is not None and judges_each_alone(rule.tags):
        return any(tags is None or len(tags) > FEW_NAMED_TAGS for tags in scope.repositories.values())
    exact = exact_tags(rule.tags)
    return exact is None or len(exact) + sum(len(table.pins) for table in rule.tags) > FEW_TAGS
