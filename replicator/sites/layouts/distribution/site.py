"""A bucket or directory in distribution's layout, as a site."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from replicator.errors import Unsupported
from replicator.events import Events
from replicator.model.digest import Digest
from replicator.ports import Capabilities, ExpectsContent, LimitsBytes, ObjectStore, SharesLimits, SiteCheck
from replicator.sites.layouts.check import check_layout
from replicator.sites.layouts.detect import detect
from replicator.sites.layouts.distribution.paths import BLOBS, REPOSITORIES, ROOT, blob_of
from replicator.sites.layouts.distribution.repository import DistributionRepository, Storage
from replicator.sites.layouts.distribution.writing import ManifestWriter
from replicator.sites.layouts.manifests import Subjects
from replicator.sites.layouts.walk import walk_repositories
from replicator.sites.layouts.writing import FirstWrite


class DistributionSite:
    """What `docker-registry` keeps, without the registry; one that is pointed at the same place serves it.

    A registry's garbage collection must not run while we write: it sweeps away what no manifest names yet. What it
    took is noticed after the tag was put (`MissingReference`).

    Args:
        store: where; closed with the site.
        events: gets `Warned`.
    """

    capabilities: Final = Capabilities(mount=True, sparse=True)

    def __init__(self, store: ObjectStore, *, events: Events) -> None:
        self.name = store.site
        self._storage = Storage(
            store,
            events,
            ManifestWriter(store),
            Subjects(),
            FirstWrite(store, events, lambda key: blob_of(key) is not None),
        )

    def __repr__(self) -> str:
        return f"<DistributionSite {self.name}>"

    async def repositories(self) -> AsyncIterator[Sequence[str]]:
        """The repositories, found by walking folders.

        Raises:
            Unsupported: the store has another layout.
        """
        store, any_found = self._storage.store, False
        pages = walk_repositories(
            store,
            REPOSITORIES,
            marks=lambda folder: "_manifests" in folder.folders,
            reserved=lambda name: name.startswith("_"),
            events=self._storage.events,
        )
        async for page in pages:
            any_found = True
            yield page
        if not any_found:
            await self._recognise("list repositories")

    async def blobs(self) -> AsyncIterator[tuple[str | None, Sequence[tuple[Digest, int]]]]:
        """Every blob there is, by listing. All repositories have the same ones."""
        async for page in self._storage.store.list(BLOBS):
            found = [(digest, one.size) for one in page.objects if (digest := blob_of(one.key)) is not None]
            if found:
                yield None, found

    def repository(self, name: str) -> DistributionRepository:
        """A repository by name; asks nothing yet."""
        return DistributionRepository(self._storage, name)

    def set_bytes_per_second(self, rate: float | None) -> None:
        """See `ports.LimitsBytes`; of the store, where it has limits."""
        if isinstance(self._storage.store, LimitsBytes):
            self._storage.store.set_bytes_per_second(rate)

    def limit_to(self, share: float) -> None:
        """See `ports.SharesLimits`; of the store, where it has limits."""
        if isinstance(self._storage.store, SharesLimits):
            self._storage.store.limit_to(share)

    def expect_content(self) -> None:
        """See `ports.ExpectsContent`; of the store, where it can be mistaken for an empty one."""
        if isinstance(self._storage.store, ExpectsContent):
            self._storage.store.expect_content()

    async def check(self, *, repositories: Sequence[str] = (), push: str | None = None) -> SiteCheck:
        """Reaches the store and says what works; see `check.check_layout`. Never raises a `SiteError`.

        A directory without a registry's storage is fine if it will be written to.
        """
        some = [self.repository(name) for name in repositories]

        async def recognise() -> str:
            try:
                return await self._recognise("check layout")
            except Unsupported as error:
                if push is None:
                    raise
                return f"distribution, new: {error.cause}"

        return await check_layout(self._storage.store, recognise, some, push=push is not None)

    async def aclose(self) -> None:
        """Closes the store."""
        await self._storage.store.aclose()

    async def _recognise(self, operation: str) -> str:
        found = await detect(self._storage.store)
        if found.is_empty:
            return "distribution, empty"
        if not found.has_registry:
            cause = f"not the storage of a registry: {ROOT} does not exist"
            if found.is_layout or found.is_part_of_layout:
                cause += '; this is an OCI layout (layout = "oci")'
            raise Unsupported(self.name, operation, cause)
        return "distribution"
