"""What a choice of platforms makes of an image at its source: the indexes are read, the images in them are not."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from replicator.engine.content.config import ignore, read_config
from replicator.engine.content.source import SourceContent
from replicator.engine.roots import ChosenRoots, Root
from replicator.errors import Corrupt
from replicator.model.decoding import JSON_ERRORS
from replicator.model.descriptor import Platform
from replicator.model.digest import Digest
from replicator.model.image import MAX_DEPTH, read_indexes
from replicator.model.manifest import Kind, Manifest
from replicator.model.mediatypes import CONFIGS
from replicator.model.rewriting import rewritten
from replicator.policy.platforms import Platforms


class _Config(msgspec.Struct, frozen=True):
    """The platform in an image's config. OCI image-spec, config.md."""

    architecture: str = ""
    os: str = ""
    variant: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")


async def chosen_root(
    known: ChosenRoots,
    content: SourceContent,
    repository: str,
    digest: Digest,
    platforms: Platforms,
    mirrors: Sequence[str],
) -> Root:
    """What the choice makes of an image.

    Costs one read of its manifest, one of each index in it; of an image that is not in an index, of its config. Nothing
    if it is known.

    Args:
        known: what earlier runs have found out; added to.
        content: of the source.
        repository: at the source.
        digest: the root there.
        platforms: the choice.
        mirrors: asked first.

    Raises:
        SiteError: the source could not be read, or it is nested too deep.
    """
    root = known.get(digest, platforms)
    if root is None:
        root = await _read_root(content, repository, digest, platforms, mirrors)
        known.add(digest, platforms, root)
    return root


async def _read_root(
    content: SourceContent, repository: str, digest: Digest, platforms: Platforms, mirrors: Sequence[str]
) -> Root:
    async def read(each: Digest) -> Manifest:
        return await content.manifest(repository, each, mirrors, ignore)

    top = await read(digest)
    if top.kind is not Kind.INDEX:
        platform = await _platform(content, repository, top, mirrors)
        return Root(digest, platforms.lacking_of(platform) if platform else "")
    indexes = await read_indexes(top, read, platforms.cut)
    if indexes is None:
        cause = f"{digest} has more than {MAX_DEPTH} levels"
        raise Corrupt(content.repository(repository).site, "read manifest", cause, repository=repository)
    new = rewritten(indexes[digest], indexes) if platforms.rewrites else {}
    return Root(new[digest].digest if digest in new else digest, platforms.lacking(indexes.values()))


async def _platform(
    content: SourceContent, repository: str, manifest: Manifest, mirrors: Sequence[str]
) -> Platform | None:
    """What an image says it is for; None for an artifact, which is for nothing in particular."""
    if manifest.config is None or manifest.config.media_type not in CONFIGS:
        return None
    body = await read_config(content, repository, manifest, mirrors)
    try:
        config = msgspec.json.decode(body or b"", type=_Config)
    except JSON_ERRORS:
        return None
    if not config.os or not config.architecture:
        return None
    return Platform(config.architecture, config.os, config.variant, config.os_version)
