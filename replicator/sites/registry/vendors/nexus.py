"""Sonatype Nexus Repository 3.

https://help.sonatype.com/en/docker-registry.html and https://help.sonatype.com/en/components-api.html
"""

from __future__ import annotations

from typing import ClassVar, Final
from urllib.parse import urlencode

import msgspec

from replicator.notifications import nexus
from replicator.sites.registry.vendors.listing import (
    ListedRepository,
    Page,
    PageAnswer,
    PagedListing,
    PageRequest,
    listed,
)
from replicator.sites.registry.vendors.vendor import Refusal, Sign, Vendor

_REPOSITORY: Final = "/repository/"


class _Checksums(msgspec.Struct):
    sha256: str = ""


class _Asset(msgspec.Struct):
    path: str
    checksum: _Checksums | None = None


class _Component(msgspec.Struct):
    repository: str
    name: str
    version: str
    assets: list[_Asset] = []


class _Components(msgspec.Struct, rename="camel"):
    items: list[_Component]
    continuation_token: str | None = None


class NexusComponents(PagedListing):
    """`GET /service/rest/v1/search`, the components of one image; the server chooses the size of a page.

    The key of the repository must be in the site's URL (`/repository/KEY`): behind a connector it cannot be told. The index
    that is searched lags behind the registry.
    """

    how: ClassVar[str] = "Nexus's search"
    page_tags: ClassVar[int] = 50
    is_hint: ClassVar[bool] = True

    def first(self, place: ListedRepository) -> PageRequest | None:
        """See `PagedListing`."""
        return self._page(place, "")

    def read(self, place: ListedRepository, answer: PageAnswer) -> Page:
        """See `PagedListing`."""
        found = msgspec.json.decode(answer.body, type=_Components)
        _, _, key = place.url.rpartition(_REPOSITORY)
        tags = [
            one
            for item in found.items
            if (item.repository, item.name) == (key, place.repository)
            and (one := listed(item.version, _digest(item)))
        ]
        token = found.continuation_token
        return Page(tags, self._page(place, token) if token else None)

    def _page(self, place: ListedRepository, token: str) -> PageRequest | None:
        base, found, key = place.url.rpartition(_REPOSITORY)
        if not found or "/" in key:
            return None
        query = {"repository": key, "format": "docker", "name": place.repository}
        if token:
            query["continuationToken"] = token
        headers = place.login.basic() if place.login else {}
        return PageRequest(f"{base}/service/rest/v1/search?{urlencode(query)}", headers=headers)


def _digest(item: _Component) -> str | None:
    """Of the manifest: an index of images is one, its images are not among the files of its tag."""
    for asset in item.assets:
        if asset.path.endswith(f"/manifests/{item.version}") and asset.checksum is not None:
            return f"sha256:{asset.checksum.sha256}"
    return None


NEXUS: Final = Vendor(
    kind="nexus",
    title="Sonatype Nexus",
    signs=(Sign("Server", "^Nexus/"),),
    tag_deletion="vendor",
    immutable=(Refusal(frozenset({400}), text="does not allow updating assets"),),
    present=(Refusal(text="cannot be updated"),),
    read_right="nx-repository-view-docker-NAME-read and -browse",
    write_right="nx-repository-view-docker-NAME-add and -edit",
    listing=NexusComponents(),
    notifications=nexus.FORMAT,
    limits=("A repository of format docker must exist; images in it are created by a push.",),
)
