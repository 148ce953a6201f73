"""An image whole: its root manifest with every manifest below it, and the blobs they name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from replicator.errors import Corrupt, Unsupported
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.manifest import Kind, Manifest
from replicator.model.mediatypes import INDEXES
from replicator.model.rewriting import rewritten

MAX_DEPTH: Final = 4
"""Indexes in indexes; nobody is known to nest deeper than two."""
MAX_MANIFEST_BYTES: Final = 64 * 1024 * 1024
"""Of all manifests of one image, which are in memory together."""


class Referrer(msgspec.Struct, frozen=True):
    """A manifest that refers to `subject`; or (`tag`) one that belongs to it by the name of its tag alone."""

    subject: Digest
    manifest: Manifest
    tag: str | None = None


class Image(msgspec.Struct, frozen=True):
    """`manifests` by digest, the root among them; `blobs` each once, over all manifests.

    Both include those of `referrers`: what refers to the image travels with it. `loses_signature`: it is signed at the
    source, and no signature is among them. `replaced`: the digests at the source of indexes that are new, by their own.
    """

    root: Manifest
    manifests: dict[Digest, Manifest]
    blobs: dict[Digest, Descriptor]
    referrers: tuple[Referrer, ...] = ()
    loses_signature: bool = False
    replaced: Mapping[Digest, Digest] = msgspec.field(default_factory=dict)

    @property
    def blob_bytes(self) -> int:
        """The size of all blobs; those of unknown size count nothing."""
        return sum(blob.size or 0 for blob in self.blobs.values())

    @property
    def manifest_bytes(self) -> int:
        """What the manifests take in memory."""
        return sum(len(manifest.body) for manifest in self.manifests.values())

    @property
    def platforms(self) -> tuple[Digest, ...]:
        """The manifests below the root, without referrers."""
        found: dict[Digest, None] = {}
        indexes = [self.root]
        for index in indexes:  # which grows
            new = [child.digest for child in index.children if child.digest not in found]
            found.update(dict.fromkeys(new))
            indexes += [self.manifests[digest] for digest in new if digest in self.manifests]
        return tuple(found)

    def children(self, manifest: Manifest) -> Iterator[Manifest]:
        """The manifests right below one."""
        return (self.manifests[child.digest] for child in manifest.children)


async def read_image(
    root: Digest,
    read: Callable[[Digest], Awaitable[Manifest]],
    site: str,
    repository: str,
    part_of: Callable[[Manifest], Manifest] | None = None,
) -> Image:
    """Reads all manifests of an image, by digest.

    Args:
        root: the root's digest.
        read: reads one manifest.
        site: for errors.
        repository: for errors.
        part_of: leaves of a manifest what is wanted; None takes it all.

    Raises:
        Unsupported: a manifest of a media type whose content cannot be known.
        Corrupt: nested too deep, or too large in all, or a manifest that contains itself or has another size than the
            index says, which other clients refuse.
        SiteError: as `read` raises it.
    """
    manifests: dict[Digest, Manifest] = {}
    total = 0

    def corrupt(cause: str) -> Corrupt:
        return Corrupt(site, "read manifest", cause, repository=repository)

    async def walk(digest: Digest, size: int | None, path: tuple[Digest, ...]) -> None:
        nonlocal total
        if digest in path:
            raise corrupt(f"{digest} contains itself")
        if len(path) > MAX_DEPTH:
            raise corrupt(f"{root} has more than {MAX_DEPTH} levels")
        manifest = manifests.get(digest) or await read(digest)
        if size not in (None, manifest.descriptor.size):
            raise corrupt(f"{digest} has {manifest.descriptor.size} bytes, not {size} as its index says")
        if digest in manifests:
            return
        total += manifest.descriptor.size or 0
        if total > MAX_MANIFEST_BYTES:
            raise corrupt(f"{root} has more than {MAX_MANIFEST_BYTES} bytes of manifests")
        _check_kind(manifest, site, repository)
        manifest = part_of(manifest) if part_of else manifest
        for child in manifest.children:
            await walk(child.digest, child.size, (*path, digest))
        manifests[digest] = manifest

    await walk(root, None, ())
    blobs = {blob.digest: blob for manifest in manifests.values() for blob in manifest.blobs}
    return Image(manifests[root], manifests, blobs)


async def read_indexes(
    top: Manifest, read: Callable[[Digest], Awaitable[Manifest]], cut: Callable[[Manifest], Manifest]
) -> dict[Digest, Manifest] | None:
    """An index and those that are chosen below it, by digest; the images in them are not read.

    Args:
        top: the index, whole.
        read: reads one manifest.
        cut: leaves of an index what is wanted.

    Returns:
        None where they are nested deeper than `MAX_DEPTH`.

    Raises:
        SiteError: as `read` raises it.
    """
    root = cut(top)
    found = {root.digest: root}
    level = [root]
    for _ in range(MAX_DEPTH + 1):
        wanted = {child.digest for index in level for child in index.children if child.media_type in INDEXES}
        level = [cut(await read(digest)) for digest in sorted(wanted - found.keys())]
        if not level:
            return found
        found |= {index.digest: index for index in level}
    return None


def rewrite_image(image: Image) -> Image:
    """The image with new indexes that name no more than is part of it; the same image where all of it is."""
    new = rewritten(image.root, image.manifests)
    if not new:
        return image
    root = new.get(image.root.digest, image.root)
    reached: dict[Digest, Manifest] = {}

    def reach(manifest: Manifest) -> None:
        for child in manifest.children:
            if child.digest not in reached:
                reach(known[child.digest])
        reached[manifest.digest] = manifest

    known = image.manifests | {manifest.digest: manifest for manifest in new.values()}
    reach(root)
    replaced = {manifest.digest: digest for digest, manifest in new.items() if manifest.digest in reached}
    return replace(image, root=root, manifests=reached, replaced=replaced)


def _check_kind(manifest: Manifest, site: str, repository: str) -> None:
    if manifest.kind is Kind.UNKNOWN:
        what = f"{manifest.digest} is of the unknown media type {manifest.media_type}: its content cannot be known"
        raise Unsupported(site, "read manifest", what, repository=repository)
