"""A bucket or directory of OCI image layouts, as a site."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from replicator.errors import Unsupported
from replicator.events import Events
from replicator.model.digest import Digest
from replicator.ports import Capabilities, ExpectsContent, LimitsBytes, ObjectStore, SharesLimits, SiteCheck
from replicator.sites.layouts.check import check_layout
from replicator.sites.layouts.detect import detect
from replicator.sites.layouts.errors import RepositoryErrors
from replicator.sites.layouts.oci.layouts import Layouts
from replicator.sites.layouts.oci.paths import INDEX, MARKER, RESERVED
from replicator.sites.layouts.oci.repository import OciRepository
from replicator.sites.layouts.walk import walk_repositories


class OciSite:
    """One OCI image layout a repository, in a folder of the repository's name.

    Args:
        store: where; closed with the site.
        events: gets `Warned`.
        only: for a folder that is itself a layout (`oci:DIR`): the name of its one repository.
    """

    capabilities: Final = Capabilities(mount=True, sparse=True)

    def __init__(self, store: ObjectStore, *, events: Events, only: str | None = None) -> None:
        self.name = store.site
        self._layouts = Layouts(store, events, only)

    def __repr__(self) -> str:
        return f"<OciSite {self.name}>"

    async def repositories(self) -> AsyncIterator[Sequence[str]]:
        """The repositories, found by walking folders.

        Raises:
            Unsupported: the store has another layout.
        """
        if self._layouts.only is not None:
            yield [self._layouts.only]
            return
        any_found = False
        pages = walk_repositories(
            self._layouts.store,
            "",
            marks=lambda folder: INDEX in folder.objects,
            reserved=lambda name: name in RESERVED or name.startswith("."),
            events=self._layouts.events,
        )
        async for page in pages:
            any_found = True
            yield page
        if not any_found and await self._recognise("list repositories") == "oci":
            raise self._unsupported(
                "list repositories", f"there are folders here, but no {INDEX} in any of them"
            )

    async def blobs(self) -> AsyncIterator[tuple[str | None, Sequence[tuple[Digest, int]]]]:
        """The blobs of every layout, by listing."""
        async for names in self.repositories():
            for name in names:
                paths = self._layouts.paths(RepositoryErrors(self.name, name), "list blobs")
                async for page in self._layouts.store.list(paths.blobs):
                    found = [
                        (digest, one.size)
                        for one in page.objects
                        if (digest := paths.blob_of(one.key)) is not None
                    ]
                    if found:
                        yield name, found

    def repository(self, name: str) -> OciRepository:
        """A repository by name; asks nothing yet."""
        return OciRepository(self._layouts, name)

    def set_bytes_per_second(self, rate: float | None) -> None:
        """See `ports.LimitsBytes`; of the store, where it has limits."""
        if isinstance(self._layouts.store, LimitsBytes):
            self._layouts.store.set_bytes_per_second(rate)

    def limit_to(self, share: float) -> None:
        """See `ports.SharesLimits`; of the store, where it has limits."""
        if isinstance(self._layouts.store, SharesLimits):
            self._layouts.store.limit_to(share)

    def expect_content(self) -> None:
        """See `ports.ExpectsContent`; of the store, where it can be mistaken for an empty one."""
        if isinstance(self._layouts.store, ExpectsContent):
            self._layouts.store.expect_content()

    async def check(self, *, repositories: Sequence[str] = (), push: str | None = None) -> SiteCheck:
        """Reaches the store and says what works; see `check.check_layout`. Never raises a `SiteError`."""
        some = [self.repository(name) for name in repositories]
        return await check_layout(
            self._layouts.store, lambda: self._recognise("check layout"), some, push=push is not None
        )

    async def aclose(self) -> None:
        """Closes the store."""
        await self._layouts.store.aclose()

    async def _recognise(self, operation: str) -> str:
        """What is here, as far as the root tells.

        Raises:
            Unsupported: another layout, or a layout where a folder of layouts should be.
        """
        found = await detect(self._layouts.store)
        if found.is_empty:
            return "oci, empty"
        if self._layouts.only is not None:
            if found.is_layout:
                return "oci, one layout"
            raise self._unsupported(operation, f"not an OCI layout: {MARKER} or {INDEX} is missing")
        if found.is_layout or found.is_part_of_layout:
            cause = (
                "this is itself an OCI layout, not a folder with one a repository: name the folder above it"
            )
            raise self._unsupported(operation, cause)
        if found.has_registry:
            cause = 'a registry keeps its content here (layout = "distribution")'
            raise self._unsupported(operation, cause)
        if not found.has_folders:
            raise self._unsupported(operation, "there are files here, but no OCI layout")
        return "oci"

    def _unsupported(self, operation: str, cause: str) -> Unsupported:
        return Unsupported(self.name, operation, cause)
