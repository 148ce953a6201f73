"""Which credentials a registry is used with."""

from __future__ import annotations

from typing import Final

from yarl import URL

from replicator.events import Events
from replicator.ports import Clock
from replicator.sites.registry.credentials import ConfiguredLogin, DockerLogins, Logins
from replicator.sites.registry.identity.renewed import RenewedLogins
from replicator.sites.registry.identity.settings import (
    AcrIdentity,
    EcrIdentity,
    GitHubIdentity,
    GoogleIdentity,
    Identity,
)
from replicator.sites.registry.identity.source import Issuer
from replicator.sites.registry.settings import RegistrySettings

_ECR: Final = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".on.aws", ".amazonwebservices.com.cn")
_ECR_PUBLIC: Final = ("public.ecr.aws", "ecr-public.aws.com")
_ACR: Final = (".azurecr.io", ".azurecr.cn", ".azurecr.us")
_GOOGLE: Final = (".pkg.dev", ".gcr.io")


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
    implied = implied_identity(base.raw_host or "")
    if implied is None:
        return docker
    return RenewedLogins(
        settings.name,
        _issuer(settings, base, implied, clock),
        first=docker,
        # A private registry of AWS serves nobody without credentials; the others have public images.
        is_optional=not isinstance(implied, EcrIdentity) or base.raw_host in _ECR_PUBLIC,
        events=events,
        clock=clock,
    )


def implied_identity(host: str) -> Identity | None:
    """The identity that goes with a cloud's own host name."""
    if host in _ECR_PUBLIC or (host.endswith(_ECR) and (".dkr.ecr" in host or ".dkr-ecr" in host)):
        return EcrIdentity()
    if host.endswith(_ACR):
        return AcrIdentity()
    if host == "gcr.io" or host.endswith(_GOOGLE):
        return GoogleIdentity()
    return None


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
    return _github(settings.name, identity, clock)


def _github(site: str, identity: GitHubIdentity, clock: Clock) -> Issuer:
    from replicator.sites.registry.identity.github import GitHubIssuer  # noqa: PLC0415

    return GitHubIssuer(site, identity, clock)


def _authority(base: URL) -> str:
    """The host as docker's files name it."""
    host = f"[{base.raw_host}]" if ":" in (base.raw_host or "") else base.raw_host or ""
    return host if base.explicit_port is None else f"{host}:{base.explicit_port}"
