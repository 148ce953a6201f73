"""Where content comes from: mirrors before the source, one read for all who want it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from replicator.engine.content.parted import PARTS, Crowd, PartedBlob
from replicator.engine.content.referrers import ReferrersReader
from replicator.engine.content.spool import Spool, SpoolFull
from replicator.engine.content.verified import BlobPlace, VerifiedBlob
from replicator.engine.referrers import ReferrersAPIs
from replicator.errors import SiteError
from replicator.events import BytesRead, Events, Reread
from replicator.flow.breaker import Breaker
from replicator.flow.once import Once
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.manifest import Manifest
from replicator.ports import BlobSource, FollowsURLs, ReadsRanges, Repository, Site

MANIFEST_CACHE_BYTES: Final = 32 * 1024 * 1024
MAX_URLS: Final = 4
"""Asked for one non-distributable layer."""


class _Breakers(dict[str, Breaker]):
    """One for each mirror."""

    def __missing__(self, mirror: str) -> Breaker:
        breaker = self[mirror] = Breaker(mirror)
        return breaker


class SourceContent:
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
        apis: the referrers APIs of all sites.
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
        apis: ReferrersAPIs,
    ) -> None:
        self._sites = sites
        self._source = source
        self._spool = spool
        self._share = share
        self._events = events
        self.warn = warn
        self.referrers = ReferrersReader(source, apis, warn)
        self._manifests: dict[tuple[str, Digest], Manifest] = {}
        self._cached_bytes = 0
        self._reading: Once[tuple[str, Digest], Manifest] = Once()
        self._read: dict[Digest, int] = {}
        self._warned = False
        self._breakers = _Breakers()
        self._crowds: defaultdict[str, Crowd] = defaultdict(Crowd)

    def refresh(self) -> None:
        """Forgets what was found out long ago: mirrors that did not serve, how much of a blob was read, warnings."""
        self._read.clear()
        self._breakers.clear()
        self._warned = False

    def repository(self, name: str) -> Repository:
        """The source's own repository."""
        return self._sites[self._source].repository(name)

    async def manifest(
        self, name: str, digest: Digest, mirrors: Sequence[str], on_read: Callable[[int], None]
    ) -> Manifest:
        """The manifest, from the first place that has it.

        Raises:
            SiteError: the source's own, if it was found nowhere.
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
        for mirror in self._serving(mirrors):
            try:
                manifest = await self._sites[mirror].repository(name).read_manifest(digest)
            except SiteError as error:
                self._failed(mirror, error)
                continue  # the source decides
            self._breakers[mirror].succeeded()
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
        on_lost: Callable[[SiteError], None] | None = None,
        spooled: bool = True,
    ) -> BlobSource:
        """The blob, for one destination: the spool, else the destination's own repository `beside`, else the source.

        `on_read` is told the bytes that come in because of this destination, `on_lost` why `beside` did
        not have it. Not `spooled`: the spool has failed and is left out.
        """
        rest = self._shared if spooled else partial(self.direct, spooled=False)
        if beside is None or (spooled and self.is_spooled(descriptor.digest)):
            return rest(name, descriptor, mirrors, on_read)

        def read(site: str, count: int) -> None:
            if site == beside.site:  # the other place counts for itself
                on_read(count)
                self._events.emit(BytesRead(site, count))

        def lost(_: BlobPlace, error: SiteError) -> None:
            if on_lost is not None:
                on_lost(error)

        places = [
            BlobPlace.at(beside, descriptor),
            BlobPlace(self._source, name, rest(name, descriptor, mirrors, on_read)),
        ]
        return VerifiedBlob(descriptor, places, read, lost)

    def _shared(
        self, name: str, descriptor: Descriptor, mirrors: Sequence[str], on_read: Callable[[int], None]
    ) -> BlobSource:
        """From the source, through the spool where several destinations want it."""
        direct = self.direct(name, descriptor, mirrors, on_read)
        if not self._share():
            return direct
        if self._spool is None:
            self._warn_once("the agent has no cache directory")
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
        spooled: bool = True,
    ) -> BlobSource:
        """The blob from its mirrors and its source, not through the spool, unless it has parts of it while they come in."""
        places = [
            self._place(site, name, descriptor, spooled=spooled)
            for site in (*self._serving(mirrors), self._source)
        ]
        places += self._elsewhere(name, descriptor)

        def read(site: str, count: int) -> None:
            on_read(count)
            self._events.emit(BytesRead(site, count))
            self._count(site, descriptor, count)

        def lost(place: BlobPlace, error: SiteError) -> None:
            if place.site != self._source:
                self._failed(place.site, error)

        return VerifiedBlob(descriptor, places, read, lost)

    async def is_lost(self, name: str, descriptor: Descriptor, mirrors: Sequence[str]) -> bool:
        """Whether a non-distributable layer can be had neither from the source, its mirrors nor its URLs.

        False as well where a mirror does not answer. Raises SiteError if the source does not.
        """
        repository = self.repository(name)
        if isinstance(repository, FollowsURLs) or await repository.has_blob(
            descriptor.digest, descriptor.size
        ):
            return False
        for mirror in mirrors:
            try:
                if await self._sites[mirror].repository(name).has_blob(descriptor.digest, descriptor.size):
                    return False
            except SiteError:
                return False
        return True

    def _elsewhere(self, name: str, descriptor: Descriptor) -> list[BlobPlace]:
        """The URLs of a non-distributable layer, which most registries do not have."""
        repository = self.repository(name)
        if not descriptor.is_foreign or not isinstance(repository, FollowsURLs):
            return []
        found = (repository.blob_at(descriptor, url) for url in descriptor.urls[:MAX_URLS])
        return [BlobPlace(self._source, name, source) for source in found if source is not None]

    def _place(self, site: str, name: str, descriptor: Descriptor, *, spooled: bool) -> BlobPlace:
        """The blob at a site; read in parts beside each other where it is large and that helps."""
        source = self._sites[site].repository(name).blob(descriptor)
        if (
            (descriptor.size or 0) >= PARTS.least
            and self._spool is not None
            and spooled
            and isinstance(source, ReadsRanges)
            and source.parallel_reads != 1
        ):
            source = PartedBlob(site, source, self._spool.scratch, self._crowds[site], PARTS)
        return BlobPlace(site, name, source)

    def _serving(self, mirrors: Sequence[str]) -> list[str]:
        """The mirrors that are not lost for this run: each reading of a dead one would cost all its retries."""
        return [mirror for mirror in mirrors if self._breakers[mirror].cause is None]

    def _failed(self, mirror: str, error: SiteError) -> None:
        """A mirror may lack anything; one that does not answer, or refuses us, is left alone from then on."""
        breaker = self._breakers[mirror]
        known = breaker.cause
        breaker.failed(error)
        if breaker.cause is not known:
            self.warn(f"mirror {mirror} is not asked any more: {error}")

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
