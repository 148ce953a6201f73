"""What the engine itself attaches to an image at a destination."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from replicator.errors import SiteError
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.ports import Repository

if TYPE_CHECKING:
    from replicator.trust.signing import Attached


class _InMemory(msgspec.Struct, frozen=True):
    """A `BlobSource` of bytes at hand."""

    descriptor: Descriptor
    data: bytes
    failure: SiteError | None = None

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        async def chunks() -> AsyncIterator[bytes]:
            yield self.data[offset:]

        yield chunks()


async def put_attached(repository: Repository, attached: Attached) -> int:
    """Puts a referrer that was made here, with its blobs; how many bytes that were. Raises SiteError."""
    types = {blob.digest: blob.media_type for blob in attached.manifest.blobs}
    for digest, data in attached.blobs.items():
        descriptor = Descriptor(types[Digest(digest)], digest, len(data))
        await repository.write_blob(_InMemory(descriptor, data))
    await repository.write_manifest(attached.manifest)
    return len(attached.manifest.body) + sum(map(len, attached.blobs.values()))
