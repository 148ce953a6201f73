"""The config's tables, key by key: the one source of validation, JSON Schema, reference and example.

One table is validated at a time (`problems.validate`), so that a mistake in one never hides those in another.
What no single table can know (names of sites, contradicting keys) is in `checks`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from replicator.config.secrets import Secret
from replicator.config.syntax import (
    CAPABILITY,
    DURATION,
    FILE,
    INCLUDE,
    NAME,
    PATH,
    PATTERN,
    PROXY,
    REGEX,
    REPOSITORIES,
    SECRET,
    SEMVER,
    SIZE,
    STATE,
    URL,
    OneOrMany,
    RepositoryPattern,
)
from replicator.policy.pattern import TagPattern
from replicator.policy.rule import Pin, Sort
from replicator.policy.semver import SemverRange
from replicator.sites.registry.settings import DEFAULT_CONCURRENCY


class Table(BaseModel):
    """Any table of the config: unknown keys are errors, and a value has the TOML type that it should have."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        defer_build=True,
        regex_engine="python-re",
    )


def _key(description: str, default: Any = ..., **constraints: Any) -> Any:
    """A key with what the reference says about it. A default in the config's own syntax is parsed like any value."""
    return Field(default, description=description, validate_default=isinstance(default, str), **constraints)


def table_in(annotation: Any) -> type[Table] | None:
    """The table that a key of this type holds, itself or as items of a list; None for any other type."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return annotation
    return next((table for part in get_args(annotation) if (table := table_in(part))), None)


class CacheTable(Table):
    """Where blobs lie for a moment on their way to several destinations."""

    path: Annotated[Path | None, PATH] = _key(
        "Folder of the spool. Default: `$CACHE_DIRECTORY`, else `$XDG_CACHE_HOME/replicator`, else `~/.cache/replicator`.",
        None,
    )
    max_bytes: Annotated[int, SIZE] = _key(
        "Bytes that the spool may hold; when it is full, blobs stream.", "20GB"
    )


class AgentTable(Table):
    """This agent. All keys have defaults, so the table may be left out."""

    name: Annotated[str | None, NAME] = _key("This data center, in reports. Default: the host's name.", None)
    serves: list[str] | None = _key(
        "Replicate only to these sites, so that all sites can share one config. Default: all sites.",
        None,
        min_length=1,
    )
    state: Annotated[Path | None, STATE] = _key(
        "Where the agent remembers what it did: `sqlite:///` and an absolute path. Default: `state.db` in "
        "`$STATE_DIRECTORY`, else in `$XDG_STATE_HOME/replicator`, else in `~/.local/state/replicator`.",
        None,
    )
    cache: CacheTable = _key("Spool for blobs that feed several destinations.", default_factory=CacheTable)


class TLSTable(Table):
    """TLS of one site."""

    ca: Annotated[Path | None, FILE] = _key("PEM file of certificates to trust beside the system's.", None)
    cert: Annotated[Path | None, FILE] = _key("PEM file of the client's certificate; needs `key`.", None)
    key: Annotated[Path | None, FILE] = _key("PEM file of the client's private key; needs `cert`.", None)
    verify: bool = _key("`false` accepts any certificate of the server, with a warning.", True)


class LimitsTable(Table):
    """Upper bounds of what is asked of one site."""

    concurrency: int = _key(
        "Small requests, blob reads and blob writes at once, each. An upper bound: fewer where the site throttles.",
        DEFAULT_CONCURRENCY,
        ge=1,
        le=1000,
    )
    requests_per_second: float | None = _key(
        "Requests a second. Default: no limit.", None, gt=0, allow_inf_nan=False
    )
    bytes_per_second: Annotated[int | None, SIZE] = _key(
        "Bytes a second, reading and writing together. Default: no limit.", None
    )


class QuotaTable(Table):
    """What to do where a registry counts pulls (Docker Hub)."""

    reserve: int = _key("Pulls to leave to others.", 0, ge=0)
    below: Literal["wait", "stop"] = _key(
        "When only the reserve is left: `wait` until there are more, or `stop` asking this site in this run.",
        "wait",
    )


class SiteTable(Table):
    """One registry."""

    url: Annotated[str, URL] = _key("`https://` or `http://`, host, and where needed port and path prefix.")
    username: str | None = _key("User name; goes with `password` or `identity_token`.", None, min_length=1)
    password: Annotated[Secret | None, SECRET] = _key("Password or access token of `username`.", None)
    identity_token: Annotated[Secret | None, SECRET] = _key(
        "OAuth2 refresh token, instead of a password.", None
    )
    bearer_token: Annotated[Secret | None, SECRET] = _key(
        "Ready token, sent as it is as `Authorization: Bearer`, instead of a password.", None
    )
    docker_config: bool = _key(
        "With no credentials here, look where docker and podman keep theirs; `false`: anonymous.", True
    )
    tls: TLSTable = _key("Certificates.", default_factory=TLSTable)
    proxy: Annotated[str | None, PROXY] = _key(
        'HTTP proxy, `""` for none. Default: as `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say.',
        None,
        repr=False,
    )
    limits: LimitsTable = _key("Upper bounds of what is asked of the site.", default_factory=LimitsTable)
    quota: QuotaTable = _key(
        "What to do when the registry's own pull quota runs low.", default_factory=QuotaTable
    )
    capabilities: dict[str, Annotated[bool | int | str, CAPABILITY]] = _key(
        "What this registry can do, where replicator finds out wrongly; see below.", default_factory=dict
    )


class ReplacementTable(Table):
    """One replacement of `regex`."""

    match: Annotated[re.Pattern[str], REGEX] = _key(
        "Regular expression (Python's `re`); every match is replaced."
    )
    replace: str = _key(r"What replaces it; `\1` and `\g<name>` are groups.")

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

    strip: str = _key("Taken off the front, where it is there.", "")
    prefix: str = _key("Put before.", "")
    suffix: str = _key("Put after.", "")
    regex: list[ReplacementTable] = _key("Replacements, in order, after `strip`.", default_factory=list)


class RenameTable(RenameTagsTable):
    """How a repository is called at the destination: strip, then regex in order, then prefix and suffix."""

    tags: RenameTagsTable = _key("The same four keys for tags.", default_factory=RenameTagsTable)


class TagsTable(Table):
    """Which tags: all keys of one table must agree; exclude wins."""

    include: list[Annotated[TagPattern | Pin, INCLUDE]] | None = _key(
        "Any of these: globs, exact tags, `re:` and a regular expression for the whole tag, `TAG@sha256:...` (that "
        "tag, that digest), `sha256:...` (by digest alone). Default: all tags.",
        None,
        min_length=1,
    )
    exclude: list[Annotated[TagPattern, PATTERN]] = _key("None of these patterns.", default_factory=list)
    semver: Annotated[SemverRange | None, SEMVER] = _key(
        'Only versions in this range, as `">=1.2 <2"`; other tags are left out and counted.', None
    )
    sort: Sort = _key(
        "What `latest` counts by; tags without that property are left out and counted.", "semver"
    )
    latest: int | None = _key("Only so many, the last of the sort.", None, ge=1)
    newer_than: Annotated[float | None, DURATION] = _key("Only images created within this time.", None)
    min_tags: int = _key("Fewer than this in a repository is a failure.", 0, ge=0)
    immutable: list[Annotated[TagPattern, PATTERN]] = _key(
        "Tags that never move: once present at a destination, they are not asked for again.",
        default_factory=list,
    )


class RuleTable(Table):
    """What is replicated from where to where."""

    name: Annotated[str, NAME] = _key("Name of the rule, in reports, metrics and `--rule`.")
    source: str = _key("Site that decides what exists.")
    mirrors: list[str] = _key(
        "Sites asked first for the source's content, by digest only.", default_factory=list
    )
    destinations: list[str] = _key("Sites that are to hold the same.", min_length=1)
    repositories: list[Annotated[RepositoryPattern, REPOSITORIES]] = _key(
        "Exact names and globs; `*` stays within one path component, `**` crosses, `!` before a pattern takes away.",
        min_length=1,
    )
    tags: Annotated[list[TagsTable], OneOrMany()] = _key(
        "Which tags; a list of such tables: any of them. Default: all tags.", default_factory=list
    )
    rename: RenameTable = _key(
        "How repositories and tags are called at the destinations.", default_factory=RenameTable
    )
    interval: Annotated[float | None, DURATION] = _key(
        "How often the rule is meant to run; `status` shows a rule that is overdue. `sync` runs once, whatever it says.",
        None,
    )
    recheck: Annotated[float, DURATION] = _key(
        "Each tag is looked up at its destination at least this often, whatever the state remembers.", "24h"
    )
