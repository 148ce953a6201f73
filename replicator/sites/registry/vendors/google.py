"""Google Artifact Registry, and gcr.io, which it serves too.

https://cloud.google.com/artifact-registry/docs/docker/troubleshoot and /quotas
"""

from __future__ import annotations

from typing import Final

from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.vendor import NameRules, Refusal, Vendor

GOOGLE: Final = Vendor(
    kind="google",
    title="Google Artifact Registry",
    hosts=("pkg.dev", "gcr.io"),
    record=CapabilityRecord(chunk_bytes=0, resume=False, delete_tag=True, tags_per_page=10_000),
    names=NameRules(min_parts=2, shape="PROJECT/REPOSITORY/IMAGE (gcr.io: PROJECT/IMAGE)"),
    digest_deletion="refused while tagged",
    immutable=(Refusal(code="FAILED_PRECONDITION"),),
    limits=(
        "Blobs go up in one request each.",
        "A repository of Artifact Registry must exist; images in it are created by a push.",
    ),
)
