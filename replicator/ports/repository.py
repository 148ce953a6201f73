"""Repositories and the blobs in them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import msgspec

from replicator.errors import SiteError
from replicator.model.companion import Attached
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.manifest import Manifest
from replicator.ports.power import Power

Chunk: TypeAlias = bytes | memoryview
"""Bytes on their way. A memoryview is of memory that is used again once nobody refers to it."""

BlobOutcome = Literal["copied", "mounted", "present"]


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

    def open(self, offset: int = 0) -> AbstractAsyncContextManager[AsyncIterator[Chunk]]:
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

        Raises `NotFound` if the repository does not exist. An iteration that ends without an error was complete.
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
        """The manifests whose subject is `digest`.

        Raises `Unsupported` where the site does not list them, `NotFound` where it may refuse to tell because it does
        not have the subject.
        """
        ...

    async def write_blob(self, source: BlobSource, *, origin: str | None = None) -> BlobOutcome:
        """Puts a blob into this repository.

        With `origin`, another repository of this site that has the blob, a mount is tried first; the source is
        opened only where that is refused and the blob is not here already ("present": the caller need not ask
        before), and the refused mount's own upload session is continued. Nothing is visible on failure. A failure
        of the source is raised as the source's error.
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


class Listed(msgspec.Struct, frozen=True):
    """A tag with what it names, from a listing.

    `digest` is None where the listing does not tell. `version` changes whenever the tag does, and means nothing else; ""
    is not worth remembering. `fixed` says that the tag may not be moved, and why ("locked", "immutable"); `archived` that
    its content cannot be read for now. `is_hint`: the listing may lag behind the site.
    """

    tag: str
    digest: Digest | None
    version: str = ""
    fixed: str = ""
    archived: bool = False
    is_hint: bool = False


class ListingRefused(msgspec.Struct, frozen=True):
    """A site refused at `at` to list the tags of a repository with what they name; "" is all repositories.

    `cause` is for people.
    """

    site: str
    repository: str
    at: float
    cause: str


# --- optional powers, found by isinstance ---


@runtime_checkable
class VerifiesItself(Protocol, metaclass=Power):
    """A `BlobSource` that may hash what it gives out."""

    @property
    def is_verified(self) -> bool:
        """Whether all of it comes only where it is the blob of its digest, so that whoever writes need not hash again."""
        ...


@runtime_checkable
class FollowsURLs(Protocol, metaclass=Power):
    """A repository that can read non-distributable layers from the URLs that manifests name."""

    def blob_at(self, descriptor: Descriptor, url: str) -> BlobSource | None:
        """The blob at that URL, for reading; not verified. Its errors are the site's. None: it is not followed.

        Nobody's credentials are sent, and no host is asked to which the site could not redirect.
        """
        ...


@runtime_checkable
class ReadsRanges(BlobSource, Protocol, metaclass=Power):
    """A `BlobSource` that can be read in parts, several at once."""

    @property
    def parallel_reads(self) -> int | None:
        """How many parts of a large blob to read at once, as configured; None: as many as help."""
        ...

    @property
    def bytes_per_second(self) -> float | None:
        """What all readings of the site together are limited to; None: no limit."""
        ...

    def open_range(
        self, start: int, stop: int
    ) -> AbstractAsyncContextManager[tuple[AsyncIterator[Chunk], int]]:
        """The bytes from `start` on, and where they end: at `stop`, or at the blob's end where the site ignores ranges.

        Otherwise as `open`; `failure` is of all readings together.
        """
        ...


@runtime_checkable
class ReadsWhole(Protocol, metaclass=Power):
    """A `BlobSource` that gives a small blob in one piece."""

    async def whole(self) -> bytes:
        """All of its bytes, read anew, in one request where the site allows it. The size must be known. Raises as `open`."""
        ...


@runtime_checkable
class ListsDigests(Protocol, metaclass=Power):
    """A repository whose listing may tell what the tags name."""

    @property
    def listing_notice(self) -> str:
        """Why the latest listing does without digests that it should have; "" where nobody need know."""
        ...

    def listed(self, known: Mapping[str, Listed]) -> AsyncIterator[Sequence[Listed]]:
        """As `tags`, with digests. A tag that still has the `version` it has in `known` is not read again.

        A tag that cannot be read does not hide the others: all pages come, then its error is raised.
        """
        ...


@runtime_checkable
class ListsAttached(Protocol, metaclass=Power):
    """A `ListsDigests` whose listing may tell what refers to manifests, or that something does."""

    @property
    def attached(self) -> Mapping[Digest, Attached]:
        """What the latest listing told of manifests; of one that is not here, nothing."""
        ...


@runtime_checkable
class RefusesListings(Protocol, metaclass=Power):
    """A `ListsDigests` whose site may refuse to list what tags name: it is asked again after a day, by whatever process."""

    def recall(self, refusals: Sequence[ListingRefused]) -> None:
        """Takes what earlier runs were refused; to be called before `listed`."""
        ...

    @property
    def listing_refused(self) -> ListingRefused | None:
        """The refusal that the latest listing met, to be remembered; None where it met none."""
        ...


@runtime_checkable
class ComparesTags(Protocol, metaclass=Power):
    """A repository that tells, cheaper than by `resolve`, that a tag still names what it did."""

    async def changed(self, tag: str, known: Digest) -> Descriptor | None:
        """None where the tag still names `known`, else what it names now. Raises as `resolve` does."""
        ...


@runtime_checkable
class CopiesFromSibling(Protocol, metaclass=Power):
    """A repository that can have a blob from another site of the same store without it passing through us."""

    async def copy_blob(self, descriptor: Descriptor, origin: Repository) -> bool:
        """Has the store copy the blob from `origin`. False where the two do not share a store; nothing was done then.

        The size is compared; the digest is the origin's word (nothing passes through that could be hashed).
        """
        ...


@runtime_checkable
class RefusesTags(Protocol, metaclass=Power):
    """A repository that remembers which tags may not be moved."""

    def refuses_tag(self, tag: str) -> str | None:
        """Why `write_manifest` would be `Immutable` for a tag that names something else; None where it would not."""
        ...


@runtime_checkable
class RefusesManifests(Protocol, metaclass=Power):
    """A repository that knows of itself what it could never serve."""

    def refuses(self, manifest: Manifest, *, tagged: bool) -> str | None:
        """Why `write_manifest` would be `Unsupported`, asked before anything is written; None where it would not."""
        ...


@runtime_checkable
class TriesManifests(Protocol, metaclass=Power):
    """A repository that finds out what `refuses` is to say."""

    async def try_for(self, manifests: Collection[Manifest]) -> None:
        """Asked before an image of these is sent. May write something small, so not where nothing is to be changed."""
        ...


@runtime_checkable
class ListsReferrers(Protocol, metaclass=Power):
    """A repository that knows of itself whether it lists what is put with a subject, so that nobody need ask."""

    @property
    def lists_referrers(self) -> bool:
        """True: all that is put is listed. False: clients will find it by the fallback tag alone."""
        ...
