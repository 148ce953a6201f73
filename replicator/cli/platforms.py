"""Selection of one platform from an index."""

from __future__ import annotations

import re
from typing import Final

from replicator.errors import NotFound
from replicator.model.descriptor import Descriptor, Platform
from replicator.model.manifest import Kind, Manifest

_PART: Final = re.compile(r"[a-z0-9_.-]+")
_IMPLIED: Final = {"arm64": "v8", "arm": "v7"}
"""Default variants of architectures, as in containerd."""


def parse_platform(text: str) -> Platform:
    """The platform of `OS/ARCHITECTURE[/VARIANT]`; raises ValueError."""
    parts = text.split("/")
    if len(parts) not in {2, 3} or not all(_PART.fullmatch(part) for part in parts):
        raise ValueError(f"invalid platform {text!r}: write OS/ARCHITECTURE[/VARIANT], such as linux/arm64")
    return Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else None)


def child_for(manifest: Manifest, platform: Platform, *, site: str, repository: str) -> Descriptor:
    """The child for the platform; the manifest itself if it is not an index.

    A platform without a variant matches the default variant, else the first one.

    Raises:
        NotFound: the index does not have the platform. Lists those it has.
    """
    if manifest.kind is not Kind.INDEX:
        return manifest.descriptor
    pairs = [(child, child.platform) for child in manifest.children if child.platform is not None]
    same = [
        (child, each)
        for child, each in pairs
        if (each.os, each.architecture) == (platform.os, platform.architecture)
    ]
    for child, each in same:
        if _variant(each) == _variant(platform):
            return child
    if same and platform.variant is None:
        return same[0][0]
    # buildx lists attestations in an index as unknown/unknown.
    there = ", ".join(sorted({str(each) for _, each in pairs if each.os != "unknown"})) or "none"
    raise NotFound(
        site, "choose platform", f"the index does not have {platform}; it has {there}", repository=repository
    )


def _variant(platform: Platform) -> str | None:
    return platform.variant or _IMPLIED.get(platform.architecture)
