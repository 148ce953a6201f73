"""Builds the program's settings from validated tables, free of the syntax of the config."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from replicator.config.imagelist import listed_rules
from replicator.config.model import (
    AgentTable,
    AuthTable,
    CreateTable,
    HTTPTable,
    LimitsTable,
    NotifyTable,
    RenameTagsTable,
    RuleTable,
    SiteTable,
    TagsTable,
    TimeoutsTable,
    TLSTable,
    WebhookTable,
)
from replicator.config.settings import (
    AgentSettings,
    HMACSettings,
    HTTPSettings,
    NotifySettings,
    OIDCSettings,
    RunCommands,
    SecretHeader,
    ServerTLS,
    WebhookSettings,
)
from replicator.config.trust import build_trust
from replicator.config.urls import parse_bucket, parse_directory
from replicator.flow.settings import LimitSettings
from replicator.lists.reading import Reading
from replicator.model.names import hub_url
from replicator.policy.bandwidth import Bandwidth, Window
from replicator.policy.pattern import Glob, TagPattern
from replicator.policy.platforms import Platforms
from replicator.policy.referrers import ReferrerFilter
from replicator.policy.rule import Pin, Rename, Replacement, RepositorySelection, Rule, TagSelection
from replicator.sites.layouts.settings import LayoutSettings
from replicator.sites.objects.settings import LocalSettings, S3Keys, S3Settings
from replicator.sites.open import SiteSettings
from replicator.sites.registry.identity.settings import (
    AcrIdentity,
    EcrIdentity,
    GitHubIdentity,
    GoogleIdentity,
    Identity,
)
from replicator.sites.registry.settings import TLS, Login, Quota, RegistrySettings
from replicator.sites.registry.vendors.creation import CreateSettings
from replicator.sites.registry.vendors.senders import FORMATS
from replicator.sites.timeouts import Timeouts
from replicator.state.place import PostgresPlace


def build_agent(table: AgentTable, sites: tuple[str, ...], environ: Mapping[str, str]) -> AgentSettings:
    """The agent with its defaults.

    Raises:
        ValueError: the default directory of the state or cache cannot be determined. Says which key to set.
    """
    state = table.state or (
        _folder(environ, "STATE_DIRECTORY", "XDG_STATE_HOME", ".local/state", "state") / "state.db"
    )
    if isinstance(state, PostgresPlace):
        state = dataclasses.replace(state, password=table.state_password)
    cache = table.cache.path or _folder(environ, "CACHE_DIRECTORY", "XDG_CACHE_HOME", ".cache", "cache")
    return AgentSettings(
        name=table.name or os.uname().nodename or "localhost",
        serves=sites if table.serves is None else tuple(table.serves),
        state=state,
        cache_path=cache,
        cache_max_bytes=table.cache.max_bytes,
        listen=table.listen,
        timezone=table.timezone,
        metrics_per_repository=table.metrics_per_repository,
        stuck_after=table.stuck_after,
        full_index=table.index == "full",
    )


def build_http(table: HTTPTable) -> HTTPSettings:
    """The settings of the agent's HTTP server."""
    tls = ServerTLS(table.tls.cert, table.tls.key) if table.tls else None
    return HTTPSettings(table.token, tls, table.metrics_open, tuple(table.hosts))


def build_webhook(name: str, table: WebhookTable) -> WebhookSettings:
    """One webhook. `checks` reports headers that neither the table nor its kind names."""
    sender = FORMATS.get(table.kind or "")
    signature = sender.signature if sender else None
    hmac = header = oidc = None
    if table.hmac is not None:
        hmac = HMACSettings(
            table.hmac.header or (signature.header if signature else ""),
            table.hmac.secret,
            table.hmac.algorithm or (signature.algorithm if signature else "sha256"),
        )
    if table.header is not None:
        name_of_header = table.header.name or (sender and sender.secret_header) or ""
        header = SecretHeader(name_of_header, table.header.value)
    if table.oidc is not None:
        told = table.oidc
        oidc = OIDCSettings(told.audience, told.email, told.issuer, told.keys_file or told.keys_url)
    return WebhookSettings(
        name=name,
        site=table.site,
        token=table.token,
        hmac=hmac,
        header=header,
        url_token=table.url_token,
        oidc=oidc,
        kind=table.kind,
        hosts=frozenset(host.lower() for host in table.hosts),
    )


def build_notify(name: str, table: NotifyTable) -> NotifySettings:
    """One receiver of notifications."""
    return NotifySettings(
        name=name,
        url=table.url,
        template=table.template,
        command=tuple(table.command or ()),
        on=frozenset(table.on),
        stale_after=table.stale_after,
        timeout=table.timeout,
        env=table.env,
    )


