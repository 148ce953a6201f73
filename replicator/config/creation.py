"""Problems of `create` of a site: which of its keys mean something depends on the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from replicator.config.document import KeyPath
from replicator.sites.registry.vendors.ecr import ECR
from replicator.sites.registry.vendors.known import KINDS, VENDORS, by_host, of_kind
from replicator.sites.registry.vendors.vendor import Vendor


def check_creation(table: Mapping[str, Any]) -> list[tuple[KeyPath, str]]:
    """Keys of `create` that belong to other registries, and keys that are missing."""
    create = table.get("create")
    if create is None or create is False or (isinstance(create, dict) and create.get("enabled") is False):
        return []
    given = [key for key in create if key != "enabled"] if isinstance(create, dict) else []
    vendor, asked = _vendor(table), set(given)
    if vendor is not None and vendor.creation is None:
        return [
            (("create",), f"does not apply to {vendor.title}, where replicator creates nothing; remove it")
        ]
    found: list[tuple[KeyPath, str]] = []
    for key in given:
        owners = [each for each in VENDORS if each.creation is not None and key in each.creation.keys]
        titles = ", ".join(each.title for each in owners)
        if not owners or vendor in owners:
            continue
        if vendor is None:
            kinds = " or ".join(f'"{each.kind}"' for each in owners)
            found.append((("create", key), f"applies only to {titles}; set kind = {kinds} or remove it"))
        else:
            found.append(
                (("create", key), f"applies only to {titles}, but this registry is {vendor.title}; remove it")
            )
    if vendor is not None and vendor.creation is not None:
        lacking = sorted(vendor.creation.required - asked)
        found += [(("create",), f"requires {key} for {vendor.title}; set {key} as well") for key in lacking]
    if "exclusions" in asked and "immutability" not in asked:
        found.append((("create", "exclusions"), "requires immutability; set immutability as well"))
    if vendor is ECR and "kms_key" in asked and create.get("encryption") not in {"KMS", "KMS_DSSE"}:
        found.append((("create", "kms_key"), 'requires encryption = "KMS" or "KMS_DSSE"'))
    return found


def _vendor(table: Mapping[str, Any]) -> Vendor | None:
    kind, url = table.get("kind"), table.get("url")
    if isinstance(kind, str):
        return of_kind(kind) if kind in KINDS else None
    return by_host(_host(url)) if isinstance(url, str) else None


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # of the host or port: reported elsewhere
        return ""
