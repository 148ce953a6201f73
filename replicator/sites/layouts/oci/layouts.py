"""What the layouts of one site share: the store, and one `IndexFile` each."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from replicator.events import Events
from replicator.model.names import is_repository
from replicator.ports import ObjectStore
from replicator.sites.layouts.errors import RepositoryErrors
from replicator.sites.layouts.manifests import Subjects
from replicator.sites.layouts.oci.indexfile import IndexFile
from replicator.sites.layouts.oci.marker import Marker
from replicator.sites.layouts.oci.paths import RESERVED, LayoutPaths, is_blob
from replicator.sites.layouts.writing import FirstWrite

KEPT_ENTRIES: Final = 150_000
"""Entries of indexes that stay in memory, about 0.7 kB each; the index in use stays, however large."""


class IndexMemory:
    """Keeps the indexes used last, up to a total number of entries."""

    def __init__(self, most: int = KEPT_ENTRIES) -> None:
        self._most = most
        self._files: OrderedDict[IndexFile, int] = OrderedDict()
        self._total = 0

    def keep(self, file: IndexFile, entries: int) -> None:
        """See `indexfile.Memory`."""
        self._total += entries - self._files.pop(file, 0)
        self._files[file] = entries
        while self._total > self._most and len(self._files) > 1:
            oldest, freed = self._files.popitem(last=False)
            self._total -= freed
            oldest.forget()


class Layouts:
    """All layouts of one site.

    Args:
        store: where they lie.
        events: gets `Warned`.
        only: the name of the one repository, whose layout is the store's root itself; None: a folder each.
    """

    def __init__(self, store: ObjectStore, events: Events, only: str | None) -> None:
        self.store = store
        self.events = events
        self.only = only
        self.subjects = Subjects()
        self.first_write = FirstWrite(store, events, is_blob)
        self._files: dict[str, IndexFile] = {}
        self._memory = IndexMemory()

    def paths(self, errors: RepositoryErrors, operation: str) -> LayoutPaths:
        """The keys of a repository.

        Raises:
            Rejected: a name that no layout can have here: its files would be inside another layout's.
        """
        name = errors.repository
        if self.only is not None:
            if name == self.only:
                return LayoutPaths("")
            raise errors.rejected(operation, f"the one repository here is {self.only!r}")
        if not is_repository(name):
            raise errors.rejected(operation, f"invalid repository name {name!r}")
        reserved = RESERVED.intersection(name.split("/"))
        if reserved:
            cause = f"{min(reserved)!r} is part of every OCI layout and cannot be part of a repository's name here"
            raise errors.rejected(operation, cause)
        return LayoutPaths(f"{name}/")

    def index_file(self, paths: LayoutPaths, errors: RepositoryErrors) -> IndexFile:
        """The one through which all of this process read and write that `index.json`."""
        file = self._files.get(paths.folder)
        if file is None:
            marker = Marker(self.store, paths.marker, errors)
            file = self._files[paths.folder] = IndexFile(
                self.store, paths.index, marker, errors, self._memory
            )
        return file
