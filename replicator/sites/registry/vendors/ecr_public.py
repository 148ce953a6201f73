"""AWS ECR Public.

https://docs.aws.amazon.com/AmazonECR/latest/public/public-service-quotas.html
"""

from __future__ import annotations

from typing import Final

from replicator.sites.registry.identity.settings import EcrIdentity
from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.creating.ecr import EcrPublicRepositories
from replicator.sites.registry.vendors.vendor import NameRules, Vendor

ECR_PUBLIC: Final = Vendor(
    kind="ecr-public",
    title="AWS ECR Public",
    hosts=("public.ecr.aws", "ecr-public.aws.com"),
    record=CapabilityRecord(chunk_bytes=0, resume=False, mount=False, catalog=False),
    names=NameRules(min_parts=2, shape="ALIAS/NAME"),
    tag_deletion="vendor",
    digest_deletion="refused in an index",
    write_right="ecr-public:InitiateLayerUpload, ecr-public:UploadLayerPart, ecr-public:CompleteLayerUpload and ecr-public:PutImage",
    creation=EcrPublicRepositories(),
    identity=EcrIdentity(),
    limits=("At most 10 pushes per second; a layer may have at most 10,000 MiB.",),
)
