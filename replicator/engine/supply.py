"""Where content comes from: mirrors before the source, one read for all who want it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from replicator.engine.spool import Spool, SpoolFull
from replicator.engine.verified import Place, VerifiedBlob
from replicator.errors import SiteError
from replicator.events import BytesRead, Events, Reread
from replicator.flow.once import Once
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.manifest import Manifest
from replicator.ports import BlobSource, Repository, Site

MANIFEST_CACHE_BYTES: Final = 32 * 1024 * 1024


class Supply:
    """The content of one source site in one run, by digest.

    Manifests are read once (a bounded cache, single flight), blobs too: through the spool where more than one
    destination may want them, else straight.

    Args:
        sites: every site by name.
        source: the name of the source.
        spool: for `share`; None streams always.
        share: tells whether more than one destination is fed from this source now.
        events: gets `BytesRead` and `Reread`.
        warn: told, in a sentence, what a person should know.
    """

    def __init__(
        self,
        sites: Mapping[str, Site],
        source: str,
        *,
        spool: Spool | None,
        share: Callable[[], bool],
        events: Events,
        warn: Callable[[str], None],
    ) -> None:
        self._sites = sites
        self._source = source
        self._spool = spool
        self._share = share
        self._events = events
        self.warn = warn
        self._manifests: dict[tuple[str, Digest], Manifest] = {}
        self._cached_bytes = 0
        self._reading: Once[tuple[str, Digest], Manifest] = Once()
        self._read: dict[Digest, int] = {}
        self._warned = False

    async def aclose(self) -> None:
        """Ends what is under way."""
        await self._reading.aclose()

    def repository(self, name: str) -> Repository:
        """The source's own repository."""
        return self._sites[self._source].repository(name)

    async def manifest(
        self, name: str, digest: Digest, mirrors: Sequence[str], on_read: Callable[[int], None]
    ) -> Manifest:
        """The manifest, from the first place that has it.

        Raises:
            SiteError: the source's own, where no place had it.
        """
        key = (name, digest)
        cached = self._manifests.get(key)
        if cached is not None:
            return cached

        async def read() -> Manifest:
            manifest = await self._first_manifest(name, digest, mirrors)
            on_read(len(manifest.body))
            self._remember(key, manifest)
            return manifest

        return await self._reading.run(key, read)

    async def _first_manifest(self, name: str, digest: Digest, mirrors: Sequence[str]) -> Manifest:
        for mirror in mirrors:
            try:
                manifest = await self._sites[mirror].repository(name).read_manifest(digest)
            except SiteError:
                continue  # a mirror may lack anything; the source decides
            self._events.emit(BytesRead(mirror, len(manifest.body)))
            return manifest
        manifest = await self.repository(name).read_manifest(digest)
        self._events.emit(BytesRead(self._source, len(manifest.body)))
        return manifest

    def _remember(self, key: tuple[str, Digest], manifest: Manifest) -> None:
        self._manifests[key] = manifest
        self._cached_bytes += len(manifest.body)
        while self._cached_bytes > MANIFEST_CACHE_BYTES and len(self._manifests) > 1:
            oldest = next(iter(self._manifests))
            self._cached_bytes -= len(self._manifests.pop(oldest).body)

    def blob(
        self,
        name: str,
        descriptor: Descriptor,
        mirrors: Sequence[str],
        on_read: Callable[[int], None],
        *,
        beside: Repository | None = None,
    ) -> BlobSource:
        """The blob, for one destination: the spool, else the destination's own repository `beside`, else the source.

        `on_read` is told the bytes that come in because of this destination.
        """
        spooled = self.is_spooled(descriptor.digest)
        direct = self.direct(name, descriptor, mirrors, on_read, beside=beside)
        if not self._share() or (beside is not None and not spooled):
            return direct
        if self._spool is None:
            self._warn_once("there is no cache folder")
            return direct
        try:
            return self._spool.follow(direct)
        except SpoolFull as error:
            self.warn_spool(error)
            return direct

    def direct(
        self,
        name: str,
        descriptor: Descriptor,
        mirrors: Sequence[str],
        on_read: Callable[[int], None],
        *,
        beside: Repository | None = None,
    ) -> BlobSource:
        """As `blob`, not through the spool."""
        repositories = [self._sites[site].repository(name) for site in (*mirrors, self._source)]
        places = [
            Place.at(repository, descriptor) for repository in ([beside] if beside else []) + repositories
        ]
        own = beside.site if beside else None

        def read(site: str, count: int) -> None:
            on_read(count)
            self._events.emit(BytesRead(site, count))
            if site != own:
                self._count(site, descriptor, count)

        return VerifiedBlob(descriptor, places, read)

    def _count(self, site: str, descriptor: Descriptor, count: int) -> None:
        before = self._read.get(descriptor.digest, 0)
        self._read[descriptor.digest] = before + count
        if descriptor.size is not None and before <= descriptor.size < before + count:
            self._events.emit(Reread(site, descriptor.digest))

    def warn_spool(self, error: SpoolFull) -> None:
        """Says, once a run, that the spool does not serve."""
        self._warn_once(error.cause)

    def is_spooled(self, digest: Digest) -> bool:
        """Whether the blob can be had without reading the source."""
        return self._spool is not None and self._spool.has(digest)

    def _warn_once(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            self.warn(f"{why}: streaming instead, each destination reads {self._source} for itself")
