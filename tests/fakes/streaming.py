"""Registries for blobs that no memory holds: made up while they are read, hashed and thrown away when they come in."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from replicator.demo.registry import DemoRegistry
from replicator.demo.store import CHUNK_BYTES, Blob, Store, StoreError, Upload
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, digest_of, new_hash
from replicator.model.manifest import Manifest, parse_manifest
from replicator.model.mediatypes import OCI_MANIFEST

_BLOCK: Final = hashlib.shake_128(b"streaming", usedforsecurity=False).digest(CHUNK_BYTES)
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"


class SyntheticBlob(Blob):
    """So many bytes that are told from another seed's by their first eight; the digest is computed once, at the start."""

    def __init__(self, seed: int, size: int) -> None:
        super().__init__(b"")
        self._head = seed.to_bytes(8)
        self._size = size
        content = hashlib.sha256(usedforsecurity=False)
        for chunk in self.read():
            content.update(chunk)
        self.digest = Digest(f"sha256:{content.hexdigest()}")

    @property
    def size(self) -> int:
        return self._size

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        end = self._size if stop is None else min(stop, self._size)
        while start < end:
            block = start // CHUNK_BYTES
            content = self._head + _BLOCK[8:] if block == 0 else _BLOCK
            upto = min(end, (block + 1) * CHUNK_BYTES)
            yield content[start - block * CHUNK_BYTES : upto - block * CHUNK_BYTES]
            start = upto


class DiscardedBlob(Blob):
    """A blob of which only the size is left."""

    def __init__(self, size: int) -> None:
        super().__init__(b"")
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        raise StoreError("BLOB_UNKNOWN", "this store keeps no bytes", (start, stop))


class DiscardingUpload(Upload):
    """Hashes (sha256) what comes and keeps nothing of it."""

    def __init__(self, repository: str, limit: int) -> None:
        super().__init__(repository, limit)
        self._size = 0
        self._hash = hashlib.sha256(usedforsecurity=False)

    @property
    def size(self) -> int:
        return self._size

    def write(self, chunk: bytes) -> None:
        self._size += len(chunk)
        self._hash.update(chunk)

    def finish(self, digest: Digest) -> Blob:
        if self._hash.name != new_hash(digest).name or not digest.endswith(self._hash.hexdigest()):
            raise StoreError(
                "DIGEST_INVALID", "provided digest did not match uploaded content", {"digest": digest}
            )
        return DiscardedBlob(self._size)


class DiscardingStore(Store):
    """Takes everything and can give nothing but manifests."""

    def start_upload(self, repository: str) -> Upload:
        upload = DiscardingUpload(repository, self.max_blob_bytes)
        self.uploads[upload.id] = upload
        return upload


class StreamingFake:
    """A source of huge images and a destination that discards, each a registry of its own.

    `image` computes digests and so costs a pass over the bytes; do it before the clock runs.
    """

    def __init__(self, source: DemoRegistry, destination: DemoRegistry) -> None:
        self.source = source
        self.destination = destination

    @classmethod
    @asynccontextmanager
    async def serve(cls) -> AsyncIterator[StreamingFake]:
        """Both, until the context is left."""
        async with DemoRegistry.serve() as source, DemoRegistry.serve(DiscardingStore()) as destination:
            yield cls(source, destination)

    def image(self, repository: str, tag: str, layers: int, size: int) -> Manifest:
        """Puts an image of so many layers of so many bytes each at the source."""
        config = msgspec.json.encode({"repository": repository, "tag": tag})
        self.source.store.add_blob(repository, digest_of(config), Blob(config))
        blobs = [SyntheticBlob(hash_of(f"{repository}:{tag}", number), size) for number in range(layers)]
        for blob in blobs:
            self.source.store.add_blob(repository, blob.digest, blob)
        body = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": Descriptor(_CONFIG, digest_of(config), len(config)),
            "layers": [Descriptor(_LAYER, blob.digest, size) for blob in blobs],
        }
        manifest = parse_manifest(msgspec.json.encode(body), OCI_MANIFEST)
        self.source.store.put_manifest(repository, manifest, tag)
        return manifest


def hash_of(name: str, number: int) -> int:
    """A seed for the layer of that number, the same in every process."""
    return int.from_bytes(hashlib.sha256(f"{name}/{number}".encode()).digest()[:8])
