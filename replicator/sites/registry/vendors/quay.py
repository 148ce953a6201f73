"""Quay: quay.io and installations of one's own.

https://docs.quay.io/api/ and https://github.com/quay/quay
"""

from __future__ import annotations

from typing import Final

from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.vendor import NameRules, Refusal, Sign, Vendor

QUAY: Final = Vendor(
    kind="quay",
    title="Quay",
    hosts=("quay.io",),
    signs=(Sign("WWW-Authenticate", r'realm="[^"]*/v2/auth"'),),
    record=CapabilityRecord(status_range="exclusive", delete_tag=True, tags_per_page=100),
    names=NameRules(min_parts=2, shape="NAMESPACE/NAME"),
    immutable=(Refusal(frozenset({409}), code="TAG_IMMUTABLE"),),
    limits=(
        "A page of tags has 100 at most.",
        "Content that no tag leads to is removed after an hour.",
        "Asking for a token to push creates the repository.",
    ),
)
