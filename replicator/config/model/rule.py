"""The tables of a rule."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import ValidationInfo, field_validator

from replicator.config.model.table import Table, setting
from replicator.config.model.trust import SignTable, TrustTable
from replicator.config.secrets import Secret
from replicator.config.short import OneOrMany, ShortFor
from replicator.config.syntax import (
    ARGUMENT,
    CRON,
    DURATION,
    IMAGE_PATH,
    INCLUDE,
    LISTS,
    NAME,
    PATTERN,
    PLATFORM,
    REFERRER,
    REGEX,
    REPOSITORIES,
    SECRET,
    SEMVER,
    TIMEZONE,
    RepositoryPattern,
)
from replicator.lists.reading import Format, ImagePath
from replicator.model.descriptor import Platform
from replicator.policy.pattern import TagPattern
from replicator.policy.platforms import MissingPlatform, PlatformMode
from replicator.policy.referrers import ReferrerPattern
from replicator.policy.rule import Pin, Sort
from replicator.policy.schedule import Cron
from replicator.policy.semver import SemverRange


class ReplacementTable(Table):
    """One replacement of `regex`."""

    match: Annotated[re.Pattern[str], REGEX] = setting(
        "Regular expression (Python's `re`). Every match is replaced."
    )
    replace: str = setting(r"Replacement text; `\1` and `\g<name>` are groups.")

    @field_validator("replace")
    @classmethod
    def _groups_exist(cls, replace: str, info: ValidationInfo) -> str:
        regex: re.Pattern[str] | None = info.data.get("match")
        if regex is not None:
            try:
                # The empty alternative always matches, so the replacement is checked. It is on its own line because
                # the pattern may end in a comment ("(?x)").
                re.compile(f"{regex.pattern}\n|").sub(replace, "")
            except (re.error, IndexError) as error:
                raise ValueError(f"{replace!r} does not match {regex.pattern!r}: {error}") from error
        return replace


class RenameTagsTable(Table):
    """Names of tags at the destination."""

    strip: str = setting("Prefix to remove, if present.", "")
    prefix: str = setting("Prefix to add.", "")
    suffix: str = setting("Suffix to add.", "")
    regex: list[ReplacementTable] = setting(
        "Replacements, applied in order after `strip`.", default_factory=list
    )


class RenameTable(RenameTagsTable):
    """Names of repositories at the destination: `strip`, then `regex` in order, then `prefix` and `suffix`."""

    tags: RenameTagsTable = setting("The same four keys for tags.", default_factory=RenameTagsTable)


class TagsTable(Table):
    """Selection of tags. A tag must satisfy every key of the table; `exclude` takes precedence."""

    include: list[Annotated[TagPattern | Pin, INCLUDE]] | None = setting(
        "Tags to include, each one of: a glob, an exact tag, `re:` and a regular expression for the whole tag, "
        "`TAG@sha256:...` (this digest, under this tag), `sha256:...` (this digest, without a tag). Default: all tags.",
        None,
        min_length=1,
    )
    exclude: list[Annotated[TagPattern, PATTERN]] = setting(
        "Patterns of tags to exclude.", default_factory=list
    )
    semver: Annotated[SemverRange | None, SEMVER] = setting(
        'Only versions in this range, such as `">=1.2 <2"`. Other tags are left out and counted.', None
    )
    sort: Sort = setting(
        "Order for `latest`. Tags that cannot be ordered this way are left out and counted.", "semver"
    )
    latest: int | None = setting("Only the last N tags of this order.", None, ge=1)
    newer_than: Annotated[float | None, DURATION] = setting("Only images created within this period.", None)
    min_tags: int = setting("Minimum number of tags; fewer in a repository is a failure.", 0, ge=0)
    immutable: list[Annotated[TagPattern, PATTERN]] = setting(
        "Tags that never move: once present at a destination, they are not checked again.",
        default_factory=list,
    )


class ReferrersTable(Table):
    """Referrers (signatures, SBOMs, attestations and other manifests that refer to an image) that are copied with it.

    A pattern is `signature`, `attestation` or `sbom` (in all known forms: sigstore bundles, Notary Project, SPDX,
    CycloneDX, cosign's older tags), an artifact type such as `application/spdx+json`, or `annotation:NAME=VALUE`. In
    the latter two, `*` is any text.
    """

    mode: Literal["all", "root", "none"] = setting(
        "`all`: those of the tag's own manifest and of its platforms; `root`: those of the tag's own manifest (fewer "
        "requests); `none`: none.",
        "all",
    )
    include: list[Annotated[ReferrerPattern, REFERRER]] | None = setting(
        "Patterns of referrers to copy. Default: all.", None, min_length=1
    )
    exclude: list[Annotated[ReferrerPattern, REFERRER]] = setting(
        "Patterns of referrers that are not copied.", default_factory=list
    )
    require: list[Annotated[ReferrerPattern, REFERRER]] = setting(
        "An image is held unless each of these patterns matches a referrer of the tag's own manifest that is copied. "
        "Nothing is verified.",
        default_factory=list,
    )


class RuleHooksTable(Table):
    """Commands before and after each run of a rule: argument lists, without a shell. They get JSON on stdin."""

    before: list[Annotated[str, ARGUMENT]] | None = setting(
        "Command before the run. It gets the rule and its destinations.", None, min_length=1
    )
    before_required: bool = setting(
        "If `before` fails, do not run the rule and report the run as failed.", True
    )
    after: list[Annotated[str, ARGUMENT]] | None = setting(
        "Command after the run. It gets the report.", None, min_length=1
    )
    env: dict[str, Annotated[Secret, SECRET]] = setting(
        "Environment variables to add. The commands get only a few harmless ones otherwise (`PATH`, `HOME`, the locale "
        "...), never the agent's own secrets.",
        default_factory=dict,
    )
    timeout: Annotated[float, DURATION] = setting(
        "Time limit of each command. When it expires, the command is killed and has failed.", "1m"
    )


class ImagesTable(Table):
    """Images that lists name: text files, Compose files, Kubernetes manifests and others, see [image lists](lists.md)."""

    files: list[Annotated[str, LISTS]] = setting(
        "Files, globs and directories, relative to the config file. They are read again for each run.",
        min_length=1,
    )
    format: Format = setting("Format of the lists; `auto` detects it from the content.", "auto")
    paths: list[Annotated[ImagePath, IMAGE_PATH]] = setting(
        "Where custom resources name images: `[KIND:]JSONPATH`, such as `Prometheus:{.spec.image}`.",
        default_factory=list,
    )
    profiles: list[str] | None = setting("Compose profiles to include. Default: all.", None, min_length=1)


class RuleTable(Table):
    """What is replicated from which site to which sites."""

    name: Annotated[str, NAME] = setting("Name of the rule in reports, metrics and `--rule`.")
    source: str | None = setting(
        "Site to replicate from. It decides which tags exist. May be left out only with `images`: then each image comes "
        "from the site that has its host, by a rule `NAME@SITE`.",
        None,
    )
    mirrors: list[str] = setting(
        "Sites that are tried first for the source's content, by digest only.", default_factory=list
    )
    destinations: list[str] = setting("Sites to replicate to.", min_length=1)
    repositories: list[Annotated[RepositoryPattern, REPOSITORIES]] | None = setting(
        "Exact names and globs. `*` matches within one path component, `**` across components; `!` excludes. Required, "
        "unless `images` is set.",
        None,
        min_length=1,
    )
    images: ImagesTable | None = setting(
        "Take the images from lists instead of `repositories` and `tags`.", None
    )
    tags: Annotated[list[TagsTable], OneOrMany()] = setting(
        "Tags to replicate. With a list of tables, a tag must match any of them. Default: all tags.",
        default_factory=list,
    )
    rename: RenameTable = setting(
        "Names of repositories and tags at the destinations.", default_factory=RenameTable
    )
    interval: Annotated[float | None, DURATION] = setting(
        "How often `run` runs the rule. A rule that is overdue counts as lagging. `sync` ignores it.",
        None,
    )
    cron: Annotated[Cron | None, CRON] = setting(
        "When `run` runs the rule, as five cron fields, instead of `interval`. A rule with neither runs once when the "
        "agent starts, then on request, on a webhook event, and after a failure.",
        None,
    )
    timezone: Annotated[ZoneInfo | None, TIMEZONE] = setting(
        "Time zone of `cron`. Default: `agent.timezone`.", None
    )
    recheck: Annotated[float, DURATION] = setting(
        "Each tag is checked at its destination at least this often, regardless of the state.", "24h"
    )
    verify_every: Annotated[float, DURATION] = setting(
        "All child manifests and blobs of a tag are checked at its destination at least this often. What is missing "
        "there is copied again. An image that replicator did not put there itself, or no longer knows of because its "
        "state was lost, is checked when it is first seen.",
        "7d",
    )
    referrers: Annotated[ReferrersTable, ShortFor("mode", (str,))] = setting(
        "Referrers (signatures, SBOMs, attestations and others) that are copied with an image. May be written as the "
        "value of its `mode`.",
        default_factory=ReferrersTable,
    )
    referrers_recheck: Annotated[float, DURATION] = setting(
        "The source is asked at least this often for new signatures, SBOMs and attestations of an unchanged image.",
        "24h",
    )
    trust: list[TrustTable] = setting(
        "Signatures that an image must have before it is copied. Default: none.", default_factory=list
    )
    sign: SignTable | None = setting("Sign copies at the destinations. Default: no.", None)
    platforms: list[Annotated[Platform, PLATFORM]] | None = setting(
        "Only these platforms of multi-platform images: `OS/ARCHITECTURE[/VARIANT]`, such as `linux/arm64` or "
        "`windows(10.0.17763)/amd64`. Attestations go with the platform that they describe. Default: all. See "
        "[platforms](platforms.md).",
        None,
        min_length=1,
    )
    platform_mode: PlatformMode = setting(
        "`sparse` keeps the index, its digest and its signatures, and copies the chosen platforms only; not every "
        "registry accepts it. `rewrite` makes a new index of the chosen platforms, with another digest and without "
        "signatures.",
        "sparse",
    )
    missing_platform: MissingPlatform = setting(
        "An image that lacks one of `platforms` is held (`hold`) or left out (`skip`); `copy` copies the ones it has, "
        "and holds it if it has none.",
        "hold",
    )
    foreign_layers: bool = setting(
        "Also copy layers that manifests name by a URL (non-distributable layers, as in older Windows images), from the "
        "source or, if a registry does not have them, from that URL.",
        False,
    )
    hooks: RuleHooksTable = setting("Commands before and after each run.", default_factory=RuleHooksTable)
