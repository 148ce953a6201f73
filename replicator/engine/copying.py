"""The copy of one tag: its image is read, and written; or, in a plan, only asked about."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from replicator.engine.answers import Answers
from replicator.engine.content.referrers import RootListing, WantedReferrers
from replicator.engine.content.source import SourceContent
from replicator.engine.context import Context
from replicator.engine.faults import faults
from replicator.engine.observe.destination import Catalog, DestinationCatalogs
from replicator.engine.plan.action import Action
from replicator.engine.plan.compare import Change
from replicator.engine.queue import Prepared
from replicator.engine.record import Recorder
from replicator.engine.result import Totals
from replicator.engine.transfer.blob import BlobTransfers, WantedBlob
from replicator.engine.transfer.fence import Fence
from replicator.engine.transfer.graph import ImageCopy, ImageWriter
from replicator.engine.transfer.sparse import check_whole, is_sparse
from replicator.engine.weighing import Weighing
from replicator.errors import (
    Advice,
    Immutable,
    NotReplicated,
    OwnershipLostError,
    SiteError,
    TagMoved,
    Unsupported,
    Untrusted,
)
from replicator.events import ImageCopied, ImagePrepared
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.image import Image, read_image, rewrite_image
from replicator.model.manifest import Manifest
from replicator.policy.referrers import NOTHING
from replicator.policy.rule import Rule
from replicator.ports import GoneAtDestination, RefusesManifests, RefusesTags, TriesManifests

if TYPE_CHECKING:
    from replicator.trust.signing import Attached

_T = TypeVar("_T")

_COMPLETED: Final = frozenset({Change.INCOMPLETE.value, Change.UNSIGNED.value})
_MOVES: Final = frozenset(change.value for change in (Change.MOVED, Change.DIVERGED, Change.UNREADABLE))
"""Reasons of copies to a tag that is there, and names something else."""


class Copying:
    """Copies of one rule to one destination. The failure of one is its own.

    Args:
        rule: the rule.
        context: the run.
        content: the source's content.
        writer: writes images there.
        transfers: moves blobs there.
        catalogs: what the destination's repositories were seen to have.
        recorder: gets what becomes of each.
        answers: tells of tags that are through.
    """

    def __init__(
        self,
        rule: Rule,
        context: Context,
        *,
        content: SourceContent,
        writer: ImageWriter,
        transfers: BlobTransfers,
        catalogs: DestinationCatalogs,
        recorder: Recorder,
        answers: Answers,
    ) -> None:
        self._rule = rule
        self._part = rule.part
        destination = recorder.result.destination
        self._site = context.sites[destination]
        self._context = context
        self._request = context.request
        self._content = content
        self._writer = writer
        self._transfers = transfers
        self._catalogs = catalogs
        self._recorder = recorder
        self._answers = answers
        self.weighing = Weighing(destination, context.request.splits)
        self._source_breaker = context.breaker(rule.source)
        self._breaker = context.breaker(destination)

    async def prepare(self, action: Action) -> Image | None:
        """The action's image; None where the action has failed already, is held, as can be told early, or left to others."""
        totals = Totals()

        async def read() -> Image | None:
            async with self.weighing.turn(action):
                return (
                    None if await self.weighing.is_split_off(action) else await self._prepared(action, totals)
                )

        return await self._guarded(action, totals, read)

    async def _prepared(self, action: Action, totals: Totals) -> Image | None:
        self._source_breaker.check("read manifest", action.repository)
        self._breaker.check("write manifest", action.target)
        self._check_tag(action)
        known = await self._check_trust(action, totals)
        image = await self._read_image(action, totals, known)
        self._check_refusal(action, image)
        await self._check_foreign(action, image)
        if await self.weighing.is_split_off(action, image):
            return None
        if not self._request.dry:
            self._tell_prepared(action, image)
        return image

    def _tell_prepared(self, action: Action, image: Image) -> None:
        blobs = tuple((digest, blob.size or 0) for digest, blob in image.blobs.items())
        manifests = tuple((digest, len(each.body)) for digest, each in image.manifests.items())
        self._context.events.emit(
            ImagePrepared(
                self._rule.name,
                self._site.name,
                action.target,
                action.key,
                blobs,
                manifests,
                mounts=self._transfers.may_mount,
            )
        )

    async def _check_trust(self, action: Action, totals: Totals) -> RootListing | None:
        """Raises `Untrusted` for an image that the rule's policies do not trust; nothing of it was moved.

        Returns what the source told of its referrers; None where nothing is demanded.
        """
        if not self._rule.trust:
            return None
        from replicator.engine.content.signatures import SignatureReader  # noqa: PLC0415 - few rules have `trust`
        from replicator.engine.content.trust import check_trust  # noqa: PLC0415

        def count(size: int) -> None:
            totals.bytes.read += size

        reader = SignatureReader(self._content, action.repository, self._rule.mirrors, count)
        return await check_trust(
            reader, action.source_root, self._rule.trust, action.companions, self._context.verdicts
        )

    async def _read_image(self, action: Action, totals: Totals, known: RootListing | None) -> Image:
        def count(size: int) -> None:
            totals.bytes.read += size

        def read(digest: Digest) -> Awaitable[Manifest]:
            return self._content.manifest(action.repository, digest, self._rule.mirrors, count)

        image = await read_image(
            action.source_root, read, self._rule.source, action.repository, self._rule.part_of
        )
        if action.is_rewritten:
            image = rewrite_image(image)
            action.digest = image.root.digest
        mode, chosen = self._rule.referrers, self._rule.referrer_filter
        if self._request.dry and mode == "none":  # a run need not ask; a plan says what is lost
            mode, chosen = "root", NOTHING
        wanted = WantedReferrers(mode, chosen, action.companions, known)
        image = await self._content.referrers.read(
            image, self._content.repository(action.repository), read, wanted
        )
        self._recorder.result.totals.add(totals)
        return image

    def _check_tag(self, action: Action) -> None:
        """Holds a tag that the destination is known not to let be moved, before anything is read."""
        repository, tag = self._site.repository(action.target), action.wanted.target
        if isinstance(repository, RefusesTags) and tag is not None and action.reason in _MOVES:
            reason = repository.refuses_tag(tag)
            if reason is not None:
                raise Immutable(self._site.name, "write manifest", reason, repository=action.target)

    def _check_refusal(self, action: Action, image: Image) -> None:
        """Holds what the destination could never serve, before any blob of it moves."""
        repository = self._site.repository(action.target)
        if self._site.capabilities.sparse is False:
            check_whole(image, repository)
        if isinstance(repository, RefusesManifests):
            for manifest in image.manifests.values():
                is_tagged = manifest is image.root and action.wanted.target is not None
                reason = repository.refuses(manifest, tagged=is_tagged)
                if reason is not None:
                    raise NotReplicated(self._site.name, "write manifest", reason, repository=action.target)

    async def _check_foreign(self, action: Action, image: Image) -> None:
        """Holds an image with a layer that nobody has and whose URLs the source does not follow: another attempt does not help."""
        there = self._site.repository(action.target)
        for blob in image.blobs.values():
            if not blob.is_foreign or not await self._content.is_lost(
                action.repository, blob, self._rule.mirrors
            ):
                continue
            if await there.has_blob(blob.digest, blob.size):
                continue
            cause = (
                f"it does not have the layer {blob.digest}, and URLs are not followed from a bucket or directory;"
                " set foreign_layers = false, or add the layer there"
            )
            raise NotReplicated(self._rule.source, "read blob", cause, repository=action.repository)

    async def copy(self, prepared: Prepared) -> None:
        """Writes the image, its tag last."""
        action, totals = prepared.action, Totals()
        began = self._context.clock.monotonic()

        async def bring() -> None:
            self._breaker.check("write manifest", action.target)
            catalog = self._catalogs.opened(action.target)
            placement = ImageCopy(
                prepared.image,
                catalog.repository,
                action.wanted.target,
                self._blobs(action, catalog, totals),
                totals,
                missing=action.missing,
                was_placed=action.was_placed,
                attached=self._attached(action, prepared.image),
                part=self._part,
                fence=self._fence(action),
            )
            try:
                if isinstance(catalog.repository, TriesManifests):
                    await catalog.repository.try_for(prepared.image.manifests.values())
                self._check_refusal(action, prepared.image)  # another image may have shown it meanwhile
                await self._writer.copy(placement)
            except Unsupported:
                self._check_refusal(action, prepared.image)
                raise
            self._breaker.succeeded()
            self._source_breaker.succeeded()
            self._recorder.placed(action, is_verified=True, image=prepared.image)
            manifests = tuple(prepared.image.manifests.values())
            self._context.children.add(prepared.image.root.digest, prepared.image.platforms)
            self._context.events.emit(ImageCopied(prepared.image.root.digest, manifests))
            self._context.locks.settle(
                (self._site.name, action.target, action.key),
                (self._rule.source, action.repository, action.wanted.tag),
                action.asked_at,
            )
            note = "signed at the source; arrived unsigned" if prepared.image.loses_signature else ""
            self._recorder.copied(action, totals, self._context.clock.monotonic() - began, note)
            self._answers.through(action)

        await self._guarded(action, totals, bring)

    def _fence(self, action: Action) -> Fence | None:
        assignment = self._request.assignment
        return None if assignment is None else Fence(assignment.ownership, action.rests_on)

    def _attached(self, action: Action, image: Image) -> Sequence[Attached]:
        """What the rule's own key says of the copy. An image that is only completed was signed when it was copied."""
        signing = self._rule.sign
        if signing is None:
            return ()
        from replicator.trust.signing import mirroring_of, signature_of  # noqa: PLC0415  # cryptography takes time

        pem, now = signing.key(), dt.datetime.fromtimestamp(self._context.clock.now(), dt.UTC)
        made = [signature_of(pem, image.root.descriptor)]
        if signing.statement and action.reason not in _COMPLETED:
            at = now.isoformat(timespec="seconds").replace("+00:00", "Z")
            said = {
                "source": signing.reference(self._rule.source, action.repository, action.wanted.tag),
                "destination": signing.reference(self._site.name, action.target, action.wanted.target),
                "sourceDigest": action.source_root,
                "agent": signing.agent,
                "rule": self._rule.name,
                "copiedAt": at,
            }
            made.append(mirroring_of(pem, image.root.descriptor, said, at))
        return made

    async def _doubt(self, action: Action, present: str | None) -> None:
        """Ends the belief in a tag that names something else, or every run would rest on it again."""
        state, site = self._context.state, self._site.name
        belief = (await state.beliefs(site, action.target, [action.key])).get(action.key)
        if belief is not None and belief.digest != present:
            state.record(GoneAtDestination(site, action.target, [action.key], self._context.clock.now()))

    async def plan(self, prepared: Prepared) -> None:
        """Only asks: what would move, what is there, what could be mounted."""
        action, totals = prepared.action, Totals()

        async def ask() -> None:
            catalog = self._catalogs.opened(action.target)
            await self._writer.check_referrers(prepared.image, catalog.repository)
            blob = self._blobs(action, catalog, totals)
            to_send = 0
            for descriptor in prepared.image.blobs.values():
                outcome = await self._transfers.locate(catalog.repository, blob(descriptor))
                totals.blobs.count(outcome)
                to_send += (descriptor.size or 0) if outcome == "copied" else 0
            notes = []
            if prepared.image.loses_signature:
                notes.append("signed at the source; would arrive unsigned")
            if action.hold:  # some refusals are told to a copy alone
                notes.append(f"held so far: {action.hold}")
            elif is_sparse(prepared.image) and self._site.capabilities.sparse is None:
                notes.append("a sparse index: not known whether the destination accepts it")
            note = "; ".join(notes)
            self._recorder.planned(action, totals, to_send + prepared.image.manifest_bytes, note)

        await self._guarded(action, totals, ask)

    def _blobs(self, action: Action, catalog: Catalog, totals: Totals) -> Callable[[Descriptor], WantedBlob]:
        def wanted(descriptor: Descriptor) -> WantedBlob:
            return WantedBlob(
                descriptor,
                action.repository,
                self._rule.mirrors,
                self._content,
                catalog.fresh,
                totals,
                doubted=bool(action.missing) or action.was_placed,
            )

        return wanted

    async def _guarded(self, action: Action, totals: Totals, work: Callable[[], Awaitable[_T]]) -> _T | None:
        """What `work` returns; its failure is the action's alone."""
        try:
            with faults(self._site.name, "copy image", action.target):
                return await work()
        except Untrusted as error:
            self._recorder.untrusted(action, error, totals)
            self._answers.through(action)
        except NotReplicated as error:
            self._recorder.held(action, error.cause, error.hold)
            self._answers.through(action)
        except OwnershipLostError as error:
            self._recorder.overtaken(action, totals, str(error))
            self._request.draining.set()
        except SiteError as error:
            if isinstance(error, TagMoved):
                await self._doubt(action, error.present)
            self._context.breaker(error.site).failed(error)
            self._recorder.failed(action, error, totals)
            if error.advice is Advice.GIVE_UP:
                self._answers.through(action)
        except asyncio.CancelledError:
            self._recorder.interrupted(action, totals)
            raise
        return None
