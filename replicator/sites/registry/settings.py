"""What a registry site is told, free of the config's syntax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from replicator.flow.settings import LimitSettings
from replicator.sites.registry.identity.settings import Identity

DEFAULT_MAX_BLOB_BYTES: Final = 100_000_000_000
COMMITTED_BYTES_PER_SECOND: Final = 10_000_000
"""The slowest copy inside a registry's own object store that is waited for; 100 GB take up to three hours."""

ReadSecret = Callable[[], str]
"""Reads a secret where it lies (file, credential, environment); called again after an authentication failure.
Raises ConfigError naming the place, never the secret."""


@dataclass(frozen=True, slots=True)
class Login:
    """User name and password, or (`identity_token`) an OAuth2 refresh token, or a ready bearer token."""

    username: str = ""
    password: ReadSecret | None = None
    identity_token: ReadSecret | None = None
    bearer_token: ReadSecret | None = None


@dataclass(frozen=True, slots=True)
class TLS:
    """Own CA (beside the system's), client certificate and key, and whether the server is verified.

    The files are read when the site opens. `seen` changes when one of them is replaced or written, so that settings
    read after a file was renewed in its place are other ones, and the site is opened anew.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True
    seen: tuple[tuple[int, ...], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Quota:
    """What to do when a registry that counts pulls (Docker Hub) has `reserve` of them left: wait, or stop the site."""

    reserve: int = 0
    below: Literal["wait", "stop"] = "wait"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds of patience with a site, and the bytes a second that it must keep. No key bounds a whole transfer.

    `connect`: to connect, TLS included. `first_byte`: until a blob begins to come (a pull-through cache fetches it
    first). `read`: until any other answer begins, until the next bytes of an answer come, and until the site takes the
    next bytes of an upload. `commit`: for the answer to what is written; `commit_seconds` adds to it by size.
    `minimum_rate`: see `reading.Reading`.
    """

    connect: float = 30.0
    first_byte: float = 300.0
    read: float = 60.0
    commit: float = 900.0
    minimum_rate: float = 1000.0

    def commit_seconds(self, size: int) -> float:
        """How long to wait for the answer to a write of `size` bytes: object stores copy them before they answer."""
        return self.commit + size / COMMITTED_BYTES_PER_SECOND


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """One registry.

    `url` is scheme, host and optional port and path prefix ("https://registry.example.com"), no trailing slash.
    `written_as` is what the config says, where that was understood as `url` (Docker Hub has many names).
    `login` None means: as `identity`, and without one look where docker and podman keep credentials (unless
    `docker_config` is False), then be what the host name implies, else anonymous. `proxy` None means: as the environment
    says (HTTP_PROXY, HTTPS_PROXY, NO_PROXY); "" means none. `kind` is the vendor (`vendors.known.KINDS`), "" to find out.
    `capabilities` overrides single fields of the capability record by name. `redirects`: "same-scheme" lets the
    registry lead to hosts of others by its own scheme, and only for what a digest verifies; "any" lets it lead
    everywhere. `private_addresses`: see `addresses.AddressGuard`. `max_blob_bytes`: a larger blob is not read, whatever
    its manifest says. `realm`: URL of a token service that may have the
    credentials though it speaks http on another host.
    """

    name: str
    url: str
    login: Login | None = None
    identity: Identity | None = None
    docker_config: bool = True
    tls: TLS = field(default_factory=TLS)
    proxy: str | None = field(default=None, repr=False)  # may hold credentials
    limits: LimitSettings = field(default_factory=LimitSettings)
    quota: Quota = field(default_factory=Quota)
    kind: str = ""
    capabilities: Mapping[str, bool | int | str] = field(default_factory=dict)
    timeouts: Timeouts = field(default_factory=Timeouts)
    redirects: Literal["same-scheme", "any"] = "same-scheme"
    private_addresses: bool = False
    realm: str | None = None
    max_blob_bytes: int = DEFAULT_MAX_BLOB_BYTES
    written_as: str = ""
