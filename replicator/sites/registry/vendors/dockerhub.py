"""Docker Hub.

https://docs.docker.com/reference/api/hub/latest/ and https://docs.docker.com/docker-hub/usage/
"""

from __future__ import annotations

from typing import Final

from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.vendor import NameRules, Refusal, Vendor

DOCKER_HUB: Final = Vendor(
    kind="dockerhub",
    title="Docker Hub",
    hosts=("docker.io",),
    record=CapabilityRecord(catalog=False),
    names=NameRules(min_parts=2, max_parts=2, shape="NAMESPACE/NAME"),
    tag_deletion="vendor",
    digest_deletion="not possible",
    immutable=(Refusal(frozenset({403})),),
    limits=(
        "Reading a manifest counts as a pull; asking for its digest (HEAD) does not.",
        "What exists and may not be seen and what does not exist are both answered with 401.",
    ),
)
