"""AWS ECR, private registries.

https://docs.aws.amazon.com/AmazonECR/latest/userguide/service-quotas.html
"""

from __future__ import annotations

import re
from typing import Final

from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.vendor import NameRules, Refusal, Vendor

HOST: Final = re.compile(
    r"(?P<account>\d{12})\.dkr[.-]ecr(?P<fips>-fips)?\.(?P<region>[a-z0-9-]+)\.(?P<suffix>[a-z0-9.-]+)"
)
"""Account, region and partition are in the host name; the expression is amazon-ecr-credential-helper's, simplified."""

ECR: Final = Vendor(
    kind="ecr",
    title="AWS ECR",
    host_pattern=HOST,
    record=CapabilityRecord(chunk_bytes=0, resume=False, mount=False),
    names=NameRules(max_length=256),
    tag_deletion="vendor",
    digest_deletion="refused in an index",
    immutable=(Refusal(frozenset({400}), code="TAG_INVALID", text="already exists"),),
    limits=(
        "Repositories are not created by a push, unless a creation template covers their prefix.",
        "10 manifests a second are taken from one account and region.",
    ),
)
