"""What a site holds, as it is served: with a memory of what cannot change and of listings that are being paged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from replicator.errors import Corrupt, NotFound
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, algorithm, digest_of, is_digest
from replicator.model.manifest import Manifest
from replicator.ports import Chunk, Clock, ObjectStore
from replicator.serve.cache import Cache
from replicator.sites.layouts.distribution.site import DistributionSite
from replicator.sites.layouts.oci.site import OciSite

LayoutSite = DistributionSite | OciSite
"""The sites that can be served."""

MANIFESTS_BYTES: Final = 64 * 1024 * 1024
LISTINGS_BYTES: Final = 32 * 1024 * 1024
BLOBS_KEPT: Final = 100_000
MAX_AGE_SECONDS: Final = 60.0
"""How long something deleted at the site may still be served."""

SMALL_BYTES: Final = 128 * 1024
"""Up to here a blob is read at once, and verified, which costs less than to open and send a file."""

_STRING_BYTES: Final = 57
"""What a short Python string takes beside its characters, with its place in a list."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob that is there: where, and how large."""

    digest: Digest
    size: int
    store: ObjectStore
    key: str
    repository: str


class Content:
    """What one site holds. Errors are the site's own (`SiteError`).

    A tag is looked up each time; what a digest names is remembered for `MAX_AGE_SECONDS`, as is a whole listing for
    the pages that follow its first.
    """

    def __init__(self, site: LayoutSite, *, clock: Clock) -> None:
        self._site = site
        self._manifests = Cache[tuple[str, Digest], Manifest](MANIFESTS_BYTES, MAX_AGE_SECONDS, clock=clock)
        self._blobs = Cache[tuple[str, Digest], Blob](BLOBS_KEPT, MAX_AGE_SECONDS, clock=clock)
        self._listings = Cache[str, list[str]](LISTINGS_BYTES, MAX_AGE_SECONDS, clock=clock)

    @property
    def site(self) -> str:
        """The site's name."""
        return self._site.name

    async def manifest(self, repository: str, reference: str) -> Manifest:
        """A manifest by tag or digest, its bytes verified. Raises `NotFound`, `Corrupt`."""
        if is_digest(reference):
            known = self._manifests.get((repository, Digest(reference)))
            if known is not None:
                return known
        manifest = await self._site.repository(repository).read_manifest(reference)
        self._manifests.put((repository, manifest.digest), manifest, 2 * len(manifest.body))
        return manifest

    async def blob(self, repository: str, digest: Digest) -> Blob:
        """A blob of this very repository. Raises `NotFound`."""
        known = self._blobs.get((repository, digest))
        if known is not None:
            return known
        there = self._site.repository(repository)
        found = await there.store.stat(there.blob_key(digest)) if await there.has_blob(digest) else None
        if found is None:
            raise NotFound(self.site, "read blob", f"no blob {digest}", repository=repository)
        blob = Blob(digest, found.size, there.store, found.key, repository)
        self._blobs.put((repository, digest), blob)
        return blob

    def read(self, blob: Blob, offset: int) -> AbstractAsyncContextManager[AsyncIterator[Chunk]]:
        """A blob's bytes from `offset` on, in chunks of at most 1 MiB; never more or fewer than its size says."""
        descriptor = Descriptor("application/octet-stream", blob.digest, blob.size)
        return self._site.repository(blob.repository).blob(descriptor).open(offset)

    async def small(self, blob: Blob) -> bytes:
        """All of a blob of at most `SMALL_BYTES`, verified. Raises `NotFound`, `Corrupt`."""
        data, _ = await blob.store.get(blob.key, SMALL_BYTES)
        if digest_of(data, algorithm(blob.digest)) != blob.digest:
            cause = f"the {len(data)} bytes of {blob.digest} are others"
            raise Corrupt(self.site, "read blob", cause, repository=blob.repository)
        return data

    def forget(self, blob: Blob) -> None:
        """Takes back that a blob is there."""
        self._blobs.drop((blob.repository, blob.digest))

    async def tags(self, repository: str, *, goes_on: bool) -> Sequence[str]:
        """All tags, sorted; as of the first page where this `goes_on` after it. Raises `NotFound`."""
        return await self._listing(repository, self._site.repository(repository).tags(), goes_on=goes_on)

    async def repositories(self, *, goes_on: bool) -> Sequence[str]:
        """All repositories, sorted; `goes_on` as with `tags`."""
        return await self._listing("", self._site.repositories(), goes_on=goes_on)

    async def referrers(self, repository: str, digest: Digest) -> Sequence[Descriptor]:
        """The manifests whose subject it is; empty if the repository does not exist."""
        try:
            return await self._site.repository(repository).referrers(digest)
        except NotFound:
            return ()

    async def _listing(
        self, key: str, pages: AsyncIterator[Sequence[str]], *, goes_on: bool
    ) -> Sequence[str]:
        known = self._listings.get(key) if goes_on else None
        if known is not None:
            return known
        names = sorted([name async for page in pages for name in page])
        self._listings.put(key, names, sum(len(name) + _STRING_BYTES for name in names))
        return names
