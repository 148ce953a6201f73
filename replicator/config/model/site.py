"""The tables of a site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from replicator.config.model.table import Table, setting
from replicator.config.secrets import Secret
from replicator.config.short import ShortFor
from replicator.config.syntax import (
    CAPABILITY,
    DAYS,
    DURATION,
    ENDPOINT,
    EXCLUSION,
    FILE,
    JSON_FILE,
    KIND,
    PROXY,
    SECRET,
    SIZE,
    TIME,
    TIMEZONE,
    URL,
)
from replicator.flow.settings import DEFAULT_CONCURRENCY
from replicator.policy.bandwidth import LocalTime
from replicator.sites.layouts.settings import Layout


class TLSTable(Table):
    """TLS to one site."""

    ca: Annotated[Path | None, FILE] = setting(
        "PEM file of CA certificates to trust in addition to the system's.", None
    )
    cert: Annotated[Path | None, FILE] = setting("PEM file of the client certificate; requires `key`.", None)
    key: Annotated[Path | None, FILE] = setting(
        "PEM file of the client's private key; requires `cert`.", None
    )
    verify: bool = setting("Verify the server's certificate. `false` logs a warning.", True)


class WindowTable(Table):
    """A period of the week."""

    days: Annotated[frozenset[int], DAYS] = setting(
        "Days, such as `mon-fri` or `sat,sun`. A window that crosses midnight belongs to the day on which it begins.",
        "mon-sun",
    )
    from_: Annotated[LocalTime, TIME] = setting("Start, `HH:MM`.", alias="from")
    to: Annotated[LocalTime, TIME] = setting("End, `HH:MM`; `24:00` is midnight.")
    limit: Annotated[int, SIZE] = setting("Bytes per second in this window.")


class BandwidthTable(Table):
    """Bytes per second by time of day. The first matching window applies."""

    default: Annotated[int | None, SIZE] = setting("Limit outside all windows. Default: no limit.", None)
    windows: list[WindowTable] = setting("Periods with a limit of their own.", default_factory=list)
    timezone: Annotated[ZoneInfo | None, TIMEZONE] = setting(
        "Time zone of the windows. Default: `agent.timezone`.", None
    )


class LimitsTable(Table):
    """Limits for one site."""

    concurrency: int = setting(
        "Maximum number of concurrent small requests. Blob reads and blob writes: the same number each, but at most 64, or half "
        "of the number if that is more. The numbers adapt to the site: they fall when it throttles.",
        DEFAULT_CONCURRENCY,
        ge=1,
        le=1000,
    )
    requests_per_second: float | None = setting(
        "Requests per second. Default: no limit.", None, gt=0, allow_inf_nan=False
    )
    bytes_per_second: Annotated[BandwidthTable | None, ShortFor("default", (str, int, float))] = setting(
        "Bytes per second, reads and writes together. A table varies the limit by time of day. Default: no limit.",
        None,
    )


class TimeoutsTable(Table):
    """Time limits for one registry or bucket. None of them limits the time for a whole blob."""

    connect: Annotated[float, DURATION] = setting("Time to connect, including TLS.", "30s")
    first_byte: Annotated[float, DURATION] = setting(
        "Time until the first byte of a blob. A pull-through cache fetches the blob before it answers.", "5m"
    )
    read: Annotated[float, DURATION] = setting(
        "Time until any other answer starts, between two reads of an answer, and until the site accepts more of "
        "an upload. A small answer must also end in this time, plus the time for its size at `minimum_rate`.",
        "1m",
    )
    commit: Annotated[float, DURATION] = setting(
        "Time for the answer to an uploaded blob or manifest, plus one second for every 10 MB: registries on object "
        "storage copy the blob before they answer.",
        "15m",
    )
    minimum_rate: Annotated[int, SIZE] = setting(
        "Minimum bytes per second of an answer, measured over `read`. Slower answers are aborted.", "1kB"
    )


class AuthTable(Table):
    """Credentials that a cloud issues, and who else may receive those of the site. See [credentials](credentials.md)."""

    kind: Literal["ecr", "acr", "google", "github"] | None = setting(
        "Who issues the credentials; replicator renews them ahead of expiry. Default: as the host name implies, after "
        "docker's and podman's credentials.",
        None,
    )
    profile: str | None = setting(
        "`ecr`: profile of `~/.aws`. Default: AWS's usual chain.", None, min_length=1
    )
    role_arn: str | None = setting(
        "`ecr`: role to assume.", None, pattern=r"^arn:[a-z-]+:iam::\d{12}:role/.+$"
    )
    external_id: str | None = setting("`ecr`: external ID for `role_arn`.", None, min_length=2)
    region: str | None = setting(
        "`ecr`: region, if the host name does not contain it.", None, pattern=r"^[a-z0-9-]+$"
    )
    registry_id: str | None = setting(
        "`ecr`: account that owns the registry, if the host name does not contain it.",
        None,
        pattern=r"^\d{12}$",
    )
    tenant: str | None = setting(
        "`acr`: tenant ID. Default: `AZURE_TENANT_ID`.", None, pattern=r"^[A-Za-z0-9.-]+$"
    )
    client_id: str | None = setting(
        "`acr`: application, or user-assigned managed identity. Default: `AZURE_CLIENT_ID`.",
        None,
        min_length=1,
    )
    client_secret: Annotated[Secret | None, SECRET] = setting(
        "`acr`: secret of the application. Default: `AZURE_CLIENT_SECRET`.", None
    )
    assertion_file: Annotated[Path | None, FILE] = setting(
        "`acr`: federated token of a workload identity. Default: `AZURE_FEDERATED_TOKEN_FILE`.", None
    )
    key_file: Annotated[Path | None, FILE] = setting(
        "`google`: key of a service account. Default: `GOOGLE_APPLICATION_CREDENTIALS`, else the metadata server. Other "
        "credential files (workload identity federation) require the extra `google`.",
        None,
    )
    impersonate: str | None = setting(
        "`google`: email of a service account to impersonate.", None, min_length=3
    )
    app_id: str | None = setting("`github`: ID of the GitHub App.", None, min_length=1)
    installation_id: str | None = setting("`github`: ID of its installation.", None, pattern=r"^\d+$")
    private_key: Annotated[Secret | None, SECRET] = setting("`github`: private key of the App (PEM).", None)
    api: Annotated[str | None, ENDPOINT] = setting(
        "`github`: URL of the API. Default: `https://api.github.com`.", None
    )
    realm: Annotated[str | None, ENDPOINT] = setting(
        "URL of the token service. Required if it uses `http` on a host other than the registry's, because credentials "
        "are not sent there otherwise.",
        None,
    )


class CreateTable(Table):
    """Repositories that must exist before a push. See [creation](creation.md); which keys apply depends on the registry."""

    enabled: bool = setting(
        "Create missing repositories. `create = false` is short for `{ enabled = false }`.", True
    )
    public: bool | None = setting(
        "Harbor, Quay, GitLab, Docker Hub: whether everybody may pull. Required for Docker Hub. Default: `false`.",
        None,
    )
    quota: Annotated[int | None, SIZE] = setting(
        "Harbor: storage quota of a project. Default: Harbor's.", None
    )
    immutability: Literal["MUTABLE", "IMMUTABLE"] | None = setting(
        "ECR, Artifact Registry: whether tags can be moved. Default: the registry's.", None
    )
    exclusions: list[Annotated[str, EXCLUSION]] | None = setting(
        "ECR: tags to which the opposite of `immutability` applies, with `*`, such as `sha256-*`; requires `immutability`.",
        None,
        min_length=1,
        max_length=5,
    )
    scan_on_push: bool | None = setting("ECR: scan images when they are pushed. Default: ECR's.", None)
    encryption: Literal["AES256", "KMS", "KMS_DSSE"] | None = setting(
        "ECR: encryption. Default: `AES256`.", None
    )
    kms_key: str | None = setting(
        'ECR with `encryption = "KMS"` or `"KMS_DSSE"`, Artifact Registry: key. Default: the cloud\'s own.',
        None,
        min_length=1,
    )
    tags: dict[str, str] | None = setting(
        "ECR: tags; Artifact Registry: labels. `created-by = replicator` is always added.", None
    )
    policy: Annotated[str | None, JSON_FILE] = setting("ECR: file with the repository policy (JSON).", None)
    lifecycle: Annotated[str | None, JSON_FILE] = setting("ECR: file with the lifecycle policy (JSON).", None)
    location: str | None = setting(
        "Artifact Registry: location, if the host name does not contain it.", None, pattern=r"^[a-z0-9-]+$"
    )
    token: Annotated[Secret | None, SECRET] = setting(
        "Quay: token of an OAuth application with the scope `repo:create`; GitLab: access token with the scope `api`.",
        None,
    )
    api: Annotated[str | None, ENDPOINT] = setting(
        "GitLab: URL of GitLab. Default: `https://gitlab.com` for `registry.gitlab.com`, else the registry's host.",
        None,
    )


class QuotaTable(Table):
    """Pull quota of registries that count pulls (Docker Hub)."""

    reserve: int = setting("Number of pulls to leave for others.", 0, ge=0)
    below: Literal["wait", "stop"] = setting(
        "When only the reserve is left: `wait` for more, or `stop` using this site in this run.",
        "wait",
    )


class SiteTable(Table):
    """One registry, bucket or directory. The scheme of `url` decides which; a key of another kind is an error."""

    url: Annotated[str, URL] = setting(
        "A registry: `https://` or `http://`, host, optional port and path prefix. An S3-compatible bucket: "
        "`s3://BUCKET` or `s3://BUCKET/PREFIX`. A directory: `file:///PATH`."
    )
    username: str | None = setting("User name; requires `password` or `identity_token`.", None, min_length=1)
    password: Annotated[Secret | None, SECRET] = setting("Password or access token of `username`.", None)
    identity_token: Annotated[Secret | None, SECRET] = setting(
        "OAuth2 refresh token, used instead of a password.", None
    )
    bearer_token: Annotated[Secret | None, SECRET] = setting(
        "Token sent unchanged as `Authorization: Bearer`, instead of a password.", None
    )
    docker_config: bool = setting(
        "Without credentials here, use those of docker and podman. `false`: access anonymously.", True
    )
    auth: AuthTable | None = setting("Credentials issued by a cloud, and the token service.", None)
    redirects: Literal["same-scheme", "any"] = setting(
        "Redirects to follow. `same-scheme`: to any host with the same scheme, for blobs and other content that a digest "
        "verifies. `any`: also from `https` to `http`, and for manifests, tags and listings.",
        "same-scheme",
    )
    max_blob_bytes: Annotated[int, SIZE] = setting(
        "Registry or bucket: a blob of more bytes is not copied, whatever its manifest says.", "100GB"
    )
    parallel_reads: int | None = setting(
        "Number of parts of a large blob (256 MB or more) that are read at the same time, by Range requests; 1: read it by one "
        "connection. Default: several, if one connection is slow, the destination waits for it, and few other blobs are being "
        "read. `copy` and `export`, which have no spool (`agent.cache`), always use one connection.",
        None,
        ge=1,
        le=32,
    )
    private_addresses: bool = setting(
        "Follow redirects to private and loopback addresses. Default: only if the registry itself is at one.",
        False,
    )
    tls: TLSTable = setting("Certificates and their verification.", default_factory=TLSTable)
    proxy: Annotated[str | None, PROXY] = setting(
        'HTTP proxy, `""` for none. Default: from `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.',
        None,
        repr=False,
    )
    limits: LimitsTable = setting("Limits on requests and bandwidth.", default_factory=LimitsTable)
    timeouts: TimeoutsTable = setting(
        "Registry or bucket: time limits for its answers.", default_factory=TimeoutsTable
    )
    quota: QuotaTable = setting(
        "Behavior when the registry's pull quota runs low.", default_factory=QuotaTable
    )
    kind: Annotated[str | None, KIND] = setting(
        "The registry's software or service, one of [these](registries/README.md). Default: recognized by host name or by "
        "its answers; Harbor and others on hosts of your own may have to be named.",
        None,
    )
    create: Annotated[CreateTable | None, ShortFor("enabled", (bool,))] = setting(
        "Create repositories (Harbor, GitLab: projects) that do not exist. Default: for ECR, Harbor and Artifact "
        "Registry; `true` or a table for others.",
        None,
    )
    capabilities: dict[str, Annotated[bool | int | str, CAPABILITY]] = setting(
        "Overrides for capabilities that replicator detects incorrectly; see below.", default_factory=dict
    )
    layout: Layout | None = setting(
        "Bucket or directory: storage format, see [layouts](layouts.md). Default: `distribution` in a bucket, `oci` in "
        "a directory.",
        None,
    )
    must_exist: bool | None = setting(
        "Directory: whether an empty or missing one is a failure (not mounted?). Default: once images were seen in it.",
        None,
    )
    endpoint: Annotated[str | None, ENDPOINT] = setting(
        "Bucket: URL of the store. Default: AWS, or `AWS_ENDPOINT_URL`.", None
    )
    region: str | None = setting(
        "Bucket: region. Default: from the environment or the profile, else `us-east-1`.", None, min_length=1
    )
    path_style: bool | None = setting(
        "Bucket: address it by path (`true`) or by host name (`false`). Default: by path if `endpoint` is set.",
        None,
    )
    profile: str | None = setting(
        "Bucket: profile of `~/.aws`, instead of keys. Without either: environment, container role or instance role.",
        None,
        min_length=1,
    )
    access_key: Annotated[Secret | None, SECRET] = setting("Bucket: access key; requires `secret_key`.", None)
    secret_key: Annotated[Secret | None, SECRET] = setting("Bucket: secret key for `access_key`.", None)
    session_token: Annotated[Secret | None, SECRET] = setting(
        "Bucket: session token of temporary keys.", None
    )
    sse: Literal["AES256", "aws:kms"] | None = setting(
        "Bucket: server-side encryption of new objects. Default: the bucket's setting.", None
    )
    kms_key: str | None = setting(
        'Bucket: KMS key for `sse = "aws:kms"`. Default: the account\'s default key.', None, min_length=1
    )
    storage_class: str | None = setting(
        "Bucket: storage class of new objects, such as `STANDARD_IA`. Default: the bucket's.",
        None,
        min_length=1,
    )
