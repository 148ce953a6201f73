"""What the HTTP side needs of the agent; `daemon.app.App` has it, and tests bring a small one of their own.

Everything here is read anew for each request, since a reload may change it; only where it listens, and which files hold
its certificate, is settled when listening starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from replicator.daemon.app import RuleStatus
from replicator.daemon.runs import Runs
from replicator.daemon.triggers import Triggers
from replicator.events import Events
from replicator.metrics import Metrics
from replicator.ports import Clock, Standing


class SecretPort(Protocol):
    """A secret by its place: calling it reads it. Raises ConfigError."""

    def __call__(self) -> str:
        """The secret, as it is now."""
        ...


class TLSPort(Protocol):
    """`[http].tls`: PEM files."""

    @property
    def cert(self) -> Path:
        """The certificate with its chain."""
        ...

    @property
    def key(self) -> Path:
        """Its private key."""
        ...


class HTTPPort(Protocol):
    """`[http]`. `hosts` are further names under which the agent is known, beside loopback's, addresses and the host's."""

    @property
    def token(self) -> SecretPort | None: ...  # noqa: D102 - the config's keys, described there
    @property
    def tls(self) -> TLSPort | None: ...  # noqa: D102
    @property
    def metrics_open(self) -> bool: ...  # noqa: D102
    @property
    def hosts(self) -> Sequence[str]: ...  # noqa: D102


class HMACPort(Protocol):
    """`[hook.NAME].hmac`."""

    @property
    def header(self) -> str: ...  # noqa: D102
    @property
    def secret(self) -> SecretPort: ...  # noqa: D102


class HookPort(Protocol):
    """`[hook.NAME]`: at least one of token and hmac is there."""

    @property
    def site(self) -> str: ...  # noqa: D102
    @property
    def token(self) -> SecretPort | None: ...  # noqa: D102
    @property
    def hmac(self) -> HMACPort | None: ...  # noqa: D102


class SitePort(Protocol):
    """A site's settings. `url` holds no secret."""

    @property
    def url(self) -> str: ...  # noqa: D102


class AgentPort(Protocol):
    """`[agent]`. `listen` is an address and a port; port 0 is any free one."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def listen(self) -> tuple[str, int]: ...  # noqa: D102


class ConfigPort(Protocol):
    """The config in force."""

    @property
    def agent(self) -> AgentPort: ...  # noqa: D102
    @property
    def http(self) -> HTTPPort: ...  # noqa: D102
    @property
    def hooks(self) -> Mapping[str, HookPort]: ...  # noqa: D102
    @property
    def sites(self) -> Mapping[str, SitePort]: ...  # noqa: D102


class AppPort(Protocol):
    """The agent, see `daemon.app.App`."""

    @property
    def events(self) -> Events: ...  # noqa: D102
    @property
    def clock(self) -> Clock: ...  # noqa: D102
    @property
    def metrics(self) -> Metrics: ...  # noqa: D102
    @property
    def triggers(self) -> Triggers: ...  # noqa: D102
    @property
    def runs(self) -> Runs: ...  # noqa: D102
    @property
    def started_at(self) -> float: ...  # noqa: D102
    @property
    def config(self) -> ConfigPort: ...  # noqa: D102
    @property
    def rules(self) -> Sequence[RuleStatus]: ...  # noqa: D102
    @property
    def problems(self) -> Sequence[str]: ...  # noqa: D102

    def standings(self) -> Sequence[tuple[Standing, float]]: ...  # noqa: D102

    async def pause(self, rule: str) -> None: ...  # noqa: D102

    async def resume(self, rule: str) -> None: ...  # noqa: D102

    def health(self) -> str | None: ...  # noqa: D102

    def ready(self) -> Sequence[str]: ...  # noqa: D102
