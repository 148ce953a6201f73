"""Whether an archive is whole, before anything of it is written anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from replicator.errors import Corrupt, NotFound
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.image import Image, read_image
from replicator.model.manifest import Manifest
from replicator.ports import Repository
from replicator.sites.archive.reader import ArchiveReader
from replicator.sites.layouts.oci.site import OciSite


@dataclass(frozen=True)
class Contents:
    """What a whole archive has.

    `untagged` are the roots without a tag, by repository, without those that refer to an image there and travel with it;
    `only_untagged` the repositories without any tag. `absent` are the blobs that were left out (the other side was said
    to have them), each with the repositories that need it.
    """

    untagged: Mapping[str, tuple[Digest, ...]]
    only_untagged: frozenset[str]
    absent: Mapping[Digest, tuple[Descriptor, tuple[str, ...]]]


async def verify(reader: ArchiveReader, site: OciSite) -> Contents:
    """Reads all of the archive: each blob's bytes, and what each image leads to.

    Raises:
        Corrupt: something is not what it should be.
        NotFound: a manifest is missing, or a root has no name.
    """
    unnamed = reader.unnamed()
    if unnamed:
        cause = f"{unnamed[0]} names no repository: copy it by itself, with `copy oci-archive:FILE:NAME DESTINATION`"
        raise NotFound(reader.site, "verify archive", cause)
    await reader.verify()
    untagged: dict[str, tuple[Digest, ...]] = {}
    only_untagged: set[str] = set()
    absent: dict[Digest, tuple[Descriptor, tuple[str, ...]]] = {}
    for name in reader.repositories:
        repository = site.repository(name)
        tagged = {one.digest async for page in repository.listed({}) for one in page}
        roots = reader.roots(name)
        images = await _images(repository, roots)
        untagged[name] = tuple(sorted(roots - tagged - _referrers(images)))
        if not tagged:
            only_untagged.add(name)
        for blob in {
            digest: blob for each in images.values() for digest, blob in each.blobs.items()
        }.values():
            size = reader.size_of(blob.digest)
            if size is None:
                needed = absent.get(blob.digest, (blob, ()))[1]
                absent[blob.digest] = (blob, (*needed, name))
            elif blob.size is not None and size != blob.size:
                cause = f"{blob.digest} has {size} bytes, its descriptor says {blob.size}"
                raise Corrupt(reader.site, "verify archive", cause, repository=name)
    some = {name: roots for name, roots in untagged.items() if roots}
    return Contents(some, frozenset(only_untagged), absent)


async def _images(repository: Repository, roots: frozenset[Digest]) -> dict[Digest, Image]:
    async def read(digest: Digest) -> Manifest:
        return await repository.read_manifest(digest)

    return {root: await read_image(root, read, repository.site, repository.name) for root in sorted(roots)}


def _referrers(images: Mapping[Digest, Image]) -> frozenset[Digest]:
    """The roots whose subject is among the manifests of the images."""
    manifests = {digest for each in images.values() for digest in each.manifests}
    return frozenset(
        root
        for root, each in images.items()
        if each.root.subject is not None and each.root.subject.digest in manifests
    )
