"""Sites in memory, without HTTP: the engine's tests run on them.

Faults are queued per method (kopia's FaultyStorage), every operation is logged, and any of them can be held still.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Literal

from replicator.demo.store import Content, StoreError, Upload
from replicator.errors import Corrupt, MissingReference, NotFound, Rejected, SiteError, Unsupported
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.manifest import Manifest, parse_manifest
from replicator.ports import BlobOutcome, BlobSource, Capabilities, SiteCheck
from tests.fakes.watched import WatchedStore

Method = Literal[
    "repositories",
    "tags",
    "resolve",
    "read_manifest",
    "has_blob",
    "open_blob",
    "referrers",
    "mount",
    "write_blob",
    "write_manifest",
    "delete_tag",
    "check",
]
"""`open_blob` is the reading of a blob, from its opening to its end; `mount` is the part of `write_blob` that tries one."""

MakeError = Callable[["Operation"], BaseException]


@dataclass(slots=True)
class Operation:
    """One call. `subject` is the digest, tag or reference; `outcome` stays "running" until it ended."""

    method: Method
    repository: str
    subject: str = ""
    outcome: str = "running"
    bytes: int = 0
    offset: int = 0


@dataclass(slots=True)
class _Fault:
    method: Method
    error: BaseException | MakeError
    times: int
    after: int
    repository: str | None
    subject: str | None
    late: bool
    at: int | None

    def strikes(self, operation: Operation, *, late: bool, at: int | None) -> bool:
        """Whether it is this fault's turn; counts."""
        if self.times <= 0 or self.method != operation.method or self.late != late or not _due(self.at, at):
            return False
        if self.repository not in {None, operation.repository} or self.subject not in {
            None,
            operation.subject,
        }:
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.times -= 1
        return True

    def raised(self, operation: Operation) -> BaseException:
        return self.error if isinstance(self.error, BaseException) else self.error(operation)


def _due(wanted: int | None, at: int | None) -> bool:
    """Whether a point in a call (None: its start) is the wanted one or, among offsets, beyond it."""
    return wanted is at if wanted is None or at is None else at >= wanted


class Pause:
    """Holds calls of one method. Await `reached`; then `release()` lets them, and all that come later, go on."""

    def __init__(self, method: Method, subject: str | None, at: int | None) -> None:
        self.reached = asyncio.Event()
        self._method = method
        self._subject = subject
        self._at = at
        self._released = asyncio.Event()

    def release(self) -> None:
        """Lets go, once and for all."""
        self._released.set()

    async def hold(self, operation: Operation, at: int | None) -> None:
        """Waits here if the operation is one to hold."""
        matches = (
            self._method == operation.method and self._subject in {None, operation.subject} and self._at == at
        )
        if matches and not self._released.is_set():
            self.reached.set()
            await self._released.wait()


