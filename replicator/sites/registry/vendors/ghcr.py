"""GitHub's container registry.

https://docs.github.com/en/packages/working-with-a-github-packages-registry/working-with-the-container-registry
"""

from __future__ import annotations

from typing import Final

from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.vendor import NameRules, Vendor

GHCR: Final = Vendor(
    kind="ghcr",
    title="GitHub Container Registry",
    hosts=("ghcr.io",),
    record=CapabilityRecord(upload="patch", chunk_bytes=0, resume=False, catalog=False),
    names=NameRules(min_parts=2, shape="OWNER/NAME"),
    tag_deletion="whole version",
    limits=("About 2,000 requests a minute are let through (measured by others, not documented).",),
)
