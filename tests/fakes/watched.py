"""A store that tells of every change, so that tests can hold an invariant at every moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from replicator.demo.store import MAX_BLOB_BYTES, Blob, Store
from replicator.model.digest import Digest
from replicator.model.manifest import Manifest

Watcher = Callable[["WatchedStore", str], None]


class WatchedStore(Store):
    """Calls each of `watchers` with the store and the repository's name, after every change of what is visible.

    Args:
        refuses_dangling: whether a manifest that names missing content is refused; registries that validate
            nothing exist, and there only the order of writes keeps a tag whole.
        max_blob_bytes: as in `Store`.
    """

    def __init__(self, *, refuses_dangling: bool = True, max_blob_bytes: int = MAX_BLOB_BYTES) -> None:
        super().__init__(max_blob_bytes=max_blob_bytes)
        self.refuses_dangling = refuses_dangling
        self.watchers: list[Watcher] = []

    def watch_dangling(self) -> list[str]:
        """From now on, whatever is ever seen dangling is added to the list that is returned."""
        seen: list[str] = []

        def watch(store: WatchedStore, repository: str) -> None:
            seen.extend(store.dangling(repository))

        self.watchers.append(watch)
        return seen

    def dangling(self, repository: str | None = None) -> list[str]:
        """Every path from a tag to something that is not there; of all repositories where None."""
        names = self.repositories if repository is None else [repository]
        return [
            f"{name}:{tag} leads to {hole}"
            for name in names
            for tag, digest in self.repositories[name].tags.items()
            for hole in self._holes(name, digest, set())
        ]

    def _holes(self, name: str, digest: Digest, seen: set[Digest]) -> list[Digest]:
        if digest in seen:
            return []
        seen.add(digest)
        manifest = self.repositories[name].manifests.get(digest)
        if manifest is None:
            return [digest]
        holes = [blob.digest for blob in manifest.blobs if blob.digest not in self.repositories[name].blobs]
        for child in manifest.children:
            holes += self._holes(name, child.digest, seen)
        return holes

    # --- what is watched ---

    def missing(self, repository: str, manifest: Manifest) -> Sequence[Digest]:
        return super().missing(repository, manifest) if self.refuses_dangling else ()

    def add_blob(self, repository: str, digest: Digest, blob: Blob) -> None:
        super().add_blob(repository, digest, blob)
        self._changed(repository)

    def put_manifest(self, repository: str, manifest: Manifest, tag: str | None = None) -> None:
        super().put_manifest(repository, manifest, tag)
        self._changed(repository)

    def delete_tag(self, repository: str, tag: str) -> None:
        super().delete_tag(repository, tag)
        self._changed(repository)

    def delete_manifest(self, repository: str, digest: Digest) -> None:
        super().delete_manifest(repository, digest)
        self._changed(repository)

    def delete_blob(self, repository: str, digest: Digest) -> None:
        super().delete_blob(repository, digest)
        self._changed(repository)

    def _changed(self, repository: str) -> None:
        for watcher in self.watchers:
            watcher(self, repository)