def build_commands(table: RuleTable) -> RunCommands | None:
    """The commands before and after a rule's runs; None if it has none."""
    hooks = table.hooks
    if not hooks.before and not hooks.after:
        return None
    before, after = tuple(hooks.before or ()), tuple(hooks.after or ())
    return RunCommands(before, hooks.before_required, after, hooks.timeout, hooks.env)


def build_bandwidth(table: LimitsTable, timezone: ZoneInfo) -> Bandwidth | None:
    """The limit by time of day; None if it does not vary. `timezone`: the agent's."""
    rate = table.bytes_per_second
    if rate is None or not rate.windows:
        return None
    windows = tuple(Window(each.days, each.from_, each.to, each.limit) for each in rate.windows)
    return Bandwidth(rate.default, windows, rate.timezone or timezone)


def build_site(name: str, table: SiteTable) -> SiteSettings:
    """One site's settings."""
    limits, rate = table.limits, table.limits.bytes_per_second
    bounds = LimitSettings(limits.concurrency, limits.requests_per_second, rate.default if rate else None)
    if table.url.startswith("s3://"):
        return LayoutSettings(_bucket(name, table, bounds), table.layout or "distribution")
    if table.url.startswith("file://"):
        directory = LocalSettings(name, parse_directory(table.url), bounds, table.must_exist)
        return LayoutSettings(directory, table.layout or "oci")
    return _registry(name, table, bounds)


def _bucket(name: str, table: SiteTable, limits: LimitSettings) -> S3Settings:
    bucket, prefix = parse_bucket(table.url)
    keys = None
    if table.access_key and table.secret_key:
        keys = S3Keys(table.access_key, table.secret_key, table.session_token)
    return S3Settings(
        name=name,
        bucket=bucket,
        prefix=prefix,
        endpoint=table.endpoint,
        region=table.region,
        path_style=table.path_style,
        profile=table.profile,
        keys=keys,
        sse=table.sse,
        kms_key=table.kms_key,
        storage_class=table.storage_class,
        limits=limits,
        timeouts=_timeouts(table.timeouts),
        max_blob_bytes=table.max_blob_bytes,
    )


def _registry(name: str, table: SiteTable, limits: LimitSettings) -> RegistrySettings:
    login = None
    if table.username or table.password or table.identity_token or table.bearer_token:
        login = Login(table.username or "", table.password, table.identity_token, table.bearer_token)
    hub = hub_url(table.url)
    return RegistrySettings(
        name=name,
        url=hub or table.url,
        written_as="" if hub in {None, table.url} else table.url,
        login=login,
        identity=_identity(table.auth) if table.auth else None,
        docker_config=table.docker_config,
        tls=_client_tls(table.tls),
        proxy=table.proxy,
        limits=limits,
        quota=Quota(table.quota.reserve, table.quota.below),
        kind=table.kind or "",
        capabilities=dict(table.capabilities),
        timeouts=_timeouts(table.timeouts),
        redirects=table.redirects,
        private_addresses=table.private_addresses,
        max_blob_bytes=table.max_blob_bytes,
        parallel_reads=table.parallel_reads,
        realm=table.auth.realm if table.auth else None,
        create=_create(table.create),
    )


def _create(table: CreateTable | None) -> CreateSettings | None:
    if table is None:
        return CreateSettings()
    if not table.enabled:
        return None
    return CreateSettings(
        is_asked=True,
        public=table.public,
        immutability=table.immutability,
        exclusions=tuple(table.exclusions or ()),
        scan_on_push=table.scan_on_push,
        encryption=table.encryption,
        kms_key=table.kms_key,
        tags=table.tags or {},
        policy=table.policy,
        lifecycle=table.lifecycle,
        quota=table.quota,
        location=table.location or "",
        token=table.token,
        api=table.api or "",
    )


def _identity(table: AuthTable) -> Identity | None:
    match table.kind:
        case "ecr":
            return EcrIdentity(
                table.profile, table.role_arn, table.external_id, table.region, table.registry_id
            )
        case "acr":
            return AcrIdentity(table.tenant, table.client_id, table.client_secret, table.assertion_file)
        case "google":
            return GoogleIdentity(table.key_file, table.impersonate)
        case "github" if table.app_id and table.installation_id and table.private_key:
            identity = GitHubIdentity(table.app_id, table.installation_id, table.private_key)
            return identity if table.api is None else replace(identity, api=table.api)
        case _:
            return None


