"""Whether a destination still has everything that a root leads to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from replicator.errors import Corrupt, NotFound
from replicator.flow.once import Once
from replicator.flow.parallel import each
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.image import MAX_DEPTH
from replicator.model.manifest import Manifest
from replicator.model.mediatypes import INDEXES
from replicator.ports import Repository

CHECKS_AT_ONCE: Final = 8


class Below(NamedTuple):
    """What is below a root: digests that are missing, the root's own among them, and the manifests that it leads to."""

    missing: tuple[Digest, ...]
    children: tuple[Digest, ...]


class ClosureCheck:
    """Checks images in repositories of one destination: manifests are read, blobs are asked for.

    A blob that was found once is not asked for again, so that images that share layers cost little. One check belongs to
    one run: what was found earlier may be gone.

    Args:
        part_of: leaves of a manifest what is wanted.
    """

    def __init__(self, part_of: Callable[[Manifest], Manifest]) -> None:
        self._part_of = part_of
        self._found: set[tuple[str, Digest]] = set()
        self._asking: Once[tuple[str, Digest], bool] = Once()

    async def check(self, repository: Repository, root: Digest) -> Below:
        """What the repository does not have, or has damaged, of the root and all below it.

        Raises:
            SiteError: the destination could not be asked, or (`is_unreadable`) does not let us read.
        """
        missing: list[Digest] = []
        blobs: dict[Digest, Descriptor] = {}
        children = await self._walk(repository, root, missing, blobs)
        has = await each(blobs.values(), lambda blob: self._has(repository, blob), width=CHECKS_AT_ONCE)
        missing += [digest for digest, is_there in zip(blobs, has, strict=True) if not is_there]
        return Below(tuple(missing), children)

    async def _walk(
        self, repository: Repository, root: Digest, missing: list[Digest], blobs: dict[Digest, Descriptor]
    ) -> tuple[Digest, ...]:
        """Reads the manifests, and returns those below the root."""
        seen = {root}
        level = [root]
        for _ in range(MAX_DEPTH + 1):
            below: list[Digest] = []
            for digest in level:
                try:
                    manifest = self._part_of(await repository.read_manifest(digest))
                except (NotFound, Corrupt):
                    missing.append(digest)
                    continue
                blobs.update((blob.digest, blob) for blob in manifest.blobs)
                children = [child.digest for child in manifest.children if child.digest not in seen]
                seen.update(children)
                below += children
            level = below
        return tuple(seen - {root})

    async def _has(self, repository: Repository, blob: Descriptor) -> bool:
        key = (repository.name, blob.digest)
        if key not in self._found and await self._asking.run(
            key, lambda: repository.has_blob(blob.digest, blob.size)
        ):
            self._found.add(key)
        return key in self._found


async def manifests_below(repository: Repository, root: Digest) -> tuple[Digest, ...]:
    """The manifests that a root leads to; only indexes are read. Raises SiteError, NotFound for a missing root."""
    found: dict[Digest, None] = {}
    level = [root]
    for _ in range(MAX_DEPTH + 1):
        indexes: list[Digest] = []
        for digest in level:
            try:
                children = (await repository.read_manifest(digest)).children
            except NotFound:
                if digest == root:
                    raise
                continue  # of a sparse index
            indexes += [
                one.digest for one in children if one.media_type in INDEXES and one.digest not in found
            ]
            found.update((one.digest, None) for one in children)
        level = indexes
    return tuple(found)
