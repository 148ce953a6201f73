"""One blob to one destination: present, else mounted, else sent; each once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from replicator.engine.content.source import SourceContent
from replicator.engine.content.spool import SpoolFull
from replicator.engine.faults import is_unreadable
from replicator.engine.result import Totals
from replicator.engine.transfer.claims import ClaimedTransfers, is_claimed
from replicator.engine.transfer.delivery import SMALL_BLOB_BYTES, Delivery
from replicator.engine.transfer.presence import Presence
from replicator.errors import Advice, Corrupt, NotFound, SiteError
from replicator.events import BlobDone, BytesSaved, BytesWritten, ConfigPassed, Events
from replicator.flow.once import Once
from replicator.flow.patience import MOUNT_REFUSALS, READINGS
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.ports import (
    BlobSource,
    CopiesFromSibling,
    Repository,
    Seen,
    Site,
    State,
)

Outcome = Literal["copied", "mounted", "present"]


class WantedBlob(msgspec.Struct, frozen=True):
    """A blob wanted at a destination.

    `source` is the repository it comes from, with the `mirrors` to ask before; `fresh` says that the target
    repository did not exist when it was listed and nothing of ours is remembered there; `totals` counts what is
    moved for it. `doubted`: the destination has lost other parts of the image, so it is not believed that it has this one
    before it gives out a byte of it.
    """

    descriptor: Descriptor
    source: str
    mirrors: tuple[str, ...]
    content: SourceContent
    fresh: bool
    totals: Totals
    doubted: bool = False


class _Work:
    """One transfer: what it read, and whether the hint was right that the blob lies in the repository `other`."""

    def __init__(self, blob: WantedBlob, other: str | None) -> None:
        self.blob = blob
        self.other = other
        self.read = 0
        self.is_hint_wrong = False

    def on_read(self, count: int) -> None:
        """Counts bytes that came in."""
        self.read += count
        self.blob.totals.bytes.read += count

    def on_lost(self, error: SiteError) -> None:
        """Hears why it could not be read from there."""
        self.is_hint_wrong = isinstance(error, NotFound)


class _Leader:
    """The first transfer of a blob to a destination; `error` is set where it failed."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.ended = asyncio.Event()
        self.error: SiteError | None = None


