"""JFrog Artifactory: jfrog.io and installations of one's own.

https://jfrog.com/help/r/jfrog-artifactory-documentation/docker-repositories
"""

from __future__ import annotations

from typing import Final

from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.vendor import Sign, Vendor

ARTIFACTORY: Final = Vendor(
    kind="artifactory",
    title="JFrog Artifactory",
    hosts=("jfrog.io",),
    signs=(Sign("X-JFrog-Version"), Sign("X-Artifactory-*")),
    record=CapabilityRecord(upload="patch", delete_tag=True),
    limits=(
        "Only local repositories, and virtual ones with a default deployment repository, take pushes.",
        "Each tag is a folder of its own.",
    ),
)
