"""The program's settings, free of the syntax of the config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from replicator.config.secrets import Secret
from replicator.config.template import Template
from replicator.policy.bandwidth import Bandwidth
from replicator.policy.rule import Rule
from replicator.sites.open import SiteSettings
from replicator.state.place import Place


class AgentSettings(msgspec.Struct, frozen=True):
    """This agent. `serves`: the destinations that it replicates to. Paths are absolute and may not exist yet."""

    name: str
    serves: tuple[str, ...]
    state: Place
    cache_path: Path
    cache_max_bytes: int
    listen: tuple[str, int]
    timezone: ZoneInfo
    metrics_per_repository: int = 0
    stuck_after: float = 1800.0
    full_index: bool = False


class ServerTLS(msgspec.Struct, frozen=True):
    """PEM files: the certificate with its chain, and its private key."""

    cert: Path
    key: Path


class HTTPSettings(msgspec.Struct, frozen=True):
    """Access to the agent. `hosts`: additional host names that it is reached by."""

    token: Secret | None = None
    tls: ServerTLS | None = None
    metrics_open: bool = False
    hosts: tuple[str, ...] = ()


class FleetSettings(msgspec.Struct, frozen=True):
    """Whether other agents share the work. `shards`: parts of a rule; `jobs`: how many of them this agent does at once.

    `heartbeat`: seconds between two. `split_bytes`: a repository that lacks so many becomes a job of its own.
    """

    enabled: bool = False
    shards: int = 64
    jobs: int = 8
    heartbeat: float = 3.0
    split_bytes: int = 4 * 1024**3


class HMACSettings(msgspec.Struct, frozen=True):
    """A signature: its header, its key and its hash."""

    header: str
    secret: Secret
    algorithm: str = "sha256"


class SecretHeader(msgspec.Struct, frozen=True):
    """A header with a secret value."""

    name: str
    value: Secret


class OIDCSettings(msgspec.Struct, frozen=True):
    """Required claims of an OpenID Connect token. `keys`: URL or file of the issuer's JWK set."""

    audience: str
    email: str
    issuer: str
    keys: str | Path


class WebhookSettings(msgspec.Struct, frozen=True):
    """One webhook: the site that sends it, and how its sender authenticates.

    `kind`: the only notifications to accept (a key of `vendors.senders.FORMATS`), None for all. `hosts`:
    additional names of the registry in them, in lower case.
    """

    name: str
    site: str
    token: Secret | None = None
    hmac: HMACSettings | None = None
    header: SecretHeader | None = None
    url_token: Secret | None = None
    oidc: OIDCSettings | None = None
    kind: str | None = None
    hosts: frozenset[str] = frozenset()


class NotifySettings(msgspec.Struct, frozen=True):
    """A receiver of notifications: `url` or `command`. Times in seconds; `env` as in `RunCommands`."""

    name: str
    url: Secret | None
    template: Template
    command: tuple[str, ...]
    on: frozenset[str]
    stale_after: float
    timeout: float
    env: Mapping[str, Secret] = msgspec.field(default_factory=dict)


class RunCommands(msgspec.Struct, frozen=True):
    """Commands before and after each run of a rule; empty means none. `timeout` in seconds, for each command.

    `env`: what the commands get beside the harmless part of our environment.
    """

    before: tuple[str, ...] = ()
    before_required: bool = True
    after: tuple[str, ...] = ()
    timeout: float = 60.0
    env: Mapping[str, Secret] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid config. `effective` is what `config show` prints: plain TOML types, secrets masked.

    `bandwidth` has only the sites whose limit varies by time of day, `commands` only the rules that have commands.
    """

    agent: AgentSettings
    sites: dict[str, SiteSettings]
    rules: tuple[Rule, ...]
    warnings: tuple[str, ...]
    files: tuple[Path, ...]
    effective: Mapping[str, Any] = field(repr=False)
    http: HTTPSettings = field(default_factory=HTTPSettings)
    fleet: FleetSettings = field(default_factory=FleetSettings)
    webhooks: Mapping[str, WebhookSettings] = field(default_factory=dict)
    notify: Mapping[str, NotifySettings] = field(default_factory=dict)
    bandwidth: Mapping[str, Bandwidth] = field(default_factory=dict)
    commands: Mapping[str, RunCommands] = field(default_factory=dict)
