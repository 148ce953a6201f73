"""What a registry keeps, apart from how it is spoken to: blobs, repositories, tags, uploads.

The rules are those of the OCI distribution-spec 1.1; errors carry its codes. Nothing here awaits, so that every
change is seen whole or not at all.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from replicator.http.distribution import Refused
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, digest_of, is_digest, new_hash
from replicator.model.manifest import Manifest, described

CHUNK_BYTES: Final = 256 * 1024
MAX_BLOB_BYTES: Final = 1024**3
"""What one upload may bring, unless the store is told otherwise."""


class StoreError(Refused):
    """What the store refuses. `code` is one of the distribution-spec's error codes."""


class Blob:
    """The bytes of one blob."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.data)

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to (not including) `stop`, in chunks of at most `CHUNK_BYTES`."""
        end = self.size if stop is None else min(stop, self.size)
        view = memoryview(self.data)
        for offset in range(start, end, CHUNK_BYTES):
            yield bytes(view[offset : min(offset + CHUNK_BYTES, end)])


class Upload:
    """A session in which a blob arrives. What it has is not visible in the repository."""

    def __init__(self, repository: str, limit: int) -> None:
        self.id = uuid.uuid4().hex
        self.repository = repository
        self._limit = limit
        self._data = bytearray()

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return len(self._data)

    def write(self, chunk: bytes) -> None:
        """Appends. Raises `StoreError` (SIZE_INVALID) where the upload grows too large."""
        if self.size + len(chunk) > self._limit:
            raise StoreError("SIZE_INVALID", f"an upload may bring {self._limit} bytes at most")
        self._data += chunk

    def finish(self, digest: Digest) -> Blob:
        """The blob. Raises `StoreError` (DIGEST_INVALID) where the bytes are not the digest's."""
        content = new_hash(digest)
        content.update(self._data)
        if content.hexdigest() != digest.partition(":")[2]:
            raise StoreError(
                "DIGEST_INVALID", "provided digest did not match uploaded content", {"digest": digest}
            )
        return Blob(bytes(self._data))


@dataclass(slots=True)
class Content:
    """What one repository holds."""

    blobs: set[Digest] = field(default_factory=set)
    manifests: dict[Digest, Manifest] = field(default_factory=dict)
    tags: dict[str, Digest] = field(default_factory=dict)