class BlobTransfers:
    """All transfers of one run to one destination site.

    Whoever wants the same blob, of the same size, in the same repository shares one transfer, failures included.
    Whoever wants it in another repository of the site waits for the first one, then mounts it, or has it from there.
    """

    def __init__(
        self,
        site: Site,
        *,
        source: str,
        presence: Presence,
        state: State,
        events: Events,
        claimed: ClaimedTransfers | None = None,
    ) -> None:
        self._claimed = claimed
        self._site = site
        self._source = source
        self._presence = presence
        self._state = state
        self._events = events
        # By size too: a manifest that names a blob with a wrong size must not fail its neighbours' copies.
        self._once: Once[tuple[str, Digest, int | None], Outcome] = Once()
        self._leaders: dict[tuple[Digest, int | None], _Leader] = {}
        self._remembered: dict[Digest, tuple[str, ...]] = {}
        self._refusals = 0
        self._mounted: set[tuple[str, Digest]] = set()
        self._proven: set[tuple[str, Digest]] = set()
        """Doubted blobs that were read or written."""
        self._shares_store = True  # as far as is known: one refusal tells

    def refresh(self) -> None:
        """Forgets what was found out long ago about the destination."""
        self._remembered.clear()
        self._refusals = 0
        self._shares_store = True

    def finds(self, repository: Repository, blob: WantedBlob) -> bool:
        """Whether the repository is known to have the blob, which then is counted as present."""
        digest = blob.descriptor.digest
        if blob.doubted and (repository.name, digest) not in self._proven:
            self._presence.forget(repository.name, [digest])
        if not self._presence.has(repository.name, digest):
            return False
        self._done(repository, blob, "present")
        return True

    async def ensure(self, repository: Repository, blob: WantedBlob) -> Outcome:
        """Returns when the repository has the blob.

        Raises:
            SiteError: of the source or the destination, whoever failed; nothing is visible then.
        """
        if self.finds(repository, blob):  # another image may have brought it since it was looked for
            return "present"
        key = (repository.name, blob.descriptor.digest, blob.descriptor.size)
        return await self._once.run(key, lambda: self._place(repository, blob))

    async def locate(self, repository: Repository, blob: WantedBlob) -> Outcome:
        """What `ensure` would do, asking only; remembers the answer as if it had been done."""
        digest = blob.descriptor.digest
        there = self._presence.has(repository.name, digest) or await repository.has_blob(
            digest, blob.descriptor.size
        )
        recalled = None if there or _is_cheap(blob) else await self._recall(repository.name, digest)
        # Another image may have been asked about meanwhile, so what is known is looked at only now.
        if there or self._presence.has(repository.name, digest):
            outcome: Outcome = "present"
        else:
            other = self._elsewhere(repository.name, digest) or recalled
            outcome = "mounted" if other and self.may_mount else "copied"
        self._presence.add(repository.name, digest)
        return outcome

    def forget(self, repository: str, digests: Iterable[Digest]) -> None:
        """Takes back what the destination showed to be wrong; the next `ensure` asks it.

        What was mounted and is missing all the same is sent then, and nothing is mounted any more in this run.
        """
        digests = tuple(digests)
        if any((repository, digest) in self._mounted for digest in digests):
            self._refusals = MOUNT_REFUSALS
        self._presence.forget(repository, digests)

    def written(
        self, totals: Totals, count: int, repository: str = "", digest: str = "", position: int = 0
    ) -> None:
        """Counts bytes that went out to the destination, a manifest's too; of one digest, `position` is how far it is."""
        totals.bytes.written += count
        self._events.emit(BytesWritten(self._source, self._site.name, count, repository, digest, position))

    @property
    def may_mount(self) -> bool:
        """Whether a blob of another repository can be mounted, as far as is known."""
        return self._site.capabilities.mount and self._refusals < MOUNT_REFUSALS

    async def _place(self, repository: Repository, blob: WantedBlob) -> Outcome:
        digest = blob.descriptor.digest
        if (
            blob.doubted
        ):  # nor is its word about other repositories: distribution mounts what its cache remembers
            return await self._place_doubted(repository, blob)
        while True:
            other = self._elsewhere(repository.name, digest)
            # A mount answers for itself whether the blob is there, so asking before would be one request too many.
            if not (other and self.may_mount) and await self._is_there(repository, blob):
                return self._done(repository, blob, "present")
            recalled = None if other or _is_cheap(blob) else await self._recall(repository.name, digest)
            # The first transfer may have ended while these were asked: what is known is looked at only now.
            other = self._elsewhere(repository.name, digest)
            leader = self._leaders.get((digest, blob.descriptor.size))
            # What is only remembered may be wrong, and then would be read from the source beside the first transfer.
            if other or leader is None:
                return await self._lead(repository, blob, other or recalled)
            await leader.ended.wait()
            if leader.error and leader.source == blob.source and leader.error.site != self._site.name:
                raise leader.error  # the source's own failure: asking it again would tell the same

    async def _place_doubted(self, repository: Repository, blob: WantedBlob) -> Outcome:
        there = await self._is_there(repository, blob)
        outcome = (
            self._done(repository, blob, "present") if there else await self._lead(repository, blob, None)
        )
        self._proven.add((repository.name, blob.descriptor.digest))
        return outcome

    async def _lead(self, repository: Repository, blob: WantedBlob, other: str | None) -> Outcome:
        """Transfers the blob while those who want it in other repositories wait."""
        key = (blob.descriptor.digest, blob.descriptor.size)
        leader = _Leader(blob.source)
        if self._leaders.setdefault(key, leader) is not leader:
            return await self._bring(repository, blob, other)
        try:
            return await self._bring(repository, blob, other)
        except SiteError as error:
            leader.error = error
            raise
        finally:
            del self._leaders[key]
            leader.ended.set()

    async def _bring(self, repository: Repository, blob: WantedBlob, other: str | None) -> Outcome:
        """Transfers the blob; where another agent brings it to the site now, looks for it when that is through."""
        if self._claimed is None or not is_claimed(blob.descriptor) or (other and self.may_mount):
            return await self._transfer(repository, blob, other)
        return await self._claimed.run(
            blob.descriptor,
            lambda: self._transfer_claimed(repository, blob, other),
            lambda: self._transfer_after(repository, blob),
        )

    async def _transfer_after(self, repository: Repository, blob: WantedBlob) -> Outcome:
        if await self._is_there(repository, blob):
            return self._done(repository, blob, "present")
        return await self._transfer_claimed(repository, blob, None)

    async def _transfer_claimed(self, repository: Repository, blob: WantedBlob, other: str | None) -> Outcome:
        """Whoever had the claim before has noted in the state where the blob lies."""
        digest = blob.descriptor.digest
        if other is None and not blob.doubted:
            self._remembered.pop(digest, None)
            other = await self._recall(repository.name, digest)
        return await self._transfer(repository, blob, other)

    async def _transfer(self, repository: Repository, blob: WantedBlob, other: str | None) -> Outcome:
        work = _Work(blob, other)
        try:
            if await self._copy_within_store(repository, blob, other):
                return self._done(repository, blob, "copied")
            outcome: Outcome = await self._write(repository, work)
        except SiteError:
            self._tell(repository, blob, "failed")
            raise
        if other is not None and work.is_hint_wrong:
            await self.take_back(other, [blob.descriptor.digest])
        elif other is not None and self.may_mount:
            self._refusals = 0 if outcome == "mounted" else self._refusals + 1
        if outcome == "mounted":
            self._mounted.add((repository.name, blob.descriptor.digest))
        if outcome == "copied" and not work.read:
            self._save(blob, "shared_read")
        return self._done(repository, blob, outcome)

    async def _write(self, repository: Repository, work: _Work) -> Outcome:
        blob, other, digest = work.blob, work.other, work.blob.descriptor.digest
        origin = other if self.may_mount else None
        source, corrupt = self._source_of(work), 0

        def count(size: int, position: int) -> None:
            self.written(blob.totals, size, repository.name, digest, position)

        while True:
            delivery = Delivery(source, count)
            try:
                outcome = await repository.write_blob(delivery, origin=origin)
            except SpoolFull as error:
                blob.content.warn_spool(error)
                source = self._source_of(work, spooled=False)
            except Corrupt as error:
                corrupt += 1
                if error.advice is not Advice.RETRY or corrupt >= READINGS * (1 + len(blob.mirrors)):
                    raise
            else:
                if outcome == "copied" and delivery.passed is not None:
                    self._events.emit(ConfigPassed(blob.descriptor.digest, bytes(delivery.passed)))
                return outcome

    def _source_of(self, work: _Work, *, spooled: bool = True) -> BlobSource:
        blob, other = work.blob, work.other
        return blob.content.blob(
            blob.source,
            blob.descriptor,
            blob.mirrors,
            work.on_read,
            beside=None if other is None or work.is_hint_wrong else self._site.repository(other),
            on_lost=work.on_lost,
            spooled=spooled,
        )

    async def take_back(self, repository: str, digests: Sequence[Digest]) -> None:
        """A repository of the site was believed to have blobs and has not."""
        self._presence.forget(repository, digests)
        for digest in digests:
            self._remembered.pop(digest, None)
        await self._state.forget(self._site.name, repository, digests)

    async def _copy_within_store(self, repository: Repository, blob: WantedBlob, other: str | None) -> bool:
        """Where source and destination share a store, it copies by itself: no byte passes through here.

        Not where a mount will do: that takes no second room. False, too, where they share none.
        """
        if not self._shares_store or not isinstance(repository, CopiesFromSibling):
            return False
        if other and self.may_mount:
            beside = self._site.repository(other)
            if await beside.has_blob(blob.descriptor.digest, blob.descriptor.size):
                return False
        copied = await repository.copy_blob(blob.descriptor, blob.content.repository(blob.source))
        self._shares_store = copied
        if copied:
            self._save(blob, "server_side")
        return copied

    async def _is_there(self, repository: Repository, blob: WantedBlob) -> bool:
        if blob.fresh and _is_cheap(blob):
            return False
        if not await repository.has_blob(blob.descriptor.digest, blob.descriptor.size):
            return False
        return not blob.doubted or await _gives_out(repository, blob.descriptor)

    def _elsewhere(self, repository: str, digest: Digest) -> str | None:
        """Another repository of the destination that was seen in this run to have the blob."""
        return next(self._presence.elsewhere(repository, digest), None)

    async def _recall(self, repository: str, digest: Digest) -> str | None:
        """Another repository of the destination that is remembered to have had the blob."""
        if digest not in self._remembered:
            found = await self._state.whereabouts(self._site.name, [digest])
            self._remembered[digest] = tuple(found.get(digest, ()))
        return next((other for other in self._remembered[digest] if other != repository), None)

    def _done(self, repository: Repository, blob: WantedBlob, outcome: Outcome) -> Outcome:
        digest = blob.descriptor.digest
        if not self._presence.has(repository.name, digest):
            self._presence.add(repository.name, digest)
            if not _is_cheap(blob):  # nobody asks the state where another one lies
                self._state.record(Seen(self._site.name, repository.name, digest))
        self._tell(repository, blob, outcome)
        if outcome != "copied":
            self._save(blob, outcome)
        return outcome

    def _save(
        self, blob: WantedBlob, why: Literal["present", "mounted", "shared_read", "server_side"]
    ) -> None:
        size = blob.descriptor.size or 0
        blob.totals.bytes.saved += size
        self._events.emit(BytesSaved(self._site.name, why, size))

    def _tell(self, repository: Repository, blob: WantedBlob, outcome: Outcome | Literal["failed"]) -> None:
        blob.totals.blobs.count(outcome)
        digest, size = blob.descriptor.digest, blob.descriptor.size or 0
        self._events.emit(BlobDone(self._source, self._site.name, repository.name, digest, outcome, size))


def _is_cheap(blob: WantedBlob) -> bool:
    """Whether sending the blob costs no more than finding out how not to."""
    size = blob.descriptor.size
    return size is not None and size <= SMALL_BLOB_BYTES


async def _gives_out(repository: Repository, descriptor: Descriptor) -> bool:
    """Whether the last byte of a blob can be read.

    distribution answers HEAD for what its garbage collection removed (docs/quirks.md#remembered-content).
    """
    if not descriptor.size:
        return True
    try:
        async with repository.blob(descriptor).open(descriptor.size - 1) as chunks:
            return await anext(chunks, b"") != b""
    except SiteError as error:
        return is_unreadable(error)
