"""Selection of one platform from an index."""

from __future__ import annotations

from replicator.errors import NotFound
from replicator.model.descriptor import Descriptor, Platform
from replicator.model.manifest import Kind, Manifest, entries
from replicator.policy.platforms import matching, of_platforms, platform_text


def child_for(manifest: Manifest, platform: Platform, *, site: str, repository: str) -> Descriptor:
    """The child for the platform; the manifest itself if it is not an index.

    Platforms match as those of a rule do. Of several children that match, the first one.

    Raises:
        NotFound: the index does not have the platform. Lists those it has.
    """
    if manifest.kind is not Kind.INDEX:
        return manifest.descriptor
    named = of_platforms(entries(manifest))
    for child in matching(named, platform):
        return child
    has = ", ".join(sorted({platform_text(each.platform) for each in named if each.platform})) or "none"
    raise NotFound(
        site,
        "choose platform",
        f"the index does not have {platform_text(platform)}; it has {has}",
        repository=repository,
    )
