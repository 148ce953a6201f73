"""The tables of a rule."""

from __future__ import annotations

import re
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import ValidationInfo, field_validator

from replicator.config.model.table import Table, setting
from replicator.config.syntax import (
    ARGUMENT,
    CRON,
    DURATION,
    INCLUDE,
    NAME,
    PATTERN,
    REGEX,
    REPOSITORIES,
    SEMVER,
    TIMEZONE,
    OneOrMany,
    RepositoryPattern,
)
from replicator.policy.pattern import TagPattern
from replicator.policy.rule import Pin, Sort
from replicator.policy.schedule import Cron
from replicator.policy.semver import SemverRange


class ReplacementTable(Table):
    """One replacement of `regex`."""

    match: Annotated[re.Pattern[str], REGEX] = setting(
        "Regular expression (Python's `re`); every match is replaced."
    )
    replace: str = setting(r"What replaces it; `\1` and `\g<name>` are groups.")

    @field_validator("replace")
    @classmethod
    def _groups_exist(cls, replace: str, info: ValidationInfo) -> str:
        regex: re.Pattern[str] | None = info.data.get("match")
        if regex is not None:
            try:
                # The empty alternative makes it match something, so that the replacement is looked at. On its own
                # line: the pattern may end in a comment ("(?x)").
                re.compile(f"{regex.pattern}\n|").sub(replace, "")
            except (re.error, IndexError) as error:
                raise ValueError(f"{replace!r} does not fit {regex.pattern!r}: {error}") from error
        return replace


class RenameTagsTable(Table):
    """How a tag is called at the destination."""

    strip: str = setting("Taken off the front, where it is there.", "")
    prefix: str = setting("Put before.", "")
    suffix: str = setting("Put after.", "")
    regex: list[ReplacementTable] = setting("Replacements, in order, after `strip`.", default_factory=list)


class RenameTable(RenameTagsTable):
    """How a repository is called at the destination: strip, then regex in order, then prefix and suffix."""

    tags: RenameTagsTable = setting("The same four keys for tags.", default_factory=RenameTagsTable)


class TagsTable(Table):
    """Which tags: all keys of one table must agree; exclude wins."""

    include: list[Annotated[TagPattern | Pin, INCLUDE]] | None = setting(
        "Any of these: globs, exact tags, `re:` and a regular expression for the whole tag, `TAG@sha256:...` (that "
        "tag, that digest), `sha256:...` (by digest alone). Default: all tags.",
        None,
        min_length=1,
    )
    exclude: list[Annotated[TagPattern, PATTERN]] = setting("None of these patterns.", default_factory=list)
    semver: Annotated[SemverRange | None, SEMVER] = setting(
        'Only versions in this range, as `">=1.2 <2"`; other tags are left out and counted.', None
    )
    sort: Sort = setting(
        "What `latest` counts by; tags without that property are left out and counted.", "semver"
    )
    latest: int | None = setting("Only so many, the last of the sort.", None, ge=1)
    newer_than: Annotated[float | None, DURATION] = setting("Only images created within this time.", None)
    min_tags: int = setting("Fewer than this in a repository is a failure.", 0, ge=0)
    immutable: list[Annotated[TagPattern, PATTERN]] = setting(
        "Tags that never move: once present at a destination, they are not asked for again.",
        default_factory=list,
    )


class RuleHooksTable(Table):
    """Commands around each run of a rule, by `run` and `sync`: argument lists, no shell. They get JSON on stdin."""

    before: list[Annotated[str, ARGUMENT]] | None = setting(
        "Run before, told what is going to run.", None, min_length=1
    )
    before_required: bool = setting("The run is given up, as failed, where `before` fails.", True)
    after: list[Annotated[str, ARGUMENT]] | None = setting("Run after, told the report.", None, min_length=1)
    timeout: Annotated[float, DURATION] = setting(
        "A command that takes longer is killed, and has failed.", "1m"
    )


class RuleTable(Table):
    """What is replicated from where to where."""

    name: Annotated[str, NAME] = setting("Name of the rule, in reports, metrics and `--rule`.")
    source: str = setting("Site that decides what exists.")
    mirrors: list[str] = setting(
        "Sites asked first for the source's content, by digest only.", default_factory=list
    )
    destinations: list[str] = setting("Sites that are to hold the same.", min_length=1)
    repositories: list[Annotated[RepositoryPattern, REPOSITORIES]] = setting(
        "Exact names and globs; `*` stays within one path component, `**` crosses, `!` before a pattern takes away.",
        min_length=1,
    )
    tags: Annotated[list[TagsTable], OneOrMany()] = setting(
        "Which tags; a list of such tables: any of them. Default: all tags.", default_factory=list
    )
    rename: RenameTable = setting(
        "How repositories and tags are called at the destinations.", default_factory=RenameTable
    )
    interval: Annotated[float | None, DURATION] = setting(
        "How often the rule runs; `status` shows a rule that is overdue. `sync` runs once, whatever it says.",
        None,
    )
    cron: Annotated[Cron | None, CRON] = setting(
        "When the rule runs, as five cron fields; instead of `interval`. With neither, `run` looks once at its start, "
        "then when asked, told by a webhook, or after a failure.",
        None,
    )
    timezone: Annotated[ZoneInfo | None, TIMEZONE] = setting(
        "Time zone of `cron`. Default: `agent.timezone`.", None
    )
    recheck: Annotated[float, DURATION] = setting(
        "Each tag is looked up at its destination at least this often, whatever the state remembers.", "24h"
    )
    hooks: RuleHooksTable = setting("Commands around each run.", default_factory=RuleHooksTable)
