"""Writing into distribution's storage so that a registry on it never serves what is not wholly there.

Order and reasons: a crash after any step leaves nothing that leads to something missing, as every link is written
after what it leads to, and the tag's current link last.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from replicator.errors import MissingReference, NotFound
from replicator.model.digest import Digest
from replicator.model.manifest import Manifest
from replicator.ports import ObjectStore
from replicator.sites.layouts.blobs import has_object, has_objects
from replicator.sites.layouts.distribution.links import write_link
from replicator.sites.layouts.distribution.paths import RepositoryPaths, blob_data
from replicator.sites.layouts.errors import RepositoryErrors
from replicator.sites.layouts.manifests import read_stored

_WRITE: Final = "write manifest"
_KEPT_MANIFESTS: Final = 256
MAX_DEPTH: Final = 8
"""Indexes in indexes; deeper ones are not looked through."""


class ManifestWriter:
    """Puts manifests and tags into one site's storage.

    Args:
        store: the storage.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._written: OrderedDict[Digest, Manifest] = OrderedDict()

    async def write(
        self, manifest: Manifest, tag: str | None, paths: RepositoryPaths, errors: RepositoryErrors
    ) -> None:
        """Puts the manifest, then its link, then the tag.

        Raises:
            MissingReference: content that it refers to does not exist (then nothing was written), or vanished while
                it was written: a registry's garbage collection sweeps away what no manifest names yet.
        """
        await self._require(manifest, paths, errors)
        key = blob_data(manifest.digest)
        if not await has_object(self._store, key, len(manifest.body)):
            await self._store.put(key, manifest.body)
        await write_link(self._store, paths.revision(manifest.digest), manifest.digest)
        self._remember(manifest)
        if tag is None:
            return
        await write_link(self._store, paths.history(tag, manifest.digest), manifest.digest)
        await write_link(self._store, paths.current(tag), manifest.digest)
        await self._look_again(manifest, paths, errors)

    async def _require(self, manifest: Manifest, paths: RepositoryPaths, errors: RepositoryErrors) -> None:
        missing = await self._missing(manifest, paths)
        if missing:
            cause = f"{manifest.digest} refers to missing content: {', '.join(missing[:3])}"
            raise MissingReference(errors.site, _WRITE, cause, repository=errors.repository, digests=missing)

    async def _missing(self, manifest: Manifest, paths: RepositoryPaths) -> list[Digest]:
        named = (*manifest.blobs, *manifest.children)
        links = [paths.layer(blob.digest) for blob in manifest.blobs]
        links += [paths.revision(child.digest) for child in manifest.children]
        wanted: list[tuple[str, int | None]] = [(link, None) for link in links]
        wanted += [(blob_data(one.digest), one.size) for one in named]
        found = await has_objects(self._store, wanted)
        linked, stored = found[: len(named)], found[len(named) :]
        return [one.digest for one, *there in zip(named, linked, stored, strict=True) if not all(there)]

    async def _look_again(self, root: Manifest, paths: RepositoryPaths, errors: RepositoryErrors) -> None:
        """Looks at everything below a root once more, the root included."""
        missing: list[Digest] = []
        level, seen = [root], {root.digest}
        for _ in range(MAX_DEPTH):
            below: list[Manifest] = []
            for manifest in level:
                gone = await self._missing(manifest, paths)
                missing += gone
                for child in manifest.children:
                    if child.digest not in seen and child.digest not in gone:
                        seen.add(child.digest)
                        below.append(await self._child(child.digest, errors))
            level = below
        for key in (blob_data(root.digest), paths.revision(root.digest)):
            if not await has_object(self._store, key, None):
                missing.append(root.digest)
        if missing:
            self._forget(missing)
            cause = f"gone again right after it was written (garbage collection?): {', '.join(missing[:3])}"
            raise MissingReference(errors.site, _WRITE, cause, repository=errors.repository, digests=missing)

    async def _child(self, digest: Digest, errors: RepositoryErrors) -> Manifest:
        known = self._written.get(digest)
        if known is not None:
            return known
        try:
            child = await read_stored(self._store, blob_data(digest), digest, errors)
        except NotFound as error:
            raise MissingReference(
                errors.site, _WRITE, error.cause, repository=errors.repository, digests=[digest]
            ) from error
        self._remember(child)
        return child

    def _remember(self, manifest: Manifest) -> None:
        # Without the body, which may have megabytes: only what it names is asked for again.
        self._written[manifest.digest] = msgspec.structs.replace(manifest, body=b"")
        self._written.move_to_end(manifest.digest)
        if len(self._written) > _KEPT_MANIFESTS:
            self._written.popitem(last=False)

    def _forget(self, digests: list[Digest]) -> None:
        for digest in digests:
            self._written.pop(digest, None)
