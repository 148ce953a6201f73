"""One rule at one destination: from the batches of a scan to the row that closes the run."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from typing import Final, TypeVar

from replicator.engine.content.source import SourceContent
from replicator.engine.context import Context
from replicator.engine.deciding import Deciding
from replicator.engine.faults import faults
from replicator.engine.observe.destination import Catalog, DestinationCatalogs
from replicator.engine.observe.wanted import WantedTags
from replicator.engine.plan.decide import (
    Action,
    Ask,
    Conflict,
    Copy,
    Decision,
    Gone,
    Held,
    InStep,
    Postponed,
    told,
)
from replicator.engine.plan.stale import StaleTags
from replicator.engine.queue import Copies, CopyQueue, Prepared
from replicator.engine.record import Recorder, UnitCount
from replicator.engine.result import TagDecision, Totals
from replicator.engine.transfer.blob import BlobTransfers, WantedBlob
from replicator.engine.transfer.graph import ImageCopy, ImageWriter, fingerprint_of
from replicator.errors import Advice, NotReplicated, Rejected, SiteError, Unsupported
from replicator.events import ImageCopied, ImagePrepared, RepositoryScanned, TagPlanned, TagSeen
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.image import Image, read_image
from replicator.model.manifest import Manifest
from replicator.policy.mapping import target_repository, target_tag
from replicator.policy.rule import Rule
from replicator.policy.selection import exact_tags, judges_each_alone, pinned_tags
from replicator.ports import Placement, RefusesManifests, TagBelief

FEW_TAGS: Final = 3
"""Up to so many exactly named tags the destination is asked for each, instead of for its whole listing."""
FEW_NAMED_TAGS: Final = 32
"""The same for tags that an event named: there may be 100,000 others."""

_T = TypeVar("_T")


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
        self._writer = writer
        self._transfers = transfers
        self._source_breaker = context.breaker(rule.source)
        self._breaker = context.breaker(destination)
        self.recorder = Recorder(rule, destination, context)
        copy = self._plan if self._request.dry else self._copy
        self._copies = Copies(queue, self._prepare, copy, self._request.draining)
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
        self._pinned = pinned_tags(rule.tags)
        self._stale = StaleTags(rule.name)
        self._catalogs = DestinationCatalogs(
            rule,
            destination,
            context,
            listing=_wants_listing(rule, context),
            only=self._only,
            on_failure=self._blind,
        )

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
            await self._deciding.aclose()

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
                if self._catalogs.is_left(batch.target):
                    self._leave_busy(batch)
                    continue
                self._catalogs.enter(batch.target)
                if batch.repository not in self._entered:
                    # Locked until the last batch of the source repository, not only for the time of this one.
                    self._entered.add(batch.repository)
                    self._catalogs.enter(batch.target)
                self._undecided_batches[batch.target] += 1
                tasks.create_task(self._decide(batch, self.recorder.enter_batch(batch)))
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

    async def _decide(self, batch: WantedTags, unit: UnitCount) -> None:
        try:
            catalog = await self._catalogs.catalog(batch.target)
            if catalog is None:
                self._stale.unseen(batch.target)
                self.recorder.unseen(batch.repository, len(batch.tags))
            elif self._request.draining.is_set():
                self._undecided = True
                unit.is_complete = False
            else:
                unit.listed_at = catalog.asked_at
                with faults(self._site.name, "compare tags", batch.target):
                    self._note(batch, catalog)
                    await self._deciding.decide(batch, catalog)
                    self._tell_others(batch)
                    self._tell_repository(batch)
        except SiteError as error:
            self._stale.unseen(batch.target)
            self._blind(error)
        finally:
            if self.recorder.leave_batch(unit):
                self._tell_done(batch.repository)
            self._catalogs.leave(batch.target)
            if batch.is_last:
                self._catalogs.leave(batch.target)
            self._undecided_batches[batch.target] -= 1
            self._tell_scanned()

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

    def _tell_others(self, batch: WantedTags) -> None:
        """What became of tags that an event named and that are not wanted."""
        for other in batch.others:
            self._tell_seen(batch.repository, other.tag, other.digest, is_absent=other.is_absent)

    def _tell_repository(self, batch: WantedTags) -> None:
        scope = self._request.scope
        if scope is None or not (batch.is_last and batch.is_complete):
            return
        if scope.repositories.get(batch.repository, frozenset()) is None:
            self._context.events.emit(
                RepositoryScanned(self._rule.name, self._rule.source, batch.repository, self._site.name)
            )

    def _tell_through(self, action: Action) -> None:
        """The tag is in step, or nothing that passes by itself keeps it from being so."""
        if action.wanted.tag not in self._pinned:
            self._tell_seen(action.repository, action.wanted.tag, action.wanted.digest)

    def _tell_seen(
        self, repository: str, tag: str | None, digest: Digest | None, *, is_absent: bool = False
    ) -> None:
        scope = self._request.scope
        if scope is None or tag is None or self._request.dry:
            return
        named = scope.repositories.get(repository)
        if named is None or tag in named:
            self._context.events.emit(
                TagSeen(
                    self._rule.name,
                    self._rule.source,
                    repository,
                    tag,
                    digest,
                    destination=self._site.name,
                    is_absent=is_absent,
                )
            )

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
                    if tags is None:
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
                self.recorder.failed(action, self._conflict(action, other))
            case Held(reason=reason):
                self.recorder.held(action, reason)
            case Gone():
                self.recorder.kept(decision)
            case Ask():
                raise AssertionError("a question is answered before anybody acts on it")
        if not isinstance(decision, (Copy, Postponed)):  # these are through later
            self._tell_through(action)

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
            self._record_placed(action, catalog, is_verified=decision.is_verified)

    def _record_placed(
        self, action: Action, catalog: Catalog, *, is_verified: bool, image: Image | None = None
    ) -> None:
        """Remembers that a tag is in step, as seen now; with all that its root leads to, where that was seen too."""
        now = self._context.clock.now()
        belief = TagBelief(
            action.key,
            action.digest,
            action.wanted.digest or action.digest,
            self._rule.name,
            now,
            action.asked_wall,
        )
        placement = None
        if is_verified:
            known = catalog.placements.get(action.digest)
            fingerprint = fingerprint_of(image) if image else known.fingerprint if known else ""
            written_at = known.written_at if known and not image else now
            placement = Placement(action.digest, fingerprint, written_at, now)
        self.recorder.confirmed(belief, action.target, placement)

    def _conflict(self, action: Action, other: str) -> SiteError:
        claimant = f"rule {self._rule.name} (from {self._rule.source}: {action.repository})"
        cause = f"{claimant} wants {action.digest} there, but {other} has another digest for it"
        operation = f"claim tag {action.wanted.target}"
        return Rejected(self._site.name, operation, cause, repository=action.target)

    def _queue(self, action: Action) -> None:
        self._catalogs.enter(action.target)
        self.recorder.begin_copy(action)
        self.recorder.pend(action)
        if not self._request.dry:
            self._context.events.emit(TagPlanned(self._rule.name, self._site.name))
        self._copies.add(action)

    def _leave(self, action: Action) -> None:
        """An action has ended, whatever came of it."""
        if self.recorder.end_copy(action):
            self._tell_done(action.repository)
        self._catalogs.leave(action.target)

    # --- copying ---

    async def _prepare(self, action: Action) -> Image | None:
        """The action's image. Also where it can be told early that the action cannot be done."""
        totals = Totals()

        async def read() -> Image:
            self._source_breaker.check("read manifest", action.repository)
            self._breaker.check("write manifest", action.target)
            image = await self._read_image(action, totals)
            self._check_refusal(action, image)
            if not self._request.dry:
                size = image.blob_bytes + image.manifest_bytes
                self._context.events.emit(ImagePrepared(self._rule.name, self._site.name, size))
            return image

        image = await self._guarded(action, totals, read)
        if image is None:
            self._leave(action)
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
                action.wanted.target,
                self._blobs(action, catalog, totals),
                totals,
                missing=action.missing,
                was_placed=action.was_placed,
            )
            try:
                self._check_refusal(action, prepared.image)  # another image may have shown it meanwhile
                await self._writer.copy(placement)
            except Unsupported:
                self._check_refusal(action, prepared.image)
                raise
            self._breaker.succeeded()
            self._source_breaker.succeeded()
            self._record_placed(action, catalog, is_verified=True, image=prepared.image)
            manifests = tuple(prepared.image.manifests.values())
            self._context.events.emit(ImageCopied(prepared.image.root.digest, manifests))
            self._context.locks.settle(
                (self._site.name, action.target, action.key),
                (self._rule.source, action.repository, action.wanted.tag),
                action.asked_at,
            )
            self.recorder.copied(action, totals, self._context.clock.monotonic() - began)
            self._tell_through(action)

        await self._guarded(action, totals, copy)
        self._leave(action)

    async def _plan(self, prepared: Prepared) -> None:
        """Only asks: what would move, what is there, what could be mounted."""
        action, totals = prepared.action, Totals()

        async def plan() -> None:
            catalog = await self._decided_on(action)
            blob = self._blobs(action, catalog, totals)
            to_send = 0
            for descriptor in prepared.image.blobs.values():
                outcome = await self._transfers.locate(catalog.repository, blob(descriptor))
                totals.blobs.count(outcome)
                to_send += (descriptor.size or 0) if outcome == "copied" else 0
            self.recorder.planned(action, totals, to_send + prepared.image.manifest_bytes)

        await self._guarded(action, totals, plan)
        self._leave(action)

    async def _decided_on(self, action: Action) -> Catalog:
        catalog = await self._catalogs.catalog(action.target)
        if catalog is None:
            raise AssertionError(f"{action.target} was decided on without a catalog")
        return catalog

    def _blobs(self, action: Action, catalog: Catalog, totals: Totals) -> Callable[[Descriptor], WantedBlob]:
        def wanted(descriptor: Descriptor) -> WantedBlob:
            return WantedBlob(
                descriptor, action.repository, self._rule.mirrors, self._content, catalog.fresh, totals
            )

        return wanted

    async def _guarded(self, action: Action, totals: Totals, work: Callable[[], Awaitable[_T]]) -> _T | None:
        """What `work` returns; its failure is the action's alone."""
        try:
            with faults(self._site.name, "copy image", action.target):
                return await work()
        except NotReplicated as error:
            self.recorder.held(action, error.cause)
            self._tell_through(action)
        except SiteError as error:
            self._context.breaker(error.site).failed(error)
            self.recorder.failed(action, error, totals)
            if error.advice is Advice.GIVE_UP:
                self._tell_through(action)
        except asyncio.CancelledError:
            self.recorder.interrupted(action, totals)
            raise
        return None


def _renamed(rule: Rule, tags: Iterable[str]) -> Iterator[str]:
    """The tags by the names they have at a destination; what can have none there is told by the scan."""
    for tag in tags:
        with contextlib.suppress(ValueError):
            yield target_tag(rule, tag)


def _wants_listing(rule: Rule, context: Context) -> bool:
    """Whether so many tags may be wanted of a repository that its listing is cheaper than asking for each."""
    scope = context.request.scope
    if scope is not None and judges_each_alone(rule.tags):
        return any(tags is None or len(tags) > FEW_NAMED_TAGS for tags in scope.repositories.values())
    exact = exact_tags(rule.tags)
    return exact is None or len(exact) + sum(len(table.pins) for table in rule.tags) > FEW_TAGS