def _timeouts(table: TimeoutsTable) -> Timeouts:
    return Timeouts(table.connect, table.first_byte, table.read, table.commit, table.minimum_rate)


def _client_tls(table: TLSTable) -> TLS:
    return TLS(table.ca, table.cert, table.key, table.verify, _seen(table.ca, table.cert, table.key))


def _seen(*files: Path | None) -> tuple[tuple[int, ...], ...]:
    """A value that changes when a file is replaced or written. Missing files are reported when the site is opened."""
    found = []
    for file in files:
        with contextlib.suppress(OSError):
            if file is not None:
                stat = file.stat()
                found.append((stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def build_rules(
    table: RuleTable, timezone: ZoneInfo, sites: Mapping[str, SiteSettings], *, from_hub: bool = False
) -> list[Rule]:
    """The rule, or one for each site that its image lists may name. Raises ValueError."""
    rule = build_rule(table, timezone, from_hub=from_hub)
    if table.images is None:
        return [rule]
    reading = Reading(
        table.images.format,
        tuple(table.images.paths),
        profiles=None if table.images.profiles is None else frozenset(table.images.profiles),
    )
    return list(listed_rules(rule, table.images.files, reading, sites))


def build_rule(table: RuleTable, timezone: ZoneInfo, *, from_hub: bool = False) -> Rule:
    """One rule, its image lists aside. `timezone`: the agent's. `from_hub`: the source is Docker Hub, whose `alpine` is `library/alpine`."""
    patterns = table.repositories or []
    return Rule(
        name=table.name,
        source=table.source or "",
        destinations=tuple(table.destinations),
        repositories=RepositorySelection(
            include=tuple(
                _glob(pattern.glob, from_hub=from_hub) for pattern in patterns if not pattern.negated
            ),
            exclude=tuple(_glob(pattern.glob, from_hub=from_hub) for pattern in patterns if pattern.negated),
        ),
        tags=tuple(_selection(tags) for tags in table.tags) or (TagSelection(),),
        mirrors=tuple(table.mirrors),
        rename_repository=_rename(table.rename),
        rename_tag=_rename(table.rename.tags),
        recheck=table.recheck,
        verify_every=table.verify_every,
        referrers=table.referrers.mode,
        referrer_filter=ReferrerFilter(
            include=tuple(table.referrers.include or ()),
            exclude=tuple(table.referrers.exclude),
            require=tuple(table.referrers.require),
        ),
        referrers_recheck=table.referrers_recheck,
        platforms=_platforms(table),
        foreign_layers=table.foreign_layers,
        trust=build_trust(table.trust),
        interval=table.interval,
        cron=None if table.cron is None else replace(table.cron, timezone=table.timezone or timezone),
    )


def _platforms(table: RuleTable) -> Platforms | None:
    if table.platforms is None:
        return None
    return Platforms(tuple(table.platforms), table.platform_mode, table.missing_platform)


def _glob(glob: Glob, *, from_hub: bool) -> Glob:
    is_official = from_hub and glob.exact is not None and "/" not in glob.exact
    return Glob.parse(f"library/{glob.exact}") if is_official else glob


def _selection(table: TagsTable) -> TagSelection:
    include = table.include or []
    return TagSelection(
        include=tuple(item for item in include if isinstance(item, TagPattern)),
        exclude=tuple(table.exclude),
        pins=tuple(item for item in include if isinstance(item, Pin)),
        semver=table.semver,
        sort=table.sort,
        latest=table.latest,
        newer_than=table.newer_than,
        min_tags=table.min_tags,
        immutable=tuple(table.immutable),
    )


def _rename(table: RenameTagsTable) -> Rename:
    replacements = tuple(Replacement(item.match, item.replace) for item in table.regex)
    return Rename(table.strip, table.prefix, table.suffix, replacements)


def _folder(environ: Mapping[str, str], systemd: str, xdg: str, below_home: str, what: str) -> Path:
    """Systemd's directory (the first of several), else XDG's. A relative XDG variable is ignored, as XDG specifies."""
    if given := environ.get(systemd, "").partition(":")[0]:
        if not Path(given).is_absolute():
            raise ValueError(
                f"${systemd} is the relative path {given!r}; make it absolute, or set agent.{what}"
            )
        return Path(given)
    base = Path(environ.get(xdg, ""))
    if base.is_absolute():
        return base / "replicator"
    home = Path(environ.get("HOME", ""))
    if not home.is_absolute():
        raise ValueError(f"has no default without ${systemd}, ${xdg} or $HOME; set agent.{what}")
    return home / below_home / "replicator"