class Store:
    """The whole registry. A repository exists from its first blob or manifest on.

    Args:
        max_blob_bytes: what one upload may bring.
    """

    def __init__(self, *, max_blob_bytes: int = MAX_BLOB_BYTES) -> None:
        self.max_blob_bytes = max_blob_bytes
        self.blobs: dict[Digest, Blob] = {}
        self.repositories: dict[str, Content] = {}
        self.uploads: dict[str, Upload] = {}

    # --- reading ---

    def content(self, repository: str) -> Content:
        """A repository's content. Raises `StoreError` (NAME_UNKNOWN)."""
        try:
            return self.repositories[repository]
        except KeyError:
            raise StoreError(
                "NAME_UNKNOWN", "repository name not known to registry", {"name": repository}
            ) from None

    def blob(self, repository: str, digest: str) -> Blob:
        """A blob of that very repository. Raises `StoreError` (BLOB_UNKNOWN)."""
        content = self.repositories.get(repository)
        if content is None or digest not in content.blobs:
            raise StoreError("BLOB_UNKNOWN", "blob unknown to registry", {"digest": digest})
        return self.blobs[Digest(digest)]

    def manifest(self, repository: str, reference: str) -> Manifest:
        """What a tag or digest names. Raises `StoreError` (NAME_UNKNOWN, MANIFEST_UNKNOWN)."""
        content = self.content(repository)
        digest = Digest(reference) if is_digest(reference) else content.tags.get(reference)
        if digest is None or digest not in content.manifests:
            raise StoreError("MANIFEST_UNKNOWN", "manifest unknown to registry", {"reference": reference})
        return content.manifests[digest]

    def referrers(self, repository: str, digest: Digest) -> Sequence[Descriptor]:
        """The manifests of the repository whose subject is `digest`, as the referrers API describes them."""
        content = self.repositories.get(repository, Content())
        return [described(manifest) for manifest in content.manifests.values() if _refers(manifest, digest)]

    def missing(self, repository: str, manifest: Manifest) -> Sequence[Digest]:
        """What the manifest names and the repository lacks: the reason to refuse it. A subject need not exist."""
        content = self.repositories.get(repository, Content())
        blobs = [blob.digest for blob in manifest.blobs if blob.digest not in content.blobs]
        return blobs + [child.digest for child in manifest.children if child.digest not in content.manifests]

    # --- blobs ---

    def start_upload(self, repository: str) -> Upload:
        """Opens a session."""
        upload = Upload(repository, self.max_blob_bytes)
        self.uploads[upload.id] = upload
        return upload

    def upload(self, repository: str, session: str) -> Upload:
        """An open session. Raises `StoreError` (BLOB_UPLOAD_UNKNOWN)."""
        upload = self.uploads.get(session)
        if upload is None or upload.repository != repository:
            raise StoreError("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry", {"upload": session})
        return upload

    def finish_upload(self, upload: Upload, digest: Digest) -> None:
        """Makes the blob visible and ends the session.

        Raises:
            StoreError: BLOB_UPLOAD_UNKNOWN, or DIGEST_INVALID, and then the session ended with nothing.
        """
        self.upload(upload.repository, upload.id)
        self.cancel_upload(upload)
        self.add_blob(upload.repository, digest, upload.finish(digest))

    def cancel_upload(self, upload: Upload) -> None:
        """Ends the session, if it has not ended yet, with nothing."""
        self.uploads.pop(upload.id, None)

    def add_blob(self, repository: str, digest: Digest, blob: Blob) -> None:
        """Puts a blob whose digest is known to be right into a repository."""
        self.blobs.setdefault(digest, blob)
        self.repositories.setdefault(repository, Content()).blobs.add(digest)

    def put_blob(self, repository: str, data: bytes) -> Digest:
        """Puts bytes into a repository; returns their digest."""
        digest = digest_of(data)
        self.add_blob(repository, digest, Blob(data))
        return digest

    def mount(self, repository: str, digest: str, origin: str) -> bool:
        """Shares a blob of `origin` with `repository`; False if `origin` does not have it."""
        content = self.repositories.get(origin)
        if content is None or digest not in content.blobs:
            return False
        self.add_blob(repository, Digest(digest), self.blobs[Digest(digest)])
        return True

    # --- manifests ---

    def put_manifest(self, repository: str, manifest: Manifest, tag: str | None = None) -> None:
        """Puts a manifest, and moves a tag to it in the same step.

        Raises:
            StoreError: MANIFEST_BLOB_UNKNOWN; `detail` is a sequence of the digests that are missing.
        """
        missing = self.missing(repository, manifest)
        if missing:
            raise StoreError("MANIFEST_BLOB_UNKNOWN", "the manifest names content that is not here", missing)
        content = self.repositories.setdefault(repository, Content())
        content.manifests[manifest.digest] = manifest
        if tag is not None:
            content.tags[tag] = manifest.digest

    # --- deleting ---

    def delete_tag(self, repository: str, tag: str) -> None:
        """Removes one tag; the manifest stays. Raises `StoreError` (NAME_UNKNOWN, MANIFEST_UNKNOWN)."""
        self.manifest(repository, tag)
        del self.repositories[repository].tags[tag]

    def delete_manifest(self, repository: str, digest: Digest) -> None:
        """Removes a manifest and every tag on it. Raises `StoreError` (NAME_UNKNOWN, MANIFEST_UNKNOWN)."""
        self.manifest(repository, digest)
        content = self.repositories[repository]
        del content.manifests[digest]
        for tag in [tag for tag, tagged in content.tags.items() if tagged == digest]:
            del content.tags[tag]

    def delete_blob(self, repository: str, digest: Digest) -> None:
        """Removes a blob from one repository; its bytes go with the last one. Raises `StoreError` (BLOB_UNKNOWN)."""
        self.blob(repository, digest)
        self.repositories[repository].blobs.remove(digest)
        if not any(digest in content.blobs for content in self.repositories.values()):
            del self.blobs[digest]


def _refers(manifest: Manifest, digest: Digest) -> bool:
    return manifest.subject is not None and manifest.subject.digest == digest
