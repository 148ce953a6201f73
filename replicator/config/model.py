"""The config's tables, key by key: the one source of validation, JSON Schema, reference and example.

One table is validated at a time (`problems.validate`), so that a mistake in one never hides those in another.
What no single table can know (names of sites, contradicting keys) is in `checks`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from replicator.config.secrets import Secret
from replicator.config.syntax import (
    ARGUMENT,
    CAPABILITY,
    CRON,
    DAYS,
    DURATION,
    ENDPOINT,
    FILE,
    HEADER,
    INCLUDE,
    LISTEN,
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
    TEMPLATE,
    TIME,
    TIMEZONE,
    URL,
    OneOrMany,
    Rate,
    RepositoryPattern,
)
from replicator.flow.settings import DEFAULT_CONCURRENCY
from replicator.policy.bandwidth import LocalTime
from replicator.policy.pattern import TagPattern
from replicator.policy.rule import Pin, Sort
from replicator.policy.schedule import Cron
from replicator.policy.semver import SemverRange
from replicator.sites.layouts.settings import Layout


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


def keys_of(model: type[Table]) -> dict[str, FieldInfo]:
    """The keys of a table as they are written."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


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
    listen: Annotated[tuple[str, int], LISTEN] = _key(
        "Where `run` serves metrics, health, webhooks, API and status page. Beyond loopback it needs `http.token`.",
        "127.0.0.1:9650",
    )
    timezone: Annotated[ZoneInfo, TIMEZONE] = _key(
        "Time zone of `cron` and of bandwidth windows that name none.", "UTC"
    )
    metrics_per_repository: int = _key(
        "So many repositories that are behind have series of their own in `/metrics`, those furthest behind first; the "
        "rest is counted. See [metrics](metrics.md).",
        0,
        ge=0,
        le=10_000,
    )


class ServerTLSTable(Table):
    """The certificate that the agent shows."""

    cert: Annotated[Path, FILE] = _key("PEM file of the certificate and what leads up to its CA.")
    key: Annotated[Path, FILE] = _key("PEM file of its private key.")


class HTTPTable(Table):
    """What `run` asks of those who connect to `agent.listen`."""

    token: Annotated[Secret | None, SECRET] = _key(
        "Token for whatever changes something, and, beyond loopback, for everything but health: as "
        "`Authorization: Bearer`, or as the password of Basic.",
        None,
    )
    tls: ServerTLSTable | None = _key("Serve HTTPS with this certificate. Default: plain HTTP.", None)
    metrics_open: bool = _key("`true`: `/metrics` needs no token.", False)
    hosts: list[str] = _key(
        "Names under which the agent is reached, beside loopback's, its addresses and the host's own; requests that "
        "change something under another name are refused.",
        default_factory=list,
    )


class HMACTable(Table):
    """A signature over the body, for senders that sign."""

    header: Annotated[str, HEADER] = _key(
        "Header that holds the hexadecimal HMAC-SHA256, plain or after `sha256=`."
    )
    secret: Annotated[Secret, SECRET] = _key("Key of the signature.")


class HookTable(Table):
    """A webhook, `POST /hooks/NAME`: a site's own notifications make its rules look at once."""

    site: str = _key("Site that sends them.")
    token: Annotated[Secret | None, SECRET] = _key(
        "What the sender has in `Authorization`, as `Bearer TOKEN` or as it is.", None
    )
    hmac: HMACTable | None = _key("A signature over the body, instead of a token.", None)


class NotifyTable(Table):
    """Whom to tell when replication breaks, recovers or falls behind. Success is never told."""

    url: Annotated[Secret | None, SECRET] = _key(
        "Where to POST JSON (Slack's incoming webhooks and what understands them). Often a secret itself.",
        None,
    )
    template: Annotated[Any, TEMPLATE] = _key(
        "The JSON that is posted; `{event}`, `{rule}`, `{source}`, `{destination}`, `{agent}`, `{time}`, `{lag}`, "
        "`{error}` and `{summary}` in its strings are filled in.",
        '{"text": "{summary}"}',
    )
    command: list[Annotated[str, ARGUMENT]] | None = _key(
        "Command and arguments to run instead, without a shell; it gets the facts as JSON on stdin.",
        None,
        min_length=1,
    )
    on: list[Literal["failure", "recovery", "stale"]] = _key(
        "What to tell. Default: all three.",
        default_factory=lambda: ["failure", "recovery", "stale"],
        min_length=1,
    )
    stale_after: Annotated[float, DURATION] = _key("Lag from which a destination is stale.", "1h")
    timeout: Annotated[float, DURATION] = _key("How long one attempt may take; there are three.", "10s")


class TLSTable(Table):
    """TLS of one site."""

    ca: Annotated[Path | None, FILE] = _key("PEM file of certificates to trust beside the system's.", None)
    cert: Annotated[Path | None, FILE] = _key("PEM file of the client's certificate; needs `key`.", None)
    key: Annotated[Path | None, FILE] = _key("PEM file of the client's private key; needs `cert`.", None)
    verify: bool = _key("`false` accepts any certificate of the server, with a warning.", True)


