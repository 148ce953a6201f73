"""The tables of a site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from replicator.config.model.table import Table, setting
from replicator.config.secrets import Secret
from replicator.config.syntax import (
    CAPABILITY,
    DAYS,
    DURATION,
    ENDPOINT,
    FILE,
    PROXY,
    SECRET,
    SIZE,
    TIME,
    TIMEZONE,
    URL,
    Rate,
)
from replicator.flow.settings import DEFAULT_CONCURRENCY
from replicator.policy.bandwidth import LocalTime
from replicator.sites.layouts.settings import Layout


class TLSTable(Table):
    """TLS of one site."""

    ca: Annotated[Path | None, FILE] = setting("PEM file of certificates to trust beside the system's.", None)
    cert: Annotated[Path | None, FILE] = setting("PEM file of the client's certificate; needs `key`.", None)
    key: Annotated[Path | None, FILE] = setting("PEM file of the client's private key; needs `cert`.", None)
    verify: bool = setting("`false` accepts any certificate of the server, with a warning.", True)


class WindowTable(Table):
    """Some hours of some days."""

    days: Annotated[frozenset[int], DAYS] = setting(
        "Days, as `mon-fri` or `sat,sun`. A window that passes midnight belongs to the day it begins.",
        "mon-sun",
    )
    from_: Annotated[LocalTime, TIME] = setting("When it begins, `HH:MM`.", alias="from")
    to: Annotated[LocalTime, TIME] = setting("When it ends, `HH:MM`; `24:00` is midnight.")
    limit: Annotated[int, SIZE] = setting("Bytes a second meanwhile.")


class BandwidthTable(Table):
    """Bytes a second by time of day. The first window that holds counts."""

    default: Annotated[int | None, SIZE] = setting("Outside of all windows. Default: no limit.", None)
    windows: list[WindowTable] = setting("When another limit holds.", default_factory=list)
    timezone: Annotated[ZoneInfo | None, TIMEZONE] = setting(
        "Time zone of the windows. Default: `agent.timezone`.", None
    )


class LimitsTable(Table):
    """Upper bounds of what is asked of one site."""

    concurrency: int = setting(
        "Small requests, blob reads and blob writes at once, each. An upper bound: fewer where the site throttles.",
        DEFAULT_CONCURRENCY,
        ge=1,
        le=1000,
    )
    requests_per_second: float | None = setting(
        "Requests a second. Default: no limit.", None, gt=0, allow_inf_nan=False
    )
    bytes_per_second: Annotated[BandwidthTable | None, Rate()] = setting(
        "Bytes a second, reading and writing together; a table varies it by time of day. Default: no limit.",
        None,
    )


class TimeoutsTable(Table):
    """How patient replicator is with one registry. Nothing here limits how long a whole blob may take."""

    connect: Annotated[float, DURATION] = setting("To connect, TLS included.", "30s")
    first_byte: Annotated[float, DURATION] = setting(
        "Until the first byte of a blob comes; a pull-through cache fetches it first.", "5m"
    )
    read: Annotated[float, DURATION] = setting(
        "Until any other answer begins, between two pieces of an answer, and until the registry takes the next piece of "
        "an upload. A small answer must also end in this time, longer only by its size at `minimum_rate`.",
        "1m",
    )
    commit: Annotated[float, DURATION] = setting(
        "For the answer to a blob or manifest that was sent, plus a second for every 10 MB of it: registries on object "
        "stores copy the blob before they answer.",
        "15m",
    )
    minimum_rate: Annotated[int, SIZE] = setting(
        "Bytes a second that an answer must keep, measured over `read`. Slower ones are broken off.", "1kB"
    )


class QuotaTable(Table):
    """What to do where a registry counts pulls (Docker Hub)."""

    reserve: int = setting("Pulls to leave to others.", 0, ge=0)
    below: Literal["wait", "stop"] = setting(
        "When only the reserve is left: `wait` until there are more, or `stop` asking this site in this run.",
        "wait",
    )


class SiteTable(Table):
    """One registry, bucket or directory. The `url` tells which; a key that does not fit is an error."""

    url: Annotated[str, URL] = setting(
        "A registry: `https://` or `http://`, host, and where needed port and path prefix. An S3-compatible bucket: "
        "`s3://BUCKET` or `s3://BUCKET/PREFIX`. A directory: `file:///PATH`."
    )
    username: str | None = setting("User name; goes with `password` or `identity_token`.", None, min_length=1)
    password: Annotated[Secret | None, SECRET] = setting("Password or access token of `username`.", None)
    identity_token: Annotated[Secret | None, SECRET] = setting(
        "OAuth2 refresh token, instead of a password.", None
    )
    bearer_token: Annotated[Secret | None, SECRET] = setting(
        "Ready token, sent as it is as `Authorization: Bearer`, instead of a password.", None
    )
    docker_config: bool = setting(
        "With no credentials here, look where docker and podman keep theirs; `false`: anonymous.", True
    )
    tls: TLSTable = setting("Certificates.", default_factory=TLSTable)
    proxy: Annotated[str | None, PROXY] = setting(
        'HTTP proxy, `""` for none. Default: as `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say.',
        None,
        repr=False,
    )
    limits: LimitsTable = setting("Upper bounds of what is asked of the site.", default_factory=LimitsTable)
    timeouts: TimeoutsTable = setting("How patient to be with the registry.", default_factory=TimeoutsTable)
    quota: QuotaTable = setting(
        "What to do when the registry's own pull quota runs low.", default_factory=QuotaTable
    )
    capabilities: dict[str, Annotated[bool | int | str, CAPABILITY]] = setting(
        "What this registry can do, where replicator finds out wrongly; see below.", default_factory=dict
    )
    layout: Layout | None = setting(
        "Bucket or directory: how images lie there, see [layouts](layouts.md). Default: `distribution` in a bucket, "
        "`oci` in a directory.",
        None,
    )
    endpoint: Annotated[str | None, ENDPOINT] = setting(
        "Bucket: URL of the store. Default: AWS, or `AWS_ENDPOINT_URL`.", None
    )
    region: str | None = setting(
        "Bucket: its region. Default: as environment or profile say, else `us-east-1`.", None, min_length=1
    )
    path_style: bool | None = setting(
        "Bucket: its name in the URL's path (`true`) or host. Default: in the path where there is an `endpoint`.",
        None,
    )
    profile: str | None = setting(
        "Bucket: a profile of `~/.aws`, instead of keys. With neither: environment, container or instance role.",
        None,
        min_length=1,
    )
    access_key: Annotated[Secret | None, SECRET] = setting(
        "Bucket: access key; goes with `secret_key`.", None
    )
    secret_key: Annotated[Secret | None, SECRET] = setting("Bucket: secret key of `access_key`.", None)
    session_token: Annotated[Secret | None, SECRET] = setting("Bucket: for temporary keys.", None)
    sse: Literal["AES256", "aws:kms"] | None = setting(
        "Bucket: how the store encrypts what is written. Default: as the bucket has it.", None
    )
    kms_key: str | None = setting(
        'Bucket: key for `sse = "aws:kms"`. Default: the account\'s.', None, min_length=1
    )
    storage_class: str | None = setting(
        "Bucket: storage class of what is written, as `STANDARD_IA`. Default: the bucket's.",
        None,
        min_length=1,
    )
