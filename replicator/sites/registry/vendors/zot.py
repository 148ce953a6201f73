"""zot.

https://zotregistry.dev/ and https://github.com/project-zot/zot (pkg/extensions/search)
"""

from __future__ import annotations

from typing import Final

from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.vendor import Sign, Vendor

ZOT: Final = Vendor(
    kind="zot",
    title="zot",
    signs=(Sign("Blob-Upload-UUID"), Sign("Server", "^zot")),
    record=CapabilityRecord(delete_tag=True),
    limits=("To list referrers it reads every manifest of the repository.",),
)