class MemorySite:
    """A `replicator.ports.Site` over a store.

    Args:
        name: the site's name.
        store: what it holds; two sites may share one. It says itself whether it refuses dangling manifests.
        mount: whether blobs can be mounted (`capabilities.mount` says the same; `refuses_mounts` makes it a lie).
        refuses_dangling: where no store is given, whether the new one refuses dangling manifests.
        catalog: whether repositories can be listed.
        referrers: whether referrers can be listed.
        delete: whether tags can be deleted.
        page: how many names one page of a listing has.
        chunk_bytes: how much one chunk of a blob has.
        tells_digest: whether `write_manifest` returns the digest.
    """

    def __init__(
        self,
        name: str = "memory",
        store: WatchedStore | None = None,
        *,
        mount: bool = True,
        refuses_dangling: bool = True,
        catalog: bool = True,
        referrers: bool = True,
        delete: bool = True,
        page: int = 100,
        chunk_bytes: int = 64 * 1024,
        tells_digest: bool = True,
    ) -> None:
        self.name = name
        self.store = store if store is not None else WatchedStore(refuses_dangling=refuses_dangling)
        self.capabilities = Capabilities(mount)
        self.catalog = catalog
        self.referrers_api = referrers
        self.unlisted: set[Digest] = set()
        """What the listing of referrers lacks, until it is put a second time."""
        self.delete = delete
        self.page = page
        self.chunk_bytes = chunk_bytes
        self.tells_digest = tells_digest
        self.operations: list[Operation] = []
        self.peak: Counter[str] = Counter()
        self.closed = False
        self.turns: Callable[[], int] = lambda: 1
        """How many turns of the loop each step of an operation takes: random ones interleave at random."""
        self.refuses_mounts = False
        self._running: Counter[str] = Counter()
        self._faults: list[_Fault] = []
        self._pauses: list[Pause] = []
        self._corrupt: Counter[str] = Counter()

    # --- what tests do to it ---

    def fail(
        self,
        method: Method,
        error: BaseException | MakeError,
        *,
        times: int = 1,
        after: int = 0,
        repository: str | None = None,
        subject: str | None = None,
        late: bool = False,
        at: int | None = None,
    ) -> None:
        """Makes calls fail.

        Args:
            method: which.
            error: what is raised, or what makes it from the operation.
            times: how many calls fail.
            after: how many (matching) calls go well before.
            repository: only in this repository.
            subject: only for this digest, tag or reference.
            late: the call takes effect and then fails: the answer got lost.
            at: for `open_blob` and `write_blob`: breaks at the first chunk's end (0: before any chunk) by which so
                many bytes of this very call have gone by.
        """
        self._faults.append(_Fault(method, error, times, after, repository, subject, late, at))

    def pause(self, method: Method, *, subject: str | None = None, at: int | None = None) -> Pause:
        """Holds calls of a method at their start, or (`at`, for blobs) when so many bytes have gone by."""
        pause = Pause(method, subject, at)
        self._pauses.append(pause)
        return pause

    def release(self) -> None:
        """Lets go what is held by any pause."""
        for pause in self._pauses:
            pause.release()

    def corrupt(self, digest: str, *, times: int = 1) -> None:
        """The next `times` readings of a blob (or manifest) have their first byte changed."""
        self._corrupt[digest] += times

    def count(self, method: Method, subject: str | None = None, outcome: str | None = None) -> int:
        """How many calls there were, all outcomes counted where None."""
        return sum(
            operation.method == method
            and subject in {None, operation.subject}
            and outcome in {None, operation.outcome}
            for operation in self.operations
        )

    @property
    def idle(self) -> bool:
        """Whether no call is running and no upload session is left."""
        return not +self._running and not self.store.uploads

    # --- Site ---

    async def repositories(self) -> AsyncIterator[Sequence[str]]:
        if not self.catalog:
            raise Unsupported(self.name, "list repositories", "there is no catalog")
        async with self.operation("repositories", ""):
            names = sorted(self.store.repositories)
        for start in range(0, len(names), self.page):
            yield names[start : start + self.page]

    def repository(self, name: str) -> MemoryRepository:
        return MemoryRepository(self, name)

    async def check(self, *, repositories: Sequence[str] = (), push: str | None = None) -> SiteCheck:
        async with self.operation("check", push or ""):
            missing = [name for name in repositories if name not in self.store.repositories]
            findings = (("reachable", "yes"),)
            return SiteCheck(self.name, findings, tuple(f"{name}: no such repository" for name in missing))

    async def aclose(self) -> None:
        self.closed = True

    # --- the machinery, also for MemoryRepository ---

    @asynccontextmanager
    async def operation(self, method: Method, repository: str, subject: str = "") -> AsyncIterator[Operation]:
        """Logs a call, holds it, makes it fail, and turns the store's refusals into a site's errors."""
        operation = Operation(method, repository, subject)
        self.operations.append(operation)
        self._running[method] += 1
        self.peak[method] = max(self.peak[method], self._running[method])
        try:
            await self.step(operation)
            with self._errors(operation):
                yield operation
            self._strike(operation, late=True, at=None)
        except BaseException as error:
            operation.outcome = type(error).__name__
            raise
        else:
            if operation.outcome == "running":
                operation.outcome = "done"
        finally:
            self._running[method] -= 1

    async def step(self, operation: Operation, at: int | None = None) -> None:
        """A point where an operation may be held, fail or be cancelled."""
        for _ in range(self.turns()):
            await asyncio.sleep(0)
        for pause in self._pauses:
            await pause.hold(operation, at)
        self._strike(operation, late=False, at=at)

    def spoilt(self, digest: str, data: bytes) -> bytes:
        """The bytes, changed if they are to be."""
        if not self._corrupt[digest] or not data:
            return data
        self._corrupt[digest] -= 1
        return bytes([data[0] ^ 0xFF]) + data[1:]

    def _strike(self, operation: Operation, *, late: bool, at: int | None) -> None:
        for fault in self._faults:
            if fault.strikes(operation, late=late, at=at):
                raise fault.raised(operation)

    @contextmanager
    def _errors(self, operation: Operation) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            what, where = operation.method.replace("_", " "), operation.repository or None
            if error.code == "MANIFEST_BLOB_UNKNOWN" and isinstance(error.detail, list | tuple):
                raise MissingReference(
                    self.name, what, error.message, repository=where, digests=error.detail
                ) from error
            if error.code.endswith("UNKNOWN"):
                raise NotFound(
                    self.name, what, f"{error.message}: {operation.subject}", repository=where
                ) from error
            if error.code == "DIGEST_INVALID":
                raise Corrupt(
                    self.name, what, f"{error.message}: {operation.subject}", repository=where
                ) from error
            raise Rejected(self.name, what, error.message, repository=where, codes=[error.code]) from error


