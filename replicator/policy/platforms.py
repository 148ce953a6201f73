"""Which platforms of an image are wanted. Pure.

Platforms are those of the OCI image-spec (image-index.md); default variants and the form of a Windows version are
containerd's (`platforms/database.go`, `platforms/platforms.go`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from replicator.model.descriptor import Descriptor, Platform
from replicator.model.digest import Digest
from replicator.model.manifest import Kind, Manifest, entries, sparse
from replicator.scrub import scrub

PlatformMode = Literal["sparse", "rewrite"]
MissingPlatform = Literal["hold", "skip", "copy"]

REFERENCE_TYPE: Final = "vnd.docker.reference.type"
REFERENCE_DIGEST: Final = "vnd.docker.reference.digest"
"""Annotations of a child that describes another child: buildkit's attestations (docs.docker.com, "Image attestation storage")."""

_PLATFORM: Final = re.compile(
    r"(?P<os>[a-z0-9_.-]+)(?:\((?P<version>[0-9]+(?:\.[0-9]+){0,3})\))?/(?P<architecture>[a-z0-9_.-]+)(?:/(?P<variant>[a-z0-9_.-]+))?"
)
_DEFAULT_VARIANTS: Final = {"amd64": "v1", "arm": "v7", "arm64": "v8"}
_NAMES: Final = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "x64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i686": "386",
    "x86": "386",
    "armhf": "arm/v7",
    "armv7": "arm/v7",
    "armv7l": "arm/v7",
    "armel": "arm/v6",
    "armv6": "arm/v6",
}
"""Other names of architectures, none of which is in an index."""
_SYNTAX: Final = "OS/ARCHITECTURE[/VARIANT], such as linux/amd64, linux/arm64/v8 or windows(10.0.17763)/amd64"


class Platforms(msgspec.Struct, frozen=True):
    """The platforms that a rule replicates.

    `mode` "sparse" keeps an index as it is and copies the chosen children alone; "rewrite" makes a new index of them.
    `missing` is what happens to an image that lacks one of them: it is held, skipped, or what it has is copied.
    """

    wanted: tuple[Platform, ...]
    mode: PlatformMode = "sparse"
    missing: MissingPlatform = "hold"

    def __str__(self) -> str:
        return ", ".join(platform_text(platform) for platform in self.wanted)

    @property
    def key(self) -> str:
        """The same text for the same content at a destination."""
        return " ".join([self.mode, *sorted({platform_text(platform) for platform in self.wanted})])

    @property
    def rewrites(self) -> bool:
        """Whether an index may have another digest at a destination than at its source."""
        return self.mode == "rewrite"

    def cut(self, manifest: Manifest) -> Manifest:
        """The manifest, with only the children to follow that are chosen."""
        if manifest.kind is not Kind.INDEX:
            return manifest
        return sparse(manifest, chosen(entries(manifest), self.wanted))

    def lacking(self, indexes: Iterable[Manifest]) -> str:
        """Why the image of these indexes is not what is wanted: a platform is not in any; "" where nothing is amiss.

        Indexes that name no platform at all hold something else than images, and lack nothing.
        """
        return self._lacking([entry for manifest in indexes for entry in of_platforms(entries(manifest))])

    def lacking_of(self, platform: Platform) -> str:
        """The same of an image that is not in an index, by the platform in its config."""
        return self._lacking([Descriptor("", Digest(""), platform=platform)])

    def _lacking(self, named: Sequence[Descriptor]) -> str:
        missing = [each for each in self.wanted if not matching(named, each)]
        if not named or not missing or (self.missing == "copy" and len(missing) < len(self.wanted)):
            return ""
        has = sorted({platform_text(entry.platform) for entry in named if entry.platform})
        wanted = ", ".join(platform_text(platform) for platform in missing)
        return scrub(f"the image has no {wanted}; it has {', '.join(has)}")


def parse_platform(text: str) -> Platform:
    """The platform of `OS[(VERSION)]/ARCHITECTURE[/VARIANT]`; raises ValueError, which says what would be right."""
    match = _PLATFORM.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid platform {text[:80]!r}: write {_SYNTAX}")
    os, version, architecture, variant = match.group("os", "version", "architecture", "variant")
    if architecture in _NAMES:
        raise ValueError(f"invalid platform {text!r}: write {os}/{_NAMES[architecture]}")
    if os == "macos":
        raise ValueError(f"invalid platform {text!r}: write darwin/{architecture}")
    if version and os != "windows":
        raise ValueError(f"invalid platform {text!r}: only windows has a version; write {os}/{architecture}")
    return Platform(os=os, architecture=architecture, variant=variant, os_version=version)


def platform_text(platform: Platform) -> str:
    """As `parse_platform` reads it."""
    os = f"{platform.os}({platform.os_version})" if platform.os_version else platform.os
    return "/".join(part for part in (os, platform.architecture, platform.variant) if part)


def chosen(children: Sequence[Descriptor], wanted: Iterable[Platform]) -> frozenset[Digest]:
    """The children of an index that are wanted.

    A platform without a variant stands for the default variant of its architecture, else for all that there are; a
    Windows version for all that begin with it, no version for all. Children that describe another (attestations) go with
    that one. Children of no platform are always wanted.
    """
    named = of_platforms(children)
    kept = {child.digest for platform in wanted for child in matching(named, platform)}
    kept |= {child.digest for child in children if not _has_platform(child) and _described(child) is None}
    waiting = [child for child in children if _described(child) is not None]
    while more := {child.digest for child in waiting if _described(child) in kept} - kept:
        kept |= more
    return frozenset(kept)


def of_platforms(children: Iterable[Descriptor]) -> list[Descriptor]:
    """The children that are for one platform each, without attestations."""
    return [child for child in children if _has_platform(child)]


def matching(children: Sequence[Descriptor], wanted: Platform) -> list[Descriptor]:
    """Those of `of_platforms` that one wanted platform stands for, as in `chosen`, in the order of the index."""
    same = [child for child in children if child.platform and _is_same(child.platform, wanted)]
    exact = [child for child in same if child.platform and _variant(child.platform) == _variant(wanted)]
    return exact or ([] if wanted.variant else same)


def _is_same(platform: Platform, wanted: Platform) -> bool:
    """All but the variant."""
    if (platform.os, platform.architecture) != (wanted.os, wanted.architecture):
        return False
    return wanted.os_version is None or f"{platform.os_version}.".startswith(f"{wanted.os_version}.")


def _variant(platform: Platform) -> str | None:
    variant = platform.variant or _DEFAULT_VARIANTS.get(platform.architecture)
    return f"v{variant}" if variant and variant.isdigit() else variant


def _has_platform(child: Descriptor) -> bool:
    """Whether a child is for one platform. Attestations are listed as unknown/unknown."""
    return (
        child.platform is not None and child.platform.os not in {"", "unknown"} and _described(child) is None
    )


def _described(child: Descriptor) -> str | None:
    """The digest of the child that this one describes."""
    annotations = child.annotations or {}
    return annotations.get(REFERENCE_DIGEST, "") if REFERENCE_TYPE in annotations else None
