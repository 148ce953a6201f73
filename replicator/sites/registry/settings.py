"""What a registry site is told, free of the config's syntax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from replicator.flow.settings import LimitSettings
from replicator.sites.bounds import DEFAULT_MAX_BLOB_BYTES
from replicator.sites.registry.identity.settings import Identity
from replicator.sites.registry.vendors.creation import CreateSettings
from replicator.sites.timeouts import Timeouts

ReadSecret = Callable[[], str]
"""Reads a secret where it lies (file, credential, environment); called again after an authentication failure.
Raises ConfigError naming the place, never the secret."""


class Login(msgspec.Struct, frozen=True):
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


class Quota(msgspec.Struct, frozen=True):
    """What to do when a registry that counts pulls (Docker Hub) has `reserve` of them left: wait, or stop the site."""

    reserve: int = 0
    below: Literal["wait", "stop"] = "wait"


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
    its manifest says. `parallel_reads`: see `ports.ReadsRanges`. `realm`: URL of a token service that may have the
    credentials though it speaks http on another host. `create`: how missing repositories are created; None: not at all.
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
    parallel_reads: int | None = None
    written_as: str = ""
    create: CreateSettings | None = field(default_factory=CreateSettings)
