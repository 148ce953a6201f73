"""The keys of an OCI image layout (image-spec, `image-layout.md`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from replicator.model.digest import Digest, algorithm, encoded, is_digest
from replicator.model.names import is_repository

MARKER: Final = "oci-layout"
INDEX: Final = "index.json"
BLOBS: Final = "blobs"
RESERVED: Final = frozenset({MARKER, INDEX, BLOBS})
"""What a layout's folder has itself, so that no repository below it can be called so."""


def is_blob(key: str) -> bool:
    """Whether the key is that of a blob of some layout."""
    parts = key.rsplit("/", 3)
    folder, blobs, *digest = parts if len(parts) == 4 else ("", *parts)
    if blobs != BLOBS or not is_digest(":".join(digest)):
        return False
    return not folder or (is_repository(folder) and RESERVED.isdisjoint(folder.split("/")))


@dataclass(frozen=True, slots=True)
class LayoutPaths:
    """The keys of one layout. `folder` is "" for the store's root, else ends in "/"; checked before."""

    folder: str

    @property
    def marker(self) -> str:
        """The file that makes a folder a layout and tells its version."""
        return f"{self.folder}{MARKER}"

    @property
    def index(self) -> str:
        """The file that names the roots."""
        return f"{self.folder}{INDEX}"

    @property
    def blobs(self) -> str:
        """The folder of blobs and manifests."""
        return f"{self.folder}{BLOBS}/"

    def blob_of(self, key: str) -> Digest | None:
        """The digest that has the key; None for any other key."""
        digest = key.removeprefix(self.blobs).replace("/", ":", 1)
        return Digest(digest) if is_digest(digest) else None

    def blob(self, digest: Digest) -> str:
        """A blob or manifest."""
        return f"{self.folder}{BLOBS}/{algorithm(digest)}/{encoded(digest)}"
