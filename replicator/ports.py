"""What the engine knows of the world: sites, repositories, blobs, state, time.

Adapters implement these. Outside an adapter nobody sees aiohttp, botocore, SQLAlchemy or OSError: whatever
goes wrong is a `SiteError` (or `StateError`) that names site, repository and operation. Every method may be
cancelled at any await and then leaves nothing visible and nothing held.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import msgspec

from replicator.errors import SiteError
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.manifest import Manifest

BlobOutcome = Literal["copied", "mounted"]


class Clock(Protocol):
    """Time, so that tests own it."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment, never going back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Returns after `seconds`."""
        ...


class BlobSource(Protocol):
    """A blob that can be read, again and from any offset.

    `failure` is the error that broke the latest reading, None while there was none. An uploader looks there
    first: aiohttp reports a body generator's own error as a connection error of the upload, and a source's
    failure must never be reported as the destination's.
    """

    @property
    def descriptor(self) -> Descriptor:
        """What is read; `size` bytes of it."""
        ...

    @property
    def failure(self) -> SiteError | None:
        """See the class."""
        ...

    def open(self, offset: int = 0) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes from `offset` on, in chunks of at most 1 MiB.

        Nothing is requested before the context is entered; leaving it early ends the reading. Raises a
        `SiteError` of the site that is read, from entering or from the iteration.
        """
        ...


class Repository(Protocol):
    """One repository at one site."""

    @property
    def site(self) -> str:
        """The site's name."""
        ...

    @property
    def name(self) -> str:
        """The repository's name there."""
        ...

    def tags(self) -> AsyncIterator[Sequence[str]]:
        """The tags, a page at a time, each once, in no promised order.

        Raises `NotFound` where there is no such repository. An iteration that ends without an error was complete.
        """
        ...

    async def resolve(self, reference: str) -> Descriptor:
        """What a tag or digest names now. Raises `NotFound`. Costs no pull where the site counts pulls."""
        ...

    async def read_manifest(self, reference: str) -> Manifest:
        """The manifest, its bytes verified against the digest asked for (or announced), size-capped.

        Raises `NotFound`, or `Corrupt` for bytes that are not what they were called or cannot be parsed.
        """
        ...

    async def has_blob(self, digest: Digest, size: int | None = None) -> bool:
        """Whether this very repository has the blob; where it can be told, of that size.

        What has another size is not the blob: it was cut short behind our back, and is to be written again.
        """
        ...

    def blob(self, descriptor: Descriptor) -> BlobSource:
        """The blob, for reading. Not verified: whoever reads hashes."""
        ...

    async def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """The manifests whose subject is `digest`. Raises `Unsupported` where the site has no such listing."""
        ...

    async def write_blob(self, source: BlobSource, *, origin: str | None = None) -> BlobOutcome:
        """Puts a blob into this repository.

        With `origin`, another repository of this site that has the blob, a mount is tried first; the source is
        opened only where that is refused, and the refused mount's own upload session is continued. Nothing is
        visible on failure. A failure of the source is raised as the source's error.
        """
        ...

    async def write_manifest(self, manifest: Manifest, tag: str | None = None) -> Digest | None:
        """Puts the manifest's exact bytes, by digest or, where given, by tag (root and tag in one request).

        Returns the digest that the site says it stored, None where it does not say. Raises `MissingReference`
        where the site misses something the manifest names.
        """
        ...

    async def delete_tag(self, tag: str) -> None:
        """Removes one tag and no other. Raises `Unsupported` where that cannot be done."""
        ...


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a site can do, as far as the engine has to know. Discovered or configured, never asked by kind of site.

    `mount`: blobs can be had from another repository of the site without sending them.
    `refuses_dangling`: a manifest that names a missing blob or child is refused (`MissingReference`).
    `catalog`: repositories can be listed.
    """

    mount: bool = False
    refuses_dangling: bool = False
    catalog: bool = False


@dataclass(frozen=True, slots=True)
class SiteCheck:
    """What `check` found at a site.

    `findings` are (what, answer) pairs in the order to show, such as ("credentials", "good");
    `problems` are one-line errors, none of them meaning that the site passed.
    """

    site: str
    findings: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]


class Site(Protocol):
    """One place that holds images."""

    @property
    def name(self) -> str:
        """The name in the config."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """As known now; may get better informed with use."""
        ...

    def repositories(self) -> AsyncIterator[Sequence[str]]:
        """The repositories, a page at a time. Raises `Unsupported` where the site has no catalog."""
        ...

    def repository(self, name: str) -> Repository:
        """A repository by name; asks nothing yet."""
        ...

    async def check(self, *, repositories: Sequence[str] = (), push: str | None = None) -> SiteCheck:
        """Reaches the site and says what works.

        Args:
            repositories: some that must be readable (the first that the rules name).
            push: a repository in which to start and cancel an upload.
        """
        ...

    async def aclose(self) -> None:
        """Gives everything back. The site is of no use afterwards."""
        ...


# --- optional powers of a repository, found by isinstance ---------------------------------------------------


class Listed(msgspec.Struct, frozen=True):
    """A tag with what it names, from a listing. `version` changes whenever the tag does, and means nothing else."""

    tag: str
    digest: Digest
    version: str


@runtime_checkable
class ListsDigests(Protocol):
    """A repository whose listing tells what the tags name."""

    def listed(self, known: Mapping[str, Listed]) -> AsyncIterator[Sequence[Listed]]:
        """As `tags`, with digests. A tag that still has the `version` it has in `known` is not read again.

        A tag that cannot be read does not hide the others: all pages come, then its error is raised.
        """
        ...


@runtime_checkable
class ComparesTags(Protocol):
    """A repository that tells, cheaper than by `resolve`, that a tag still names what it did."""

    async def changed(self, tag: str, known: Digest) -> Descriptor | None:
        """None where the tag still names `known`, else what it names now. Raises as `resolve` does."""
        ...


@runtime_checkable
class CopiesFromSibling(Protocol):
    """A repository that can have a blob from another site of the same store without it passing through us."""

    async def copy_blob(self, descriptor: Descriptor, origin: Repository) -> bool:
        """Has the store copy the blob from `origin`. False where the two do not share a store; nothing was done then.

        The size is compared; the digest is the origin's word (nothing passes through that could be hashed).
        """
        ...


@runtime_checkable
class RefusesManifests(Protocol):
    """A repository that knows of itself what it could never serve."""

    def refuses(self, manifest: Manifest) -> str | None:
        """Why `write_manifest` would be `Unsupported`, asked before anything is written; None where it would not."""
        ...


@runtime_checkable
class ListsBlobs(Protocol):
    """A site that tells by listing which blobs it has."""

    def blobs(self) -> AsyncIterator[tuple[str | None, Sequence[tuple[Digest, int]]]]:
        """Pages of digests (manifests' among them) and sizes as they lie there, with a repository that has them.

        None for the repository: whichever is asked has them.
        """
        ...


@runtime_checkable
class LimitsBytes(Protocol):
    """A site or store whose bytes a second can be limited while it works."""

    def set_bytes_per_second(self, rate: float | None) -> None:
        """Another limit from now on, read and written together; None is none."""
        ...


# --- object stores ------------------------------------------------------------------------------------------


class ObjectInfo(msgspec.Struct, frozen=True):
    """One object.

    `key` is relative to the store's root, parts parted by "/"; `version` is an ETag, or what a directory has for
    one (time, size, inode); `modified` in epoch seconds.
    """

    key: str
    size: int
    version: str
    modified: float


class ObjectPage(msgspec.Struct, frozen=True):
    """A page of a listing: objects, and (with a delimiter) the prefixes below, without a trailing "/"."""

    objects: Sequence[ObjectInfo] = ()
    prefixes: Sequence[str] = ()


class ObjectUpload(Protocol):
    """An object being written: nothing is visible before `commit`."""

    async def write(self, chunk: bytes) -> None:
        """Takes the next bytes."""
        ...

    async def commit(self) -> None:
        """Makes the object visible, whole and durable."""
        ...


class ObjectStore(Protocol):
    """What both layouts stand on: a bucket (below a prefix) or a directory. Keys cannot leave the root.

    Every failure is a `SiteError` of the site; operations name the key.
    """

    @property
    def site(self) -> str:
        """The site's name."""
        ...

    async def stat(self, key: str) -> ObjectInfo | None:
        """The object's facts, None where there is none (a folder is none)."""
        ...

    async def get(self, key: str, max_bytes: int) -> tuple[bytes, str]:
        """A small object's bytes and version. Raises `NotFound`, `Corrupt` where it is larger."""
        ...

    def read(self, key: str, offset: int = 0) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """An object's bytes from `offset` on, in chunks of at most 1 MiB. Raises `NotFound`."""
        ...

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str | None:
        """Writes a small object at once, atomically and durably; returns its version.

        None: the condition did not hold and nothing was written. A store without conditional writes (told by its
        `conditional` property) checks first, which is good for one writer.
        """
        ...

    @property
    def conditional(self) -> bool:
        """Whether conditions of `put` hold against other writers."""
        ...

    def upload(self, key: str, size: int | None) -> AbstractAsyncContextManager[ObjectUpload]:
        """Writes a large object; leaving the context without `commit` leaves nothing behind."""
        ...

    def list(self, prefix: str, *, delimiter: bool = False) -> AsyncIterator[ObjectPage]:
        """Objects whose key begins with `prefix`; with `delimiter` only one level ("/") of it."""
        ...

    async def copy(self, origin: ObjectStore, origin_key: str, key: str) -> bool:
        """Copies within the store (server-side; hard link or reflink on disk). False: not the same store."""
        ...

    async def link(self, origin_key: str, key: str) -> None:
        """Gives the same content a second key at no cost where the store can (hard link), else copies inside it."""
        ...

    async def delete(self, key: str) -> None:
        """Removes an object; one that is not there is no failure."""
        ...

    async def sweep(self) -> None:
        """Removes what a killed run of ours left behind (stale multiparts, temporary files)."""
        ...

    async def aclose(self) -> None:
        """Gives everything back."""
        ...


class OpenedFile(Protocol):
    """An object that is a file, open for reading. `fd` is the lender's: duplicate it to keep it."""

    @property
    def fd(self) -> int:
        """The descriptor."""
        ...

    @property
    def size(self) -> int:
        """Bytes, as of when it was opened."""
        ...


@runtime_checkable
class OpensFiles(Protocol):
    """A store whose objects are files, so that the kernel can send them."""

    def opened(self, key: str, offset: int = 0) -> AbstractAsyncContextManager[OpenedFile]:
        """The object's open file, at that offset. Raises as `ObjectStore.read`."""
        ...


# --- what is remembered -------------------------------------------------------------------------------------


class Belief(msgspec.Struct, frozen=True):
    """What we last put (or saw) under one tag of a destination, and for which rule.

    `recheck_at` (epoch seconds) is when the belief must be checked against the destination tag by tag.
    """

    tag: str
    digest: Digest
    rule: str
    recheck_at: float


class Pending(msgspec.Struct, frozen=True):
    """A tag that a destination lacks, and what became of it so far.

    `since` (epoch seconds) dates the change: its event's time, else the last complete look that still agreed.
    `error` is empty while nothing failed; `not_before` is when an unattended run may try again.
    """

    repository: str
    tag: str
    digest: Digest
    since: float
    attempts: int = 0
    error: str = ""
    reason: str = ""
    not_before: float = 0.0


class Placed(msgspec.Struct, frozen=True):
    """To record: a tag is in step at a destination. Ends what was pending for it."""

    rule: str
    destination: str
    belief: Belief
    repository: str


class Missing(msgspec.Struct, frozen=True):
    """To record: a tag is pending or failed again."""

    rule: str
    destination: str
    pending: Pending


class Unpending(msgspec.Struct, frozen=True):
    """To record: a tag is no longer wanted (gone at the source, or deselected)."""

    rule: str
    destination: str
    repository: str
    tag: str


class Seen(msgspec.Struct, frozen=True):
    """To record: a repository of a site was seen to have a blob."""

    site: str
    repository: str
    digest: Digest


class Created(msgspec.Struct, frozen=True):
    """To record: when the image of a digest was created (epoch seconds), by its own config."""

    digest: Digest
    at: float


class Noted(msgspec.Struct, frozen=True):
    """To record: what a listing said of a tag, so that it need not be read again while its version stays."""

    site: str
    repository: str
    listed: Listed


Entry = Placed | Missing | Unpending | Seen | Created | Noted


class Standing(msgspec.Struct, frozen=True):
    """Where one rule stands at one destination; times in epoch seconds, None for never.

    `first_seen`: when the rule was first run with this destination. `last_look`: the last complete look at the
    source. `last_success`: the end of the last run that left nothing pending. `oldest_pending`: the earliest
    `since` of what is pending now.
    """

    rule: str
    destination: str
    first_seen: float
    last_look: float | None = None
    last_success: float | None = None
    in_step: int = 0
    held: int = 0
    pending: int = 0
    failed: int = 0
    oldest_pending: float | None = None
    last_error: str = ""


class BehindRepository(msgspec.Struct, frozen=True):
    """A (target) repository of a destination that lacks tags of a rule. `pending` counts the failed ones too."""

    rule: str
    destination: str
    repository: str
    pending: int
    failed: int
    oldest_pending: float


class RunRow(msgspec.Struct, frozen=True):
    """One execution of one rule at one destination, as it ended."""

    rule: str
    destination: str
    started_at: float
    ended_at: float
    outcome: Literal["ok", "partial", "failed", "interrupted"]
    complete_look: bool
    in_step: int
    held: int
    failed: int
    error: str = ""
    narrowed: bool = False
    """Only what an event named was looked at: the counts are not those of the whole rule."""


class State(Protocol):
    """Durable memory: an accelerator, never the truth. A hint that is gone only costs requests."""

    async def beliefs(self, destination: str, repository: str) -> Mapping[str, Belief]:
        """What we believe of a destination's repository, by tag, whichever rule put it there."""
        ...

    async def pending(self, rule: str, destination: str, repository: str) -> Mapping[str, Pending]:
        """What is pending in one (target) repository, by tag."""
        ...

    async def knows_repository(self, site: str, repository: str) -> bool:
        """Whether we ever recorded a blob or tag there."""
        ...

    async def whereabouts(self, site: str, digests: Iterable[Digest]) -> Mapping[Digest, Sequence[str]]:
        """Repositories of the site in which blobs were seen: a few per digest, latest first."""
        ...

    async def forget(self, site: str, repository: str, digests: Iterable[Digest]) -> None:
        """Takes back hints that proved wrong."""
        ...

    async def created(self, digests: Iterable[Digest]) -> Mapping[Digest, float]:
        """Creation times known."""
        ...

    async def listed(self, site: str, repository: str) -> Mapping[str, Listed]:
        """What listings said of a repository's tags, by tag."""
        ...

    def begin(self, rule: str, destination: str) -> None:
        """Notes that a rule runs with a destination (dates `first_seen`)."""
        ...

    def record(self, entry: Entry) -> None:
        """Takes an entry; it is durable after the next `flush` (soon, in batches). Never raises, never waits."""
        ...

    async def flush(self) -> None:
        """Makes durable what was recorded. Raises `StateError`."""
        ...

    async def close_run(self, row: RunRow) -> Standing:
        """Flushes, then closes a run's row; the last thing that is written of it."""
        ...

    async def standings(self, rules: Sequence[str] | None = None) -> Sequence[Standing]:
        """Where rules stand; all that the state knows where None."""
        ...

    async def aclose(self) -> None:
        """Flushes and closes."""
        ...
