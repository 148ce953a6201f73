"""One image into one repository: blobs, then child manifests, then the root; the tag last."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from replicator.engine.faults import is_unreadable
from replicator.engine.result import Totals
from replicator.engine.transfer.attached import put_attached
from replicator.engine.transfer.blob import BlobTransfers, WantedBlob
from replicator.engine.transfer.fence import Fence
from replicator.engine.transfer.presence import Presence
from replicator.engine.transfer.referrers import ReferrersLists
from replicator.engine.transfer.sparse import SparseRefusals
from replicator.errors import Corrupt, MissingReference, NotFound, OwnershipLostError, SiteError, StateError
from replicator.flow.once import Once
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.image import Image
from replicator.model.manifest import Manifest
from replicator.ports import Ownership, Repository

if TYPE_CHECKING:
    from replicator.trust.signing import Attached


class ImageCopy(msgspec.Struct, frozen=True):
    """An image wanted in a repository under a tag (None: by digest alone).

    `blob` makes the request for one of its blobs; `totals` counts what is moved. `missing`: parts that the destination
    was found to lack. `was_placed`: it had been put there before, so that something has removed it since. `attached`:
    referrers that are made here. `part`: which parts of it are wanted (see `Rule`). `fence`: what is asked before tags are
    written; None where no other agent may write them.
    """

    image: Image
    repository: Repository
    tag: str | None
    blob: Callable[[Descriptor], WantedBlob]
    totals: Totals
    missing: Sequence[Digest] = ()
    was_placed: bool = False
    attached: Sequence[Attached] = ()
    part: str = ""
    fence: Fence | None = None

    @property
    def ownership(self) -> Ownership | None:
        """What must be confirmed before anything is written that others may write."""
        return None if self.fence is None else self.fence.ownership

    def key(self, manifest: Manifest) -> Digest:
        """What names all that is wanted below a manifest: of the same index another rule may want less."""
        return Digest(f"{manifest.digest} {self.part}") if self.part else manifest.digest


class ImageWriter:
    """The graph walk of one run at one destination site.

    Args:
        transfers: moves the blobs.
        presence: knows which manifests lie whole in which repository.
        lists: makes referrers findable there.
    """

    def __init__(self, transfers: BlobTransfers, presence: Presence, lists: ReferrersLists) -> None:
        self._transfers = transfers
        self._presence = presence
        self._lists = lists
        self._sparse = SparseRefusals()
        self._below: Once[tuple[str, Digest], None] = Once()
        self._whole: Once[tuple[str, Digest], None] = Once()

    async def copy(self, placement: ImageCopy) -> None:
        """Puts the image there and, last, its tag.

        Where the destination says that something is missing which was believed to be there (its garbage
        collection took it, a hint was wrong), the belief is dropped and all is looked at once more.

        Raises:
            SiteError: whoever failed; the tag then is what it was.
            OwnershipLostError: another agent may have taken over; the tag is what that one makes it.
        """
        self._sparse.check(placement.image, placement.repository)
        if placement.missing:
            self._drop_beliefs(placement, placement.missing)
            await self._transfers.take_back(placement.repository.name, placement.missing)
        try:
            await self._put(placement)
        except MissingReference as error:
            if error.digests:
                self._sparse.learn(placement.image, placement.repository, error)
            self._drop_beliefs(placement, error.digests)
            try:
                await self._put(placement)
            except MissingReference as again:
                self._sparse.learn(placement.image, placement.repository, again)
                raise

    def _drop_beliefs(self, placement: ImageCopy, named: Iterable[str]) -> None:
        image, repository = placement.image, placement.repository.name
        missing = set(named)
        blobs = [digest for digest in image.blobs if digest in missing] or list(image.blobs)
        self._transfers.forget(repository, blobs)
        self._presence.forget(repository, [placement.key(each) for each in image.manifests.values()])

    async def _put(self, placement: ImageCopy) -> None:
        root = placement.image.root
        name = placement.repository.name
        is_doubtful = placement.was_placed
        if not self._presence.has(name, placement.key(root)):
            unknown = any(not self._presence.has(name, blob) for blob in placement.image.blobs)
            await self._ensure_below(placement, root)
            blobs = placement.totals.blobs
            # All was there though the tag was not: perhaps the registry only remembers what was deleted.
            is_doubtful = is_doubtful or (unknown and not blobs.copied and not blobs.mounted)
        await self._put_referrers(placement)
        if await self._may_write_root(placement):
            await self._write(placement, root, placement.tag, is_doubtful=is_doubtful)
        self._presence.add(name, placement.key(root))

    @staticmethod
    async def _may_write_root(placement: ImageCopy) -> bool:
        """False: another agent has put it under its tag meanwhile."""
        if placement.fence is None:
            return True
        if placement.tag is None:
            await placement.fence.ownership.confirm()
            return True
        return await placement.fence.may_write(
            placement.repository, placement.tag, placement.image.root.digest
        )

    async def check_referrers(self, image: Image, repository: Repository) -> None:
        """Asks whether what refers to the image could be made findable there. Raises `NotReplicated` where not."""
        for subject in dict.fromkeys(each.subject for each in image.referrers if each.tag is None):
            await self._lists.check(repository, subject)

    async def _put_referrers(self, placement: ImageCopy) -> None:
        """Puts what refers to the image and makes it findable, before the tag shows the image to anybody."""
        referrers = placement.image.referrers
        if not referrers and not placement.attached:
            return
        if placement.ownership is not None:
            await placement.ownership.confirm()
        await _all([self._put_child(placement, referrer.manifest) for referrer in referrers])
        subjects: defaultdict[Digest, list[Manifest]] = defaultdict(list)
        for referrer in referrers:
            if referrer.tag is None:
                subjects[referrer.subject].append(referrer.manifest)
            else:
                if placement.ownership is not None:
                    await placement.ownership.confirm()
                await self._write(placement, referrer.manifest, referrer.tag)
        root = placement.image.root
        for attached in placement.attached:
            written = await put_attached(placement.repository, attached)
            self._transfers.written(placement.totals, written)
            subjects[root.digest].append(attached.manifest)
        for subject, manifests in subjects.items():
            put = partial(self._put_child, placement, root) if subject == root.digest else None
            written = await self._lists.ensure(
                placement.repository, subject, manifests, put, placement.ownership
            )
            self._transfers.written(placement.totals, written)

    async def _ensure_below(self, placement: ImageCopy, manifest: Manifest) -> None:
        """Returns when all that the manifest names is there; the manifest itself need not be.

        So this and a child's own writing are shared apart: one image may be the root of a tag and a child of another,
        and the index must not be put while only the blobs of that child are there.
        """
        key = (placement.repository.name, placement.key(manifest))
        await self._below.run(key, lambda: self._put_below(placement, manifest))

    async def _put_below(self, placement: ImageCopy, manifest: Manifest) -> None:
        repository = placement.repository
        wanted = [placement.blob(blob) for blob in manifest.blobs]
        lacking = [blob for blob in wanted if not self._transfers.finds(repository, blob)]
        await _all(
            [
                *(self._transfers.ensure(repository, blob) for blob in lacking),
                *(self._put_child(placement, child) for child in placement.image.children(manifest)),
            ]
        )

    async def _put_child(self, placement: ImageCopy, child: Manifest) -> None:
        key = (placement.repository.name, placement.key(child))

        async def put() -> None:
            await self._ensure_below(placement, child)
            await self._write(placement, child, None)
            self._presence.add(*key)

        if not self._presence.has(*key):
            await self._whole.run(key, put)

    async def _write(
        self, placement: ImageCopy, manifest: Manifest, tag: str | None, *, is_doubtful: bool = False
    ) -> None:
        """Puts the manifest and makes sure that it is what is found there.

        A registry that caches descriptors of blobs (distribution with `cache: blobdescriptor`) accepts what its garbage
        collection has removed, and then answers 404: where that may be so, its word is not enough.
        """
        repository = placement.repository
        stored = await repository.write_manifest(manifest, tag)
        size = len(manifest.body)
        self._transfers.written(placement.totals, size, repository.name, manifest.digest, size)
        if tag is not None and (stored is None or is_doubtful):
            stored = await self._resolve(repository, manifest, tag)
        if stored is not None and stored != manifest.digest:
            what = f"{tag or manifest.digest} is {stored} after {manifest.digest} was put"
            raise Corrupt(repository.site, "verify manifest", what, repository=repository.name)

    @staticmethod
    async def _resolve(repository: Repository, manifest: Manifest, tag: str) -> Digest | None:
        try:
            return (await repository.resolve(tag)).digest
        except NotFound as error:
            what = (
                f"tag {tag} does not exist although {manifest.digest} was accepted for it; the registry seems to "
                "remember content that was deleted there: restart it, or clear its cache of blob descriptors"
            )
            raise MissingReference(
                repository.site, "verify manifest", what, repository=repository.name
            ) from error
        except SiteError as error:
            if not is_unreadable(error):
                raise
            return None  # that it was accepted is all there is to know


async def _all(work: Sequence[Awaitable[object]]) -> None:
    """Waits for all of them, then raises one failure: transfers in progress when one fails are useful to others.

    Not in a group: whoever hears of it tells a lost state from a site's failure, and those from a fault of ours.
    """
    failures: list[Exception] = []

    async def attempt(one: Awaitable[object]) -> None:
        try:
            await one
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)

    if not work:
        return
    first, *others = work
    async with asyncio.TaskGroup() as tasks:
        for one in others:
            tasks.create_task(attempt(one))
        await attempt(first)
    if failures:
        raise min(
            failures,
            key=lambda error: (
                not isinstance(error, (StateError, OwnershipLostError)),
                isinstance(error, SiteError),
            ),
        )