class MemoryRepository:
    """A `replicator.ports.Repository`."""

    def __init__(self, site: MemorySite, name: str) -> None:
        self._site = site
        self.site = site.name
        self.name = name

    async def tags(self) -> AsyncIterator[Sequence[str]]:
        async with self._site.operation("tags", self.name):
            tags = sorted(self._site.store.content(self.name).tags)
        for start in range(0, len(tags), self._site.page):
            yield tags[start : start + self._site.page]

    async def resolve(self, reference: str) -> Descriptor:
        async with self._site.operation("resolve", self.name, reference):
            return self._site.store.manifest(self.name, reference).descriptor

    async def read_manifest(self, reference: str) -> Manifest:
        async with self._site.operation("read_manifest", self.name, reference) as operation:
            manifest = self._site.store.manifest(self.name, reference)
            operation.bytes = len(manifest.body)
            if self._site.spoilt(manifest.digest, manifest.body) != manifest.body:
                raise Corrupt(
                    self.site, "read manifest", f"not the bytes of {manifest.digest}", repository=self.name
                )
            return manifest

    async def has_blob(self, digest: Digest, size: int | None = None) -> bool:
        async with self._site.operation("has_blob", self.name, digest):
            content = self._site.store.repositories.get(self.name)
            return content is not None and digest in content.blobs

    def blob(self, descriptor: Descriptor) -> MemoryBlob:
        return MemoryBlob(self._site, self.name, descriptor)

    async def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        async with self._site.operation("referrers", self.name, digest):
            if not self._site.referrers_api:
                raise Unsupported(self.site, "list referrers", "no referrers API", repository=self.name)
            listed = self._site.store.referrers(self.name, digest)
            return [one for one in listed if one.digest not in self._site.unlisted]

    async def write_blob(self, source: BlobSource, *, origin: str | None = None) -> BlobOutcome:
        digest = source.descriptor.digest
        async with self._site.operation("write_blob", self.name, digest) as operation:
            if origin is not None and await self._mount(digest, origin):
                operation.outcome = "mounted"
                return "mounted"
            if origin is not None and await self.has_blob(digest):
                operation.outcome = "present"
                return "present"
            upload = self._site.store.start_upload(self.name)
            try:
                await self._receive(source, upload, operation)
                self._site.store.finish_upload(upload, digest)
            finally:
                self._site.store.uploads.pop(upload.id, None)
            return "copied"

    async def write_manifest(self, manifest: Manifest, tag: str | None = None) -> Digest | None:
        async with self._site.operation("write_manifest", self.name, tag or manifest.digest) as operation:
            operation.bytes = len(manifest.body)
            whole = parse_manifest(
                manifest.body, manifest.media_type, manifest.digest
            )  # as a site gets it: bytes
            if manifest.digest in self._site.store.repositories.get(self.name, Content()).manifests:
                self._site.unlisted.discard(manifest.digest)
            self._site.store.put_manifest(self.name, whole, tag)
            return manifest.digest if self._site.tells_digest else None

    async def delete_tag(self, tag: str) -> None:
        if not self._site.delete:
            raise Unsupported(self.site, "delete tag", "deleting is switched off", repository=self.name)
        async with self._site.operation("delete_tag", self.name, tag):
            self._site.store.delete_tag(self.name, tag)

    async def _mount(self, digest: Digest, origin: str) -> bool:
        async with self._site.operation("mount", self.name, digest) as operation:
            can = self._site.capabilities.mount and not self._site.refuses_mounts
            mounted = can and self._site.store.mount(self.name, digest, origin)
            operation.outcome = "mounted" if mounted else "refused"
            return mounted

    async def _receive(self, source: BlobSource, upload: Upload, operation: Operation) -> None:
        expected = source.descriptor.size
        async with source.open() as chunks:
            await self._site.step(operation, upload.size)
            async for chunk in chunks:
                upload.write(bytes(chunk))
                operation.bytes = upload.size
                await self._site.step(operation, upload.size)
        if source.failure is not None:
            raise source.failure
        if expected is not None and upload.size != expected:
            cause = f"{operation.subject}: {upload.size} bytes came, {expected} were announced"
            raise Corrupt(self.site, "write blob", cause, repository=self.name)


class MemoryBlob:
    """A `replicator.ports.BlobSource`."""

    def __init__(self, site: MemorySite, repository: str, descriptor: Descriptor) -> None:
        self._site = site
        self._repository = repository
        self.descriptor = descriptor
        self.failure: SiteError | None = None

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        self.failure = None
        entered = False
        try:
            async with self._site.operation(
                "open_blob", self._repository, self.descriptor.digest
            ) as operation:
                operation.offset = offset
                blob = self._site.store.blob(self._repository, self.descriptor.digest)
                data = self._site.spoilt(self.descriptor.digest, b"".join(blob.read()))[offset:]
                entered = True
                yield self._chunks(data, operation)
        except SiteError as error:
            if not entered:  # what the reader raises later passes here too, and is not ours
                self.failure = error
            raise

    async def _chunks(self, data: bytes, operation: Operation) -> AsyncIterator[bytes]:
        try:
            await self._site.step(operation, 0)
            while operation.bytes < len(data):
                chunk = data[operation.bytes : operation.bytes + self._site.chunk_bytes]
                yield chunk
                operation.bytes += len(chunk)
                await self._site.step(operation, operation.bytes)
        except SiteError as error:
            self.failure = error
            raise
