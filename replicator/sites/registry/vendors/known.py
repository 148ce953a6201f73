"""All vendors, and how a registry is told to be one's. A new vendor is one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from replicator.sites.registry.vendors.acr import ACR
from replicator.sites.registry.vendors.alibaba import ALIBABA
from replicator.sites.registry.vendors.artifactory import ARTIFACTORY
from replicator.sites.registry.vendors.distribution import DISTRIBUTION
from replicator.sites.registry.vendors.dockerhub import DOCKER_HUB
from replicator.sites.registry.vendors.ecr import ECR
from replicator.sites.registry.vendors.ecr_public import ECR_PUBLIC
from replicator.sites.registry.vendors.ghcr import GHCR
from replicator.sites.registry.vendors.gitea import GITEA
from replicator.sites.registry.vendors.gitlab import GITLAB
from replicator.sites.registry.vendors.google import GOOGLE
from replicator.sites.registry.vendors.harbor import HARBOR
from replicator.sites.registry.vendors.nexus import NEXUS
from replicator.sites.registry.vendors.quay import QUAY
from replicator.sites.registry.vendors.vendor import Vendor
from replicator.sites.registry.vendors.zot import ZOT

VENDORS: Final[tuple[Vendor, ...]] = (
    DOCKER_HUB,
    GHCR,
    ECR,
    ECR_PUBLIC,
    ACR,
    GOOGLE,
    QUAY,
    HARBOR,
    GITLAB,
    ZOT,
    ARTIFACTORY,
    NEXUS,
    GITEA,
    ALIBABA,
    DISTRIBUTION,  # the last: others are built on it
)

KINDS: Final[tuple[str, ...]] = tuple(sorted(vendor.kind for vendor in VENDORS))
"""What `kind` of a site may be."""

_BY_KIND: Final = {vendor.kind: vendor for vendor in VENDORS}


def of_kind(kind: str) -> Vendor:
    """The vendor by its word in the config; raises KeyError for another word than `KINDS`."""
    return _BY_KIND[kind]


def by_host(host: str) -> Vendor | None:
    """The vendor that owns this host name (in any case, without port); None for a host of somebody's own."""
    host = host.lower().rstrip(".")
    return next((vendor for vendor in VENDORS if vendor.owns(host)), None)


def by_headers(headers: Mapping[str, str]) -> tuple[Vendor, str] | None:
    """The vendor that an answer's headers give away, and the header that does; None where they do not."""
    for vendor in VENDORS:
        if (name := vendor.gives_away(headers)) is not None:
            return vendor, name
    return None
