"""What passes through is indexed: a subscriber that makes facts about images of manifests and configs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from replicator.errors import NotFound, SiteError
from replicator.events import ConfigPassed, Event, ImageCopied
from replicator.model.decoding import JSON_ERRORS
from replicator.model.digest import Digest
from replicator.model.manifest import Kind, Manifest, annotations_of, sparse
from replicator.ports import ImageSeen, Site, State
from replicator.ports.search import ImageFacts, ImageIndex

INDEXED: Final = frozenset({ConfigPassed, ImageCopied})
"""The events that `Indexer` makes facts of."""
CONFIGS_KEPT: Final = 4_096
"""Configs whose facts wait for their image; hundreds of bytes each."""


class ImageConfig(msgspec.Struct, frozen=True):
    """The facts of one image config. OCI image-spec, config.md."""

    created: str | None = None
    architecture: str = ""
    os: str = ""
    variant: str | None = None
    config: _RunConfig | None = None

    @property
    def platform(self) -> str:
        """`os/architecture[/variant]`, empty where it does not say."""
        return (
            "/".join(part for part in (self.os, self.architecture, self.variant) if part) if self.os else ""
        )


class _RunConfig(msgspec.Struct, frozen=True):
    labels: dict[str, str] | None = msgspec.field(default=None, name="Labels")


class Indexer:
    """A subscriber to `Events`. Never asks a site for anything.

    Args:
        state: where facts are recorded.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._configs: OrderedDict[Digest, ImageConfig] = OrderedDict()

    def __call__(self, event: Event) -> None:
        """Takes one event."""
        match event:
            case ConfigPassed(digest=digest, body=body):
                config = parse_config(body)
                if config is not None:
                    self._configs[digest] = config
                    while len(self._configs) > CONFIGS_KEPT:
                        self._configs.popitem(last=False)
            case ImageCopied(root=root, manifests=manifests):
                self._state.record(ImageSeen(facts_of(root, manifests, self._configs)))
            case _:
                pass


def parse_config(body: bytes) -> ImageConfig | None:
    """The config of an image; None for an artifact's, which may be anything."""
    try:
        return msgspec.json.decode(body, type=ImageConfig)
    except JSON_ERRORS:
        return None


def facts_of(
    root: Digest, manifests: Sequence[Manifest], configs: Mapping[Digest, ImageConfig]
) -> ImageFacts:
    """The facts of an image, as far as its configs are known."""
    by_digest = {manifest.digest: manifest for manifest in manifests}
    top = by_digest[root]
    own = {manifest.digest: annotations_of(manifest) or {} for manifest in manifests}
    platforms: dict[str, None] = {}
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    layers: dict[Digest, int] = {}
    created: list[float] = []
    for manifest in manifests:
        for child in manifest.children:
            if child.platform is not None and child.platform.os not in {"", "unknown"}:
                platforms[str(child.platform)] = None
        if manifest.kind is not Kind.IMAGE:
            continue
        layers |= {
            blob.digest: blob.size or 0
            for blob in manifest.blobs
            if manifest.config is None or blob.digest != manifest.config.digest
        }
        annotations = {**own[manifest.digest], **annotations}
        config = configs.get(manifest.config.digest) if manifest.config else None
        if config is None:
            continue
        if config.platform and manifest.digest == root:
            platforms[config.platform] = None
        labels = {**(config.config.labels or {} if config.config else {}), **labels}
        if (at := _epoch(config.created)) is not None:
            created.append(at)
    return ImageFacts(
        root,
        min(created, default=None),
        top.descriptor.artifact_type or "",
        tuple(platforms),
        labels,
        tuple(layers.items()),
        {**annotations, **own[root]},
    )


def _epoch(text: str | None) -> float | None:
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


async def index_missing(
    state: State,
    index: ImageIndex,
    sites: Mapping[str, Site],
    limit: int,
    unreadable: set[tuple[str, Digest]],
) -> int:
    """Reads images that nothing is known of from their destinations (`agent.index = "full"`), each from one of them.

    Args:
        state: where facts are recorded.
        index: what is known.
        sites: by name.
        limit: about how many tags to look at.
        unreadable: what was tried in vain, by destination; not tried again, and added to.

    Returns:
        How many it tried to read.
    """
    tried, done = 0, set[Digest]()
    for holding in await index.unindexed(limit + len(unreadable)):
        site, digest = sites.get(holding.destination), holding.digest
        if site is None or digest is None or digest in done or (holding.destination, digest) in unreadable:
            continue
        tried += 1
        try:
            facts = await read_facts(site, holding.repository, digest)
        except SiteError:  # replication itself tells of sites that do not answer
            unreadable.add((holding.destination, digest))
            continue
        state.record(ImageSeen(facts))
        done.add(digest)
    return tried


async def read_facts(site: Site, name: str, digest: Digest) -> ImageFacts:
    """Reads an image's manifests and configs; of an index, the children that are there. Raises SiteError: also if none is."""
    from replicator.discovery.describe import read_config  # noqa: PLC0415 - only where nothing passed through

    repository = site.repository(name)
    root = await repository.read_manifest(digest)
    children: list[Manifest] = []
    missing: NotFound | None = None
    for child in root.children:
        try:
            children.append(await repository.read_manifest(child.digest))
        except NotFound as error:
            missing = error  # a sparse index
    if missing is not None and not children:
        raise missing
    manifests = [sparse(root, {child.digest for child in children}) if missing else root, *children]
    configs: dict[Digest, ImageConfig] = {}
    for manifest in manifests:
        if manifest.config is not None:
            config = parse_config(await read_config(repository, manifest.config))
            if config is not None:
                configs[manifest.config.digest] = config
    return facts_of(digest, manifests, configs)
