"""Gitea and Forgejo.

https://docs.gitea.com/usage/packages/container
"""

from __future__ import annotations

from typing import Final

from replicator.notifications import gitea
from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.vendor import NameRules, Vendor

GITEA: Final = Vendor(
    kind="gitea",
    title="Gitea and Forgejo",
    hosts=("gitea.com", "codeberg.org"),
    record=CapabilityRecord(delete_tag=True),
    names=NameRules(min_parts=2, shape="OWNER/NAME"),
    read_right="the scope read:package",
    write_right="the scope write:package, and membership in the owner",
    notifications=gitea.FORMAT,
    limits=("A manifest may have at most 10 MiB.",),
)
