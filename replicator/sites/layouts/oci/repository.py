"""One OCI image layout, as `ports.Repository`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final

from replicator.errors import Corrupt, MissingReference, NotFound
from replicator.events import Warned
from replicator.flow.thread import run_in_thread
from replicator.model.companion import fallback_tag
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, is_digest
from replicator.model.manifest import Kind, Manifest
from replicator.model.names import is_tag
from replicator.ports import BlobOutcome, BlobSource, Listed, Repository
from replicator.sites.layouts.blobs import (
    KeepsObjects,
    StoredBlob,
    copy_stored,
    has_object,
    has_objects,
    write_stream,
)
from replicator.sites.layouts.errors import RepositoryErrors
from replicator.sites.layouts.manifests import read_stored
from replicator.sites.layouts.oci.entries import Entry, descriptor_of, digest_in
from replicator.sites.layouts.oci.index import Index
from replicator.sites.layouts.oci.layouts import Layouts
from replicator.sites.layouts.oci.paths import LayoutPaths

PAGE: Final = 1_000
_NO_SCHEMA1: Final = (
    "an OCI layout finds everything by the digest of its bytes, and that of Docker schema 1 is without the signatures; build the"
    " image anew, or exclude it"
)


class OciRepository:
    """A repository by name; asks nothing until something is asked of it."""

    def __init__(self, layouts: Layouts, name: str) -> None:
        self.site = layouts.store.site
        self.name = name
        self.store = layouts.store
        self._layouts = layouts
        self._errors = RepositoryErrors(self.site, name)

    def __repr__(self) -> str:
        return f"<OciRepository {self.site}: {self.name}>"

    def blob_key(self, digest: Digest) -> str:
        """The key of a blob, there or not. Raises `Rejected` for a name that no layout can have."""
        return self._paths("copy blob").blob(digest)

    # --- reading ---

    async def tags(self) -> AsyncIterator[Sequence[str]]:
        """The tags, out of `index.json`."""
        names = list((await self._index("list tags")).tags())
        for start in range(0, len(names), PAGE):
            yield names[start : start + PAGE]

    listing_notice: Final = ""

    async def listed(self, known: Mapping[str, Listed]) -> AsyncIterator[Sequence[Listed]]:  # noqa: ARG002 one file tells all
        """The tags with their digests, out of `index.json`; nothing else is read, whatever changed.

        Raises:
            Corrupt: for the first entry that is not a descriptor, after all others.
        """
        index = await self._index("list tags")
        failure: Corrupt | None = None
        tags = list(index.tags())
        for start in range(0, len(tags), PAGE):
            page: list[Listed] = []
            for tag in tags[start : start + PAGE]:
                digest = index.digest_of(tag) or ""
                if is_digest(digest):
                    page.append(Listed(tag, Digest(digest), digest))
                else:
                    failure = failure or self._errors.corrupt("list tags", f"tag {tag} has no valid digest")
            if page:
                yield page
            await asyncio.sleep(0)  # a consumer that never waits would hold everything else up
        if failure is not None:
            raise failure

    async def entries(self) -> Sequence[Entry]:
        """The entries of `index.json`."""
        index = await self._index("read index")
        return await run_in_thread(lambda: list(index.entries()))

    async def resolve(self, reference: str) -> Descriptor:
        """What a tag or digest names now.

        Raises:
            NotFound: also for a tag whose manifest does not exist.
            Corrupt: an entry that is not a descriptor, or a manifest whose size differs from its entry.
        """
        operation = "resolve"
        with self._errors.named():
            entry = await self._entry(operation, reference)
            if entry is None:
                return (await self._read(operation, Digest(reference), "")).descriptor
            descriptor = self._descriptor(operation, reference, entry)
            found = await self.store.stat(self._paths(operation).blob(descriptor.digest))
        if found is None:
            raise self._errors.not_found(
                operation, f"{reference} refers to {descriptor.digest}, which does not exist"
            )
        if found.size != descriptor.size:
            cause = (
                f"{reference}: {descriptor.digest} has {found.size} bytes, index.json says {descriptor.size}"
            )
            raise self._errors.corrupt(operation, cause)
        return Descriptor(
            descriptor.media_type, descriptor.digest, descriptor.size, artifact_type=descriptor.artifact_type
        )

    async def read_manifest(self, reference: str) -> Manifest:
        """The manifest, its bytes verified."""
        operation = "read manifest"
        with self._errors.named():
            entry = await self._entry(operation, reference)
            if entry is None:
                return await self._read(operation, Digest(reference), "")
            descriptor = self._descriptor(operation, reference, entry)
            return await self._read(operation, descriptor.digest, descriptor.media_type)

    async def has_blob(self, digest: Digest, size: int | None = None) -> bool:
        """Whether this very repository has the blob, of that size."""
        with self._errors.named():
            return await has_object(self.store, self._paths("ask for blob").blob(digest), size)

    def blob(self, descriptor: Descriptor) -> BlobSource:
        """The blob, for reading. Not verified: whoever reads hashes. Raises `Rejected` for a name that no layout has."""
        return StoredBlob(
            self.store, self._paths("read blob").blob(descriptor.digest), descriptor, self._errors
        )

    async def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """The manifests whose subject is `digest`, among those that `index.json` or the fallback tag names.

        Each is read, once in this process: an entry does not tell its manifest's subject.
        """
        operation = "list referrers"
        index = await self._index(operation)
        paths = self._paths(operation)
        with self._errors.named():
            named = await run_in_thread(
                lambda: [one for entry in index.entries() for one in _candidates(entry)]
            )
            named += [(one.digest, one.media_type) for one in await self._fallback(index, digest)]
            candidates = [(one, paths.blob(one), media_type) for one, media_type in named]
            return await self._layouts.subjects.referrers(self.store, candidates, digest, self._errors)

    # `index.json` names what is put with a subject.
    lists_referrers: Final = True

    # --- writing ---

    async def write_blob(self, source: BlobSource, *, origin: str | None = None) -> BlobOutcome:
        """Puts a blob into this layout; from `origin`, where that has it, as a second name of the same content."""
        descriptor = source.descriptor
        key = self._paths("write blob").blob(descriptor.digest)
        with self._errors.named():
            await self._layouts.first_write.ready()
            if await has_object(self.store, key, descriptor.size):
                return "present"
            if origin is not None and await self._link(descriptor, origin, key):
                return "mounted"
            await write_stream(self.store, key, source, self._errors)
            return "copied"

    async def copy_blob(self, descriptor: Descriptor, origin: Repository) -> bool:
        """Has the store copy the blob from another of its sites; False if the two are in different stores."""
        key = self._paths("copy blob").blob(descriptor.digest)
        if not isinstance(origin, KeepsObjects):
            return False
        with self._errors.named():
            await self._layouts.first_write.ready()
            return await copy_stored(self.store, key, descriptor, origin, self._errors)

    def refuses(self, manifest: Manifest, *, tagged: bool) -> str | None:  # noqa: ARG002 - a layout has one way to name
        """Why `write_manifest` would be `Unsupported`; None where it would not."""
        return _NO_SCHEMA1 if manifest.kind is Kind.SCHEMA1 else None

    async def write_manifest(self, manifest: Manifest, tag: str | None = None) -> Digest | None:
        """Puts the manifest's exact bytes, then names it in `index.json`.

        Raises:
            Unsupported: `refuses` says why; nothing was written.
            MissingReference: something that it names is not in this layout; nothing was written.
        """
        operation = "write manifest"
        paths = self._paths(operation)
        if tag is not None and not is_tag(tag):
            raise self._errors.rejected(operation, f"invalid tag {tag!r}")
        if (reason := self.refuses(manifest, tagged=tag is not None)) is not None:
            raise self._errors.unsupported(operation, reason)
        with self._errors.named():
            await self._layouts.first_write.ready()
            if not await self._require(manifest, paths):
                await self.store.put(paths.blob(manifest.digest), manifest.body)

            def name(index: Index) -> None:
                if tag is None:
                    index.add(manifest)
                else:
                    index.tag(manifest, tag)

            await self._layouts.index_file(paths, self._errors).change(name)
            self._layouts.subjects.learn(manifest)
        return manifest.digest

    async def delete_tag(self, tag: str) -> None:
        """Takes the tag out of `index.json`; the content stays."""
        paths = self._paths("delete tag")
        await self._index("delete tag")

        def untag(index: Index) -> None:
            if not index.untag(tag):
                raise self._errors.not_found("delete tag", f"no tag {tag}")

        with self._errors.named():
            await self._layouts.index_file(paths, self._errors).change(untag)

    # ---

    def _paths(self, operation: str) -> LayoutPaths:
        return self._layouts.paths(self._errors, operation)

    async def _index(self, operation: str) -> Index:
        """The index of a layout whose version we know."""
        paths = self._paths(operation)
        with self._errors.named():
            return await self._layouts.index_file(paths, self._errors).load()

    async def _entry(self, operation: str, reference: str) -> Entry | None:
        """The entry of a tag or digest; None for a digest that is not among the roots."""
        index = await self._index(operation)
        entry = index.named(reference) if is_digest(reference) else index.tagged(reference)
        if entry is None and not is_digest(reference):
            raise self._errors.not_found(operation, f"no tag {reference}")
        return entry

    def _descriptor(self, operation: str, reference: str, entry: Mapping[str, Any]) -> Descriptor:
        try:
            return descriptor_of(dict(entry))
        except ValueError as error:
            raise self._errors.corrupt(operation, f"{reference}: {error}") from error

    async def _read(self, operation: str, digest: Digest, media_type: str) -> Manifest:
        try:
            key = self._paths(operation).blob(digest)
            return await read_stored(self.store, key, digest, self._errors, media_type)
        except NotFound as error:
            raise self._errors.not_found(operation, f"no manifest {digest}") from error

    async def _fallback(self, index: Index, subject: Digest) -> Sequence[Descriptor]:
        """What the fallback tag (distribution-spec, "Referrers Tag Schema") names, where a tool wrote one."""
        entry = index.tagged(fallback_tag(subject))
        digest = digest_in(entry) if entry else None
        if digest is None:
            return ()
        try:
            fallback = await self._read("list referrers", digest, "")
        except NotFound:
            return ()
        return fallback.children if fallback.kind is Kind.INDEX else ()

    async def _link(self, descriptor: Descriptor, origin: str, key: str) -> bool:
        try:
            origin_key = OciRepository(self._layouts, origin).blob_key(descriptor.digest)
            if not await has_object(self.store, origin_key, descriptor.size):
                return False
            await self.store.link(origin_key, key, digest=descriptor.digest)
        except NotFound:
            return False
        except Corrupt as error:
            self._layouts.events.emit(
                Warned(self.site, f"{error}; the blob is copied from the source instead")
            )
            return False
        return True

    async def _require(self, manifest: Manifest, paths: LayoutPaths) -> bool:
        """Whether the manifest itself exists. Raises `MissingReference` where something that it names does not."""
        named = (*manifest.blobs, *manifest.children)
        wanted: list[tuple[str, int | None]] = [(paths.blob(one.digest), one.size) for one in named]
        wanted.append((paths.blob(manifest.digest), len(manifest.body)))
        *found, is_known = await has_objects(self.store, wanted)
        missing = [one.digest for one, is_there in zip(named, found, strict=True) if not is_there]
        if missing:
            cause = f"{manifest.digest} refers to missing content: {', '.join(missing[:3])}"
            raise MissingReference(self.site, "write manifest", cause, repository=self.name, digests=missing)
        return is_known


def _candidates(entry: Entry) -> Iterator[tuple[Digest, str]]:
    digest = digest_in(entry)
    if digest is not None:
        media_type = entry.get("mediaType")
        yield digest, media_type if isinstance(media_type, str) else ""
