"""A rule as the engine runs it: built by `config`, free of its syntax."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

import msgspec

from replicator.model.digest import Digest
from replicator.model.manifest import Manifest, with_foreign_layers
from replicator.policy.pattern import Glob, TagPattern, parse_tag_pattern
from replicator.policy.platforms import Platforms
from replicator.policy.referrers import ReferrerFilter
from replicator.policy.schedule import Cron
from replicator.policy.semver import SemverRange
from replicator.trust.policy import Signing, TrustPolicy

__all__ = [
    "ImageSet",
    "ImageSource",
    "Pin",
    "Referrers",
    "Rename",
    "Replacement",
    "RepositorySelection",
    "Rule",
    "Sort",
    "TagPattern",
    "TagSelection",
]

Sort = Literal["semver", "alpha", "created"]
Referrers = Literal["all", "root", "none"]
"""What travels with an image: referrers of all its manifests, of its root alone, or none."""


class RepositorySelection(msgspec.Struct, frozen=True):
    """Which repositories: any of `include`, none of `exclude`. `*` stays in one path component, `**` crosses."""

    include: tuple[Glob, ...]
    exclude: tuple[Glob, ...] = ()


class Pin(msgspec.Struct, frozen=True):
    """A digest that is wanted as it is: under `tag`, or (None) by digest alone."""

    digest: Digest
    tag: str | None = None


class TagSelection(msgspec.Struct, frozen=True):
    """One table of `tags`: its keys are and-ed, exclude wins. Empty `include` with no pins means all tags.

    `newer_than` is an age in seconds. `min_tags` fewer selected in a repository is a failure. `immutable`:
    tags that, once present at a destination, are never asked for again.
    """

    include: tuple[TagPattern, ...] = ()
    exclude: tuple[TagPattern, ...] = ()
    pins: tuple[Pin, ...] = ()
    semver: SemverRange | None = None
    sort: Sort = "semver"
    latest: int | None = None
    newer_than: float | None = None
    min_tags: int = 0
    immutable: tuple[TagPattern, ...] = ()

    @classmethod
    def of(cls, tags: Iterable[str], pins: Iterable[Pin]) -> TagSelection:
        """Just these tags and pins. Raises ValueError for what is not a tag."""
        return cls(include=tuple(parse_tag_pattern(tag) for tag in tags), pins=tuple(pins))


class Replacement(msgspec.Struct, frozen=True):
    r"""A regular expression and what replaces each whole match, `\1` and `\g<name>` being groups."""

    regex: re.Pattern[str]
    replace: str


class Rename(msgspec.Struct, frozen=True):
    """Source name to target name: strip, then replacements in order, then prefix and suffix."""

    strip: str = ""
    prefix: str = ""
    suffix: str = ""
    replacements: tuple[Replacement, ...] = ()


class ImageSet(msgspec.Struct, frozen=True):
    """What lists name at one site: tags and pins by repository. `problems` are failures, each with file and line.

    `places`: file and line of each tag, by repository and tag.
    """

    repositories: Mapping[str, TagSelection]
    problems: tuple[str, ...] = ()
    places: Mapping[tuple[str, str], str] = msgspec.field(default_factory=dict)


class ImageSource(Protocol):
    """Where a rule takes its images from instead of a catalog. Equal where the same lists are read in the same way."""

    def read(self) -> ImageSet:
        """The images as they are named now. Blocks; raises nothing."""
        ...


class Rule(msgspec.Struct, frozen=True):
    """What is replicated. Names of sites are as in the config; periods and `interval` in seconds.

    `interval` or `cron` promise when it runs; with neither, nothing is promised.

    With `images`, lists decide what is replicated; `repositories` and `tags` then select everything.

    `platforms` are those that are wanted of an index; None for all. `foreign_layers`: layers that manifests name by a URL are
    copied like others.

    `mirrors` may supply the source's content by digest, in this order, before the source itself.

    `trust`: an image is copied only if all of these agree. `sign`: copies are signed at the destination.
    """

    name: str
    source: str
    destinations: tuple[str, ...]
    repositories: RepositorySelection
    tags: tuple[TagSelection, ...] = (TagSelection(),)
    mirrors: tuple[str, ...] = ()
    rename_repository: Rename = msgspec.field(default_factory=Rename)
    rename_tag: Rename = msgspec.field(default_factory=Rename)
    recheck: float = 24 * 3600.0
    verify_every: float = 7 * 24 * 3600.0
    interval: float | None = None
    cron: Cron | None = None
    images: ImageSource | None = None
    referrers: Referrers = "all"
    referrer_filter: ReferrerFilter = msgspec.field(default_factory=ReferrerFilter)
    referrers_recheck: float = 24 * 3600.0
    trust: tuple[TrustPolicy, ...] = ()
    sign: Signing | None = None
    platforms: Platforms | None = None
    foreign_layers: bool = False

    @property
    def part(self) -> str:
        """The same text for rules that copy the same parts of an image; "" for all but foreign layers."""
        chosen = self.platforms.key if self.platforms else ""
        return " ".join(text for text in (chosen, "foreign" if self.foreign_layers else "") if text)

    def part_of(self, manifest: Manifest) -> Manifest:
        """The manifest with only that to follow which is wanted."""
        wanted = self.platforms.cut(manifest) if self.platforms else manifest
        return with_foreign_layers(wanted) if self.foreign_layers else wanted
