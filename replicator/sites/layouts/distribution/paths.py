"""The keys of distribution's storage (its `registry/storage/paths.go`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from replicator.model.digest import Digest, algorithm, encoded, is_digest

ROOT: Final = "docker/registry/v2"
BLOBS: Final = f"{ROOT}/blobs/"
REPOSITORIES: Final = f"{ROOT}/repositories/"


def blob_data(digest: Digest) -> str:
    """The bytes of a layer, config or manifest: one for all repositories."""
    return f"{ROOT}/blobs/{algorithm(digest)}/{encoded(digest)[:2]}/{encoded(digest)}/data"


def blob_of(key: str) -> Digest | None:
    """The digest whose bytes have the key; None for any other key."""
    parts = key.removeprefix(BLOBS).split("/")
    digest = f"{parts[0]}:{parts[-2]}" if len(parts) == 4 else ""
    return Digest(digest) if is_digest(digest) and blob_data(Digest(digest)) == key else None


@dataclass(frozen=True, slots=True)
class RepositoryPaths:
    """The keys of one repository. `name` must be checked before: it becomes a path."""

    name: str

    @property
    def manifests(self) -> str:
        """The folder that makes a repository; the catalog lists those."""
        return f"{REPOSITORIES}{self.name}/_manifests/"

    @property
    def revisions(self) -> str:
        """The folder of links to all manifests."""
        return f"{self.manifests}revisions/"

    @property
    def tags(self) -> str:
        """The folder of folders of tags."""
        return f"{self.manifests}tags/"

    def layer(self, digest: Digest) -> str:
        """The link that lets this repository serve a blob."""
        return f"{REPOSITORIES}{self.name}/_layers/{algorithm(digest)}/{encoded(digest)}/link"

    def revision(self, digest: Digest) -> str:
        """The link that lets this repository serve a manifest."""
        return f"{self.revisions}{algorithm(digest)}/{encoded(digest)}/link"

    def tag(self, tag: str) -> str:
        """The folder of one tag."""
        return f"{self.tags}{tag}/"

    def current(self, tag: str) -> str:
        """The link that is the tag."""
        return f"{self.tag(tag)}current/link"

    def history(self, tag: str, digest: Digest) -> str:
        """The link that says that the tag once was this digest."""
        return f"{self.tag(tag)}index/{algorithm(digest)}/{encoded(digest)}/link"

    def tag_of(self, key: str) -> tuple[str, bool]:
        """The tag whose folder has the key, and whether the key is its current link."""
        tag, _, rest = key.removeprefix(self.tags).partition("/")
        return tag, rest == "current/link"

    def revision_of(self, key: str) -> str:
        """The digest whose revision link has the key; not checked."""
        return ":".join(key.removeprefix(self.revisions).split("/")[:2])
