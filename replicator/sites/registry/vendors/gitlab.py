"""GitLab: gitlab.com and installations of one's own.

https://docs.gitlab.com/user/packages/container_registry/ and docs/spec/gitlab/api.md of GitLab's container-registry
"""

from __future__ import annotations

from typing import Final

from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.vendor import NameRules, Refusal, Sign, Vendor

GITLAB: Final = Vendor(
    kind="gitlab",
    title="GitLab",
    hosts=("registry.gitlab.com",),
    signs=(
        Sign("Gitlab-Container-Registry-Version"),
        Sign("WWW-Authenticate", r'realm="[^"]*/jwt/auth"'),
    ),
    record=CapabilityRecord(delete_tag=True),
    names=NameRules(min_parts=2, shape="the path of a project, which may be followed by more parts"),
    immutable=(Refusal(frozenset({403}), text="protected"),),
    limits=("The project must exist.", "Tokens last 5 minutes (15 on gitlab.com)."),
)
