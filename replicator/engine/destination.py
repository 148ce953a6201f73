"""One rule at one destination, from the batches of a look to the row that closes the run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final, TypeVar

from replicator.engine.content.image import Image, NotReplicated, read_image
from replicator.engine.content.source import SourceContent
from replicator.engine.context import Context
from replicator.engine.faults import faults
from replicator.engine.observe.destination import Catalog, DestinationCatalogs
from replicator.engine.observe.wanted import WantedTag, WantedTags
from replicator.engine.plan.compare import Action
from replicator.engine.plan.decide import Decisions, Verdicts
from replicator.engine.plan.stale import StaleTags
from replicator.engine.queue import CopyQueue, Prepared
from replicator.engine.record import Recorder
from replicator.engine.result import Totals
from replicator.engine.transfer.blob import BlobTransfers, WantedBlob
from replicator.engine.transfer.graph import ImageCopy, ImageWriter
from replicator.errors import SiteError
from replicator.events import ImagePrepared, TagPlanned
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.manifest import Manifest
from replicator.policy.mapping import target_tag
from replicator.policy.rule import Rule
from replicator.policy.selection import exact_tags, judges_each_alone
from replicator.ports import RefusesManifests

FEW_TAGS: Final = 3
"""Up to so many exactly named tags the destination is asked for each, instead of for its whole listing."""

_T = TypeVar("_T")


class DestinationRun:
    """Takes batches as the look finds them, decides, copies, records.

    It has its own queue and pace: what is slow here delays no other destination.

    Args:
        rule: the rule.
        destination: the site's name.
        context: the run.
        content: the source's content.
        since: dates changes first seen now (epoch seconds).
        writer: writes images there, shared by all rules of the run.
        transfers: moves blobs there, shared too.
    """

    def __init__(
        self,
        rule: Rule,
        destination: str,
        context: Context,
        *,
        content: SourceContent,
        since: float,
        writer: ImageWriter,
        transfers: BlobTransfers,
    ) -> None:
        self._rule = rule
        self._site = context.sites[destination]
        self._context = context
        self._content = content
        self._writer = writer
        self._transfers = transfers
        self._source_breaker = context.breaker(rule.source)
        self._breaker = context.breaker(destination)
        self.recorder = Recorder(rule, destination, context)
        self._dispatch = CopyQueue(self._prepare, self._plan if context.dry else self._copy, context.draining)
        verdicts = Verdicts(
            self._queue, self._same, self.recorder.postponed, self.recorder.failed, self._unreadable
        )
        self._decisions = Decisions(rule, destination, context, content, since, verdicts)
        self._batches: asyncio.Queue[WantedTags | None] = asyncio.Queue()
        self._looked_at: set[str] = set()
        self._undecided = False
        self._is_over = False
        self._stale = StaleTags(rule.name)
        self._targets = DestinationCatalogs(
            rule, destination, context, listing=_wants_listing(rule, context), on_failure=self._blind
        )

    def offer(self, batch: WantedTags | None) -> None:
        """Takes a batch; None when the look has ended."""
        self._batches.put_nowait(batch)

    async def run(self) -> None:
        """Returns when all that was offered is dealt with, or drained."""
        if self._context.scope is None:
            # Asked for now: a run beside this one may find a repository that this one's look no longer meets.
            name = self._site.name
            self._stale.expect(await self._context.state.pending_repositories(self._rule.name, name))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._take_batches())
                await self._dispatch.run()
            self._is_over = True
        finally:
            self._targets.release()

    @property
    def is_through(self) -> bool:
        """Whether all that was offered has been dealt with, so that a drain left nothing of it undone."""
        return self._is_over and not (
            self._undecided or self._dispatch.has_left or self.recorder.was_interrupted
        )

    async def _take_batches(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while (batch := await self._batches.get()) is not None:
                self._targets.enter(batch.target)
                self._stale.visited(batch.target)
                if batch.repository not in self._looked_at:
                    # In hand until the last batch of the source repository, not only for the time of this one.
                    self._looked_at.add(batch.repository)
                    self._targets.enter(batch.target)
                tasks.create_task(self._decide(batch))
        self._dispatch.close()

    async def _decide(self, batch: WantedTags) -> None:
        try:
            catalog = await self._targets.catalog(batch.target)
            if catalog is None:
                self.recorder.unseen(len(batch.wishes))
                return
            if self._context.draining.is_set():
                self._undecided = True
                return
            with faults(self._site.name, "compare tags", batch.target):
                self._note(batch, catalog)
                await self._decisions.decide(batch, catalog)
        except SiteError as error:
            self._blind(error)
        finally:
            self._targets.leave(batch.target)
            if batch.last:
                self._targets.leave(batch.target)

    def _blind(self, error: SiteError) -> None:
        """The destination could not be looked at: what it lacks is not known, so the look was not complete."""
        self.recorder.complete_look = False
        self.recorder.failure(error)

    def _note(self, batch: WantedTags, catalog: Catalog) -> None:
        """Notes what is wanted, so that at the end it is known what no longer is."""
        self._stale.open(batch.repository, batch.target, catalog)
        for wish in batch.wishes:
            self._stale.wanted(batch.target, wish.target or wish.digest or "")
        if batch.last:
            present = None if batch.present is None else _renamed(self._rule, batch.present)
            self._stale.present(batch.target, present)

    async def settle(self) -> None:
        """After a complete look: ends what is pending and no longer wanted, tells what the source no longer has.

        Nothing is deleted. Raises `StateError`.
        """
        for target in self._stale.unvisited:
            for tag in await self._context.state.pending(self._rule.name, self._site.name, target):
                self.recorder.unwanted(target, tag)
        for target, tag in self._stale.pending():
            self.recorder.unwanted(target, tag)
        for gone in self._stale.gone():
            self.recorder.kept(gone.repository, gone.target, gone.tag, gone.digest)

    def _same(self, _: WantedTag) -> None:
        self.recorder.unchanged()

    def _unreadable(self, error: SiteError) -> None:
        text = f"{error}; the tag cannot be read there, so it is compared with what was last written"
        if text not in self.recorder.result.warnings:
            self.recorder.warn(text)

    def _queue(self, action: Action) -> None:
        self._targets.enter(action.target)
        self.recorder.pend(action)
        if not self._context.dry:
            self._context.events.emit(TagPlanned(self._rule.name, self._site.name))
        self._dispatch.add(action)

    async def _prepare(self, action: Action) -> Image | None:
        """The action's image. Also where it can be told early that the action cannot be done."""
        totals = Totals()

        async def read() -> Image:
            self._source_breaker.check("read manifest", action.repository)
            self._breaker.check("write manifest", action.target)
            image = await self._read_image(action, totals)
            self._check_refusal(action, image)
            if not self._context.dry:
                size = image.blob_bytes + image.manifest_bytes
                self._context.events.emit(ImagePrepared(self._rule.name, self._site.name, size))
            return image

        image = await self._guarded(action, totals, read)
        if image is None:
            self._targets.leave(action.target)
        return image

    async def _read_image(self, action: Action, totals: Totals) -> Image:
        def count(size: int) -> None:
            totals.bytes.read += size

        def read(digest: Digest) -> Awaitable[Manifest]:
            return self._content.manifest(action.repository, digest, self._rule.mirrors, count)

        image = await read_image(action.digest, read, self._rule.source, action.repository)
        self.recorder.result.totals.add(totals)
        return image

    def _check_refusal(self, action: Action, image: Image) -> None:
        """Holds what the destination could never serve, before any blob of it moves."""
        repository = self._site.repository(action.target)
        if isinstance(repository, RefusesManifests):
            for manifest in image.manifests.values():
                reason = repository.refuses(manifest)
                if reason is not None:
                    raise NotReplicated(self._site.name, "write manifest", reason, repository=action.target)

    async def _copy(self, prepared: Prepared) -> None:
        action, totals = prepared.action, Totals()
        began = self._context.clock.monotonic()

        async def copy() -> None:
            self._breaker.check("write manifest", action.target)
            catalog = await self._decided_on(action)
            placement = ImageCopy(
                prepared.image,
                catalog.repository,
                action.wish.target,
                self._wish(action, catalog, totals),
                totals,
            )
            await self._writer.copy(placement)
            self._breaker.succeeded()
            self._source_breaker.succeeded()
            key = action.wish.target or action.digest
            self._decisions.record(catalog, key, action.digest)
            self._context.locks.settle(
                (self._site.name, action.target, key),
                (self._rule.source, action.repository, action.wish.tag),
                action.asked_at,
            )
            self.recorder.copied(action, totals, self._context.clock.monotonic() - began)

        await self._guarded(action, totals, copy)
        self._targets.leave(action.target)

    async def _plan(self, prepared: Prepared) -> None:
        """Only asks: what would move, what is there, what could be mounted."""
        action, totals = prepared.action, Totals()

        async def plan() -> None:
            catalog = await self._decided_on(action)
            wish = self._wish(action, catalog, totals)
            to_send = 0
            for descriptor in prepared.image.blobs.values():
                outcome = await self._transfers.locate(catalog.repository, wish(descriptor))
                totals.blobs.count(outcome)
                to_send += (descriptor.size or 0) if outcome == "copied" else 0
            self.recorder.planned(action, totals, to_send + prepared.image.manifest_bytes)

        await self._guarded(action, totals, plan)
        self._targets.leave(action.target)

    async def _decided_on(self, action: Action) -> Catalog:
        catalog = await self._targets.catalog(action.target)
        if catalog is None:
            raise AssertionError(f"{action.target} was decided on without a catalog")
        return catalog

    def _wish(self, action: Action, catalog: Catalog, totals: Totals) -> Callable[[Descriptor], WantedBlob]:
        def wish(descriptor: Descriptor) -> WantedBlob:
            return WantedBlob(
                descriptor, action.repository, self._rule.mirrors, self._content, catalog.fresh, totals
            )

        return wish

    async def _guarded(self, action: Action, totals: Totals, work: Callable[[], Awaitable[_T]]) -> _T | None:
        """What `work` returns; its failure is the action's alone."""
        try:
            with faults(self._site.name, "copy image", action.target):
                return await work()
        except NotReplicated as error:
            self.recorder.held(action, error.cause)
        except SiteError as error:
            self._context.breaker(error.site).failed(error)
            self.recorder.failed(action, error, totals)
        except asyncio.CancelledError:
            self.recorder.interrupted(action, totals)
            raise
        return None


def _renamed(rule: Rule, tags: Iterable[str]) -> Iterator[str]:
    """The tags by the names they have at a destination; what can have none there is told by the look."""
    for tag in tags:
        with contextlib.suppress(ValueError):
            yield target_tag(rule, tag)


def _wants_listing(rule: Rule, context: Context) -> bool:
    """Whether so many tags may be wanted of a repository that its listing is cheaper than asking for each."""
    scope = context.scope
    if scope is not None and judges_each_alone(rule.tags):
        return any(tags is None or len(tags) > FEW_TAGS for tags in scope.repositories.values())
    exact = exact_tags(rule.tags)
    return exact is None or len(exact) + sum(len(table.pins) for table in rule.tags) > FEW_TAGS
