"""CNCF Distribution 2 and 3: the registry image, and what is built on it and does not say what it is."""

from __future__ import annotations

from typing import Final

from replicator.notifications import distribution
from replicator.sites.registry.vendors.vendor import Sign, Vendor

DISTRIBUTION: Final = Vendor(
    kind="distribution",
    title="CNCF Distribution",
    signs=(Sign("Location", "_state="),),
    tag_deletion="not possible",
    read_right="pull on the repository, from its token service",
    write_right="pull and push on the repository, from its token service",
    notifications=distribution.FORMAT,
    limits=(
        "Version 3 deletes single tags if `delete.enabled` is set in its config.",
        "Version 2 cannot delete single tags.",
    ),
)
