"""One repository in distribution's storage, as `ports.Repository`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from replicator.errors import NotFound
from replicator.events import Events
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, is_digest
from replicator.model.manifest import Manifest
from replicator.model.names import is_repository, is_tag
from replicator.ports import BlobOutcome, BlobSource, Listed, ObjectStore, Repository
from replicator.sites.layouts.blobs import KeepsObjects, StoredBlob, copy_stored, has_object, write_stream
from replicator.sites.layouts.distribution.links import read_link, write_link
from replicator.sites.layouts.distribution.paths import RepositoryPaths, blob_data
from replicator.sites.layouts.distribution.refusal import why_not, why_not_digest
from replicator.sites.layouts.distribution.tags import listed_tags, tag_versions
from replicator.sites.layouts.distribution.writing import ManifestWriter
from replicator.sites.layouts.errors import RepositoryErrors
from replicator.sites.layouts.manifests import Subjects, read_stored
from replicator.sites.layouts.writing import FirstWrite


@dataclass(frozen=True, slots=True)
class Storage:
    """What the repositories of one site share."""

    store: ObjectStore
    events: Events
    writer: ManifestWriter
    subjects: Subjects
    first_write: FirstWrite


class DistributionRepository:
    """A repository by name; asks nothing until something is asked of it.

    A blob is in a repository when there is a link to it; its bytes are kept once for the whole site.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self.site = storage.store.site
        self.name = name
        self.store = storage.store
        self._storage = storage
        self._errors = RepositoryErrors(self.site, name)
        self._unchecked = RepositoryPaths(name)

    def __repr__(self) -> str:
        return f"<DistributionRepository {self.site}: {self.name}>"

    def blob_key(self, digest: Digest) -> str:
        """The key of a blob, there or not."""
        return blob_data(digest)

    # --- reading ---

    async def tags(self) -> AsyncIterator[Sequence[str]]:
        """The tags, by one recursive listing; see `tags.tag_versions`."""
        paths = self._paths("list tags")
        with self._errors.named():
            async for page in tag_versions(self.store, paths, self._errors, self._storage.events):
                yield [tag for tag, _ in page]

    listing_notice: Final = ""

    async def listed(self, known: Mapping[str, Listed]) -> AsyncIterator[Sequence[Listed]]:
        """The tags with their digests; reads only links that changed. See `tags.listed_tags`."""
        paths = self._paths("list tags")
        with self._errors.named():
            async for page in listed_tags(self.store, paths, self._errors, self._storage.events, known):
                yield page

    async def resolve(self, reference: str) -> Descriptor:
        """What a tag or digest names now. Reads the manifest: nothing else knows its media type."""
        return (await self.read_manifest(reference)).descriptor

    async def read_manifest(self, reference: str) -> Manifest:
        """The manifest, its bytes verified.

        Raises:
            NotFound: also for a tag whose link leads to a missing manifest, as in a registry.
            Corrupt: a link that is not a digest, or bytes that do not match the digest.
        """
        paths = self._paths("read manifest")
        with self._errors.named():
            if is_digest(reference):
                return await self._read_revision(paths, Digest(reference))
            if not is_tag(reference):
                raise self._errors.not_found("read manifest", f"{reference!r} is neither tag nor digest")
            digest = await self._current(paths, reference)
            try:
                return await self._read_revision(paths, digest)
            except NotFound as error:
                cause = f"tag {reference} refers to {digest}, which does not exist"
                raise self._errors.not_found("read manifest", cause) from error

    async def has_blob(self, digest: Digest, size: int | None = None) -> bool:
        """Whether this very repository has the blob: the link, and the bytes that a registry's GC may have taken."""
        paths = self._paths("ask for blob")
        with self._errors.named():
            return await has_object(self.store, paths.layer(digest), None) and await has_object(
                self.store, blob_data(digest), size
            )

    def blob(self, descriptor: Descriptor) -> BlobSource:
        """The blob, for reading. Not verified: whoever reads hashes."""
        return StoredBlob(self.store, blob_data(descriptor.digest), descriptor, self._errors)

    async def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """The manifests whose subject is `digest`.

        The storage does not index them, so each manifest of the repository is read, once in this process.
        """
        paths = self._paths("list referrers")
        with self._errors.named():
            links = [one.key async for page in self.store.list(paths.revisions) for one in page.objects]
            named = [paths.revision_of(key) for key in links if key.endswith("/link")]
            candidates = [(Digest(one), blob_data(Digest(one)), "") for one in named if is_digest(one)]
            return await self._storage.subjects.referrers(self.store, candidates, digest, self._errors)

    # A registry that serves this storage has no referrers API, and its garbage collection keeps what a tag leads to.
    lists_referrers: Final = False

    # --- writing ---

    async def write_blob(self, source: BlobSource, *, origin: str | None = None) -> BlobOutcome:  # noqa: ARG002 the bytes are the whole site's
        """Puts a blob into this repository: by a link alone where the site has its bytes, from whatever repository."""
        digest, size = source.descriptor.digest, source.descriptor.size
        paths = self._writable(digest)
        with self._errors.named():
            await self._storage.first_write.ready()
            if await has_object(self.store, blob_data(digest), size):
                if await has_object(self.store, paths.layer(digest), None):
                    return "present"
                await write_link(self.store, paths.layer(digest), digest)
                return "mounted"
            await write_stream(self.store, blob_data(digest), source, self._errors)
            await write_link(self.store, paths.layer(digest), digest)
            return "copied"

    async def copy_blob(self, descriptor: Descriptor, origin: Repository) -> bool:
        """Has the store copy the blob's bytes from another of its sites; False if the two are in different stores."""
        paths = self._writable(descriptor.digest)
        if not isinstance(origin, KeepsObjects):
            return False
        key = blob_data(descriptor.digest)
        with self._errors.named():
            await self._storage.first_write.ready()
            if not await copy_stored(self.store, key, descriptor, origin, self._errors):
                return False
            await write_link(self.store, paths.layer(descriptor.digest), descriptor.digest)
            return True

    def refuses(self, manifest: Manifest, *, tagged: bool) -> str | None:  # noqa: ARG002 - all are served alike
        """Why `write_manifest` would be `Unsupported`, so that nothing need be written before; None where it is not."""
        return why_not(manifest)

    async def write_manifest(self, manifest: Manifest, tag: str | None = None) -> Digest | None:
        """Puts the manifest's exact bytes and, last of all, the tag; see `ManifestWriter.write`.

        Raises:
            Unsupported: a registry could not serve it; nothing was written.
        """
        paths = self._paths("write manifest")
        reason = why_not(manifest)
        if reason is not None:
            raise self._errors.unsupported("write manifest", reason)
        if tag is not None and not is_tag(tag):
            raise self._errors.rejected("write manifest", f"invalid tag {tag!r}")
        with self._errors.named():
            await self._storage.first_write.ready()
            await self._storage.writer.write(manifest, tag, paths, self._errors)
            self._storage.subjects.learn(manifest)
        return manifest.digest

    async def delete_tag(self, tag: str) -> None:
        """Removes one tag: first the link that it is, then what its folder has of its history."""
        paths = self._paths("delete tag")
        if not is_tag(tag):
            raise self._errors.not_found("delete tag", f"invalid tag {tag!r}")
        with self._errors.named():
            if not await has_object(self.store, paths.current(tag), None):
                raise self._errors.not_found("delete tag", f"no tag {tag}")
            await self.store.delete(paths.current(tag))
            left = [one.key async for page in self.store.list(paths.tag(tag)) for one in page.objects]
            for key in left:
                await self.store.delete(key)

    # ---

    def _paths(self, operation: str) -> RepositoryPaths:
        """The keys, once it is sure that the name leads nowhere else."""
        if not is_repository(self.name):
            raise self._errors.rejected(operation, f"invalid repository name {self.name!r}")
        return self._unchecked

    def _writable(self, digest: Digest) -> RepositoryPaths:
        paths = self._paths("write blob")
        reason = why_not_digest(digest)
        if reason is not None:
            raise self._errors.unsupported("write blob", reason)
        return paths

    async def _current(self, paths: RepositoryPaths, tag: str) -> Digest:
        try:
            return await read_link(self.store, paths.current(tag), self._errors, f"tag {tag}")
        except NotFound as error:
            raise self._errors.not_found("read manifest", f"no tag {tag}") from error

    async def _read_revision(self, paths: RepositoryPaths, digest: Digest) -> Manifest:
        if not await has_object(self.store, paths.revision(digest), None):
            raise self._errors.not_found("read manifest", f"no manifest {digest}")
        return await read_stored(self.store, blob_data(digest), digest, self._errors)
