"""Which credentials a registry is used with."""

from __future__ import annotations

from yarl import URL

from replicator.events import Events
from replicator.ports import Clock
from replicator.sites.registry.credentials import ConfiguredLogin, DockerLogins, Logins
from replicator.sites.registry.identity.renewed import RenewedLogins
from replicator.sites.registry.identity.settings import (
    AcrIdentity,
    EcrIdentity,
    GoogleIdentity,
    Identity,
)
from replicator.sites.registry.identity.source import Issuer
from replicator.sites.registry.settings import RegistrySettings
from replicator.sites.registry.vendors.known import by_host


def logins_of(settings: RegistrySettings, *, events: Events, clock: Clock) -> Logins:
    """The login or identity that the config gives; else docker's, and then what the host name implies."""
    if settings.login is not None:
        return ConfiguredLogin(settings.login)
    base = URL(settings.url, encoded=True)
    if settings.identity is not None:
        issuer = _issuer(settings, base, settings.identity, clock)
        return RenewedLogins(settings.name, issuer, first=None, is_optional=False, events=events, clock=clock)
    if not settings.docker_config:
        return ConfiguredLogin(None)
    docker = DockerLogins(_authority(base))
    vendor = by_host(base.raw_host or "")
    if vendor is None or vendor.identity is None:
        return docker
    return RenewedLogins(
        settings.name,
        _issuer(settings, base, vendor.identity, clock),
        first=docker,
        is_optional=vendor.is_public,
        events=events,
        clock=clock,
    )


def _issuer(settings: RegistrySettings, base: URL, identity: Identity, clock: Clock) -> Issuer:
    """Loads the module of the one cloud that is asked: botocore alone takes a tenth of a second."""
    host = base.raw_host or ""
    if isinstance(identity, EcrIdentity):
        from replicator.sites.registry.identity.aws import EcrHost, EcrIssuer, parse_host  # noqa: PLC0415

        named = parse_host(host) or EcrHost(identity.registry_id or "-", identity.region or "")
        return EcrIssuer(settings.name, named, identity, clock)
    if isinstance(identity, AcrIdentity):
        from replicator.sites.registry.identity.azure import AcrIssuer  # noqa: PLC0415

        return AcrIssuer(settings.name, settings.url, host, identity, clock)
    if isinstance(identity, GoogleIdentity):
        from replicator.sites.registry.identity.google import GoogleIssuer  # noqa: PLC0415

        return GoogleIssuer(settings.name, identity, clock)
    from replicator.sites.registry.identity.github import GitHubIssuer  # noqa: PLC0415

    return GitHubIssuer(settings.name, identity, clock)


def _authority(base: URL) -> str:
    """The host as docker's files name it."""
    host = f"[{base.raw_host}]" if ":" in (base.raw_host or "") else base.raw_host or ""
    return host if base.explicit_port is None else f"{host}:{base.explicit_port}"
