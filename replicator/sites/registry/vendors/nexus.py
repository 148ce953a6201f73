"""Sonatype Nexus Repository 3.

https://help.sonatype.com/en/docker-registry.html and https://help.sonatype.com/en/components-api.html
"""

from __future__ import annotations

from typing import Final

from replicator.notifications import nexus
from replicator.sites.registry.vendors.vendor import Refusal, Sign, Vendor

NEXUS: Final = Vendor(
    kind="nexus",
    title="Sonatype Nexus",
    signs=(Sign("Server", "^Nexus/"),),
    tag_deletion="vendor",
    immutable=(Refusal(frozenset({400}), text="does not allow updating assets"),),
    present=(Refusal(text="cannot be updated"),),
    notifications=nexus.FORMAT,
    limits=("A repository of format docker must exist; images in it are created by a push.",),
)
