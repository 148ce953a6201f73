"""Azure Container Registry.

https://learn.microsoft.com/en-us/azure/container-registry/
"""

from __future__ import annotations

from typing import Final

from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.vendor import Refusal, Sign, Vendor

ACR: Final = Vendor(
    kind="acr",
    title="Azure Container Registry",
    hosts=("azurecr.io", "azurecr.cn", "azurecr.us"),
    signs=(Sign("Server", "^AzureContainerRegistry"),),
    record=CapabilityRecord(body_limit=16 * 1024 * 1024),
    tag_deletion="vendor",
    immutable=(Refusal(frozenset({405, 409})),),
    limits=("A single PUT of about 20 MB or more is refused, so that larger blobs go up in chunks.",),
)
