"""The site of an archive that is written."""

from __future__ import annotations

from replicator.events import Events
from replicator.model.digest import Digest
from replicator.model.manifest import Manifest
from replicator.sites.archive.writer import ArchiveWriter
from replicator.sites.layouts.oci.layouts import Layouts
from replicator.sites.layouts.oci.repository import OciRepository
from replicator.sites.layouts.oci.site import OciSite


class WrittenArchive(OciSite):
    """As a folder of OCI layouts; its manifests are all written, also those that the other side has.

    Args:
        writer: the archive; closed with the site.
        events: gets `Warned`.
        only: for an archive of one image: the name of its one repository.
    """

    def __init__(self, writer: ArchiveWriter, *, events: Events, only: str | None = None) -> None:
        super().__init__(writer, events=events, only=only)
        self._writer = writer

    def repository(self, name: str) -> OciRepository:
        """A repository by name."""
        return _WrittenRepository(self._layouts, name, self._writer)


class _WrittenRepository(OciRepository):
    def __init__(self, layouts: Layouts, name: str, writer: ArchiveWriter) -> None:
        super().__init__(layouts, name)
        self._writer = writer

    async def write_manifest(self, manifest: Manifest, tag: str | None = None) -> Digest | None:
        """As any layout. An inventory does not tell manifests from blobs, and import walks what the archive has."""
        await self._require(manifest, self._paths("write manifest"))
        await self._writer.put(self.blob_key(manifest.digest), manifest.body)
        return await super().write_manifest(manifest, tag)