class WindowTable(Table):
    """Some hours of some days."""

    days: Annotated[frozenset[int], DAYS] = _key(
        "Days, as `mon-fri` or `sat,sun`. A window that passes midnight belongs to the day it begins.",
        "mon-sun",
    )
    from_: Annotated[LocalTime, TIME] = _key("When it begins, `HH:MM`.", alias="from")
    to: Annotated[LocalTime, TIME] = _key("When it ends, `HH:MM`; `24:00` is midnight.")
    limit: Annotated[int, SIZE] = _key("Bytes a second meanwhile.")


class BandwidthTable(Table):
    """Bytes a second by time of day. The first window that holds counts."""

    default: Annotated[int | None, SIZE] = _key("Outside of all windows. Default: no limit.", None)
    windows: list[WindowTable] = _key("When another limit holds.", default_factory=list)
    timezone: Annotated[ZoneInfo | None, TIMEZONE] = _key(
        "Time zone of the windows. Default: `agent.timezone`.", None
    )


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
    bytes_per_second: Annotated[BandwidthTable | None, Rate()] = _key(
        "Bytes a second, reading and writing together; a table varies it by time of day. Default: no limit.",
        None,
    )


class QuotaTable(Table):
    """What to do where a registry counts pulls (Docker Hub)."""

    reserve: int = _key("Pulls to leave to others.", 0, ge=0)
    below: Literal["wait", "stop"] = _key(
        "When only the reserve is left: `wait` until there are more, or `stop` asking this site in this run.",
        "wait",
    )


class SiteTable(Table):
    """One registry, bucket or directory. The `url` tells which; a key that does not fit is an error."""

    url: Annotated[str, URL] = _key(
        "A registry: `https://` or `http://`, host, and where needed port and path prefix. An S3-compatible bucket: "
        "`s3://BUCKET` or `s3://BUCKET/PREFIX`. A directory: `file:///PATH`."
    )
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
    layout: Layout | None = _key(
        "Bucket or directory: how images lie there, see [layouts](layouts.md). Default: `distribution` in a bucket, "
        "`oci` in a directory.",
        None,
    )
    endpoint: Annotated[str | None, ENDPOINT] = _key(
        "Bucket: URL of the store. Default: AWS, or `AWS_ENDPOINT_URL`.", None
    )
    region: str | None = _key(
        "Bucket: its region. Default: as environment or profile say, else `us-east-1`.", None, min_length=1
    )
    path_style: bool | None = _key(
        "Bucket: its name in the URL's path (`true`) or host. Default: in the path where there is an `endpoint`.",
        None,
    )
    profile: str | None = _key(
        "Bucket: a profile of `~/.aws`, instead of keys. With neither: environment, container or instance role.",
        None,
        min_length=1,
    )
    access_key: Annotated[Secret | None, SECRET] = _key("Bucket: access key; goes with `secret_key`.", None)
    secret_key: Annotated[Secret | None, SECRET] = _key("Bucket: secret key of `access_key`.", None)
    session_token: Annotated[Secret | None, SECRET] = _key("Bucket: for temporary keys.", None)
    sse: Literal["AES256", "aws:kms"] | None = _key(
        "Bucket: how the store encrypts what is written. Default: as the bucket has it.", None
    )
    kms_key: str | None = _key(
        'Bucket: key for `sse = "aws:kms"`. Default: the account\'s.', None, min_length=1
    )
    storage_class: str | None = _key(
        "Bucket: storage class of what is written, as `STANDARD_IA`. Default: the bucket's.",
        None,
        min_length=1,
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


class RuleHooksTable(Table):
    """Commands around each run of a rule, by `run` and `sync`: argument lists, no shell. They get JSON on stdin."""

    before: list[Annotated[str, ARGUMENT]] | None = _key(
        "Run before, told what is going to run.", None, min_length=1
    )
    before_required: bool = _key("The run is given up, as failed, where `before` fails.", True)
    after: list[Annotated[str, ARGUMENT]] | None = _key("Run after, told the report.", None, min_length=1)
    timeout: Annotated[float, DURATION] = _key("A command that takes longer is killed, and has failed.", "1m")


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
        "How often the rule runs; `status` shows a rule that is overdue. `sync` runs once, whatever it says.",
        None,
    )
    cron: Annotated[Cron | None, CRON] = _key(
        "When the rule runs, as five cron fields; instead of `interval`. With neither, `run` looks once at its start, "
        "then when asked or told by a webhook.",
        None,
    )
    timezone: Annotated[ZoneInfo | None, TIMEZONE] = _key(
        "Time zone of `cron`. Default: `agent.timezone`.", None
    )
    recheck: Annotated[float, DURATION] = _key(
        "Each tag is looked up at its destination at least this often, whatever the state remembers.", "24h"
    )
    hooks: RuleHooksTable = _key("Commands around each run.", default_factory=RuleHooksTable)
