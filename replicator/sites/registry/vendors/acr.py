"""Azure Container Registry.

https://learn.microsoft.com/en-us/azure/container-registry/
"""

from __future__ import annotations

from typing import ClassVar, Final
from urllib.parse import quote

import msgspec

from replicator.notifications import acr
from replicator.sites.registry.identity.settings import AcrIdentity
from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.listing import (
    LOCKED,
    ListedRepository,
    Page,
    PageAnswer,
    PagedListing,
    PageRequest,
    listed,
)
from replicator.sites.registry.vendors.vendor import Refusal, Sign, Vendor


class _Attributes(msgspec.Struct, rename="camel"):
    write_enabled: bool = True


class _Tag(msgspec.Struct, rename="camel"):
    name: str
    digest: str | None = None
    changeable_attributes: _Attributes | None = None


class _Tags(msgspec.Struct):
    tags: list[_Tag] | None = None


class AcrTags(PagedListing):
    """`GET /acr/v1/REPOSITORY/_tags`, which tells of locks too. The server chooses the size of a page."""

    how: ClassVar[str] = "Azure's API"
    page_tags: ClassVar[int] = 1000
    is_hint: ClassVar[bool] = True

    def first(self, place: ListedRepository) -> PageRequest:
        """See `PagedListing`."""
        return self._page(place, "")

    def read(self, place: ListedRepository, answer: PageAnswer) -> Page:
        """See `PagedListing`."""
        found = msgspec.json.decode(answer.body, type=_Tags)
        if found.tags is None:
            raise ValueError("it has no tags")
        tags = [one for tag in found.tags if (one := listed(tag.name, tag.digest, fixed=_lock(tag)))]
        last = answer.next_query("last")
        return Page(tags, self._page(place, f"&last={quote(last)}") if last else None)

    def _page(self, place: ListedRepository, rest: str) -> PageRequest:
        url = f"{place.url}/acr/v1/{place.repository}/_tags?n={self.page_tags}{rest}"
        return PageRequest(url, actions="metadata_read")


def _lock(tag: _Tag) -> str:
    attributes = tag.changeable_attributes
    return "" if attributes is None or attributes.write_enabled else LOCKED


ACR: Final = Vendor(
    kind="acr",
    title="Azure Container Registry",
    hosts=("azurecr.io", "azurecr.cn", "azurecr.us"),
    signs=(Sign("Server", "^AzureContainerRegistry"),),
    record=CapabilityRecord(body_limit=16 * 1024 * 1024),
    tag_deletion="vendor",
    immutable=(Refusal(frozenset({405, 409})),),
    identity=AcrIdentity(),
    read_right="the role AcrPull (of a token: content/read and metadata/read)",
    write_right="the role AcrPush (of a token: content/write too)",
    listing=AcrTags(),
    notifications=acr.FORMAT,
    limits=("A single PUT of about 20 MB or more is refused, so larger blobs are sent in chunks.",),
)
