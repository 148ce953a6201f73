"""JFrog Artifactory: jfrog.io and installations of one's own.

https://jfrog.com/help/r/jfrog-artifactory-documentation/docker-repositories
"""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec

from replicator.notifications import artifactory
from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.listing import (
    ListedRepository,
    Page,
    PageAnswer,
    PagedListing,
    PageRequest,
    listed,
)
from replicator.sites.registry.vendors.vendor import Refusal, Sign, Vendor

_INDEX: Final = "list.manifest.json"
_NAMES: Final = ("manifest.json", _INDEX)


class _Item(msgspec.Struct):
    path: str
    name: str
    sha256: str | None = None


class _Items(msgspec.Struct):
    results: list[_Item]


class ArtifactoryItems(PagedListing):
    """`POST /artifactory/api/search/aql`: each tag is a folder, in which a manifest or an index lies.

    The repository's key is in the site's URL (`/artifactory/api/docker/KEY`), else it is the first part of the name. A
    virtual repository has no items of its own.
    """

    how: ClassVar[str] = "Artifactory's query language"
    page_tags: ClassVar[int] = 1000

    def first(self, place: ListedRepository) -> PageRequest | None:
        """See `PagedListing`."""
        return self._page(place, 0)

    def read(self, place: ListedRepository, answer: PageAnswer) -> Page:
        """See `PagedListing`."""
        items = msgspec.json.decode(answer.body, type=_Items).results
        _, folder = _key(place)
        tags = {}
        for item in items:
            parent, _, tag = item.path.rpartition("/")
            if parent == folder and item.name in _NAMES and not tag.startswith(("sha256__", "sha256:")):
                tags[tag] = listed(tag, f"sha256:{item.sha256}")  # of both, the index comes last
        offset = int((answer.asked.body or b"").rpartition(b".offset(")[2].partition(b")")[0]) + len(items)
        more = self._page(place, offset) if len(items) >= self.page_tags else None
        return Page([one for one in tags.values() if one], more)

    def _page(self, place: ListedRepository, offset: int) -> PageRequest | None:
        key, folder = _key(place)
        if not key or not folder:
            return None
        criteria = {
            "repo": key,
            "path": {"$match": f"{folder}/*"},
            "$or": [{"name": name} for name in _NAMES],
        }
        query = (
            f"items.find({msgspec.json.encode(criteria).decode()})"
            '.include("path","name","sha256").sort({"$desc":["path","name"]})'
            f".limit({self.page_tags}).offset({offset})"
        )
        headers = {**(place.login.basic() if place.login else {}), "Content-Type": "text/plain"}
        return PageRequest(
            f"{place.api}/artifactory/api/search/aql", method="POST", headers=headers, body=query.encode()
        )


def _key(place: ListedRepository) -> tuple[str, str]:
    """The key of Artifactory's repository, and the image's folder in it."""
    key = place.url.partition("/api/docker/")[2].partition("/")[0]
    if key:
        return key, place.repository
    key, _, folder = place.repository.partition("/")
    return key, folder


ARTIFACTORY: Final = Vendor(
    kind="artifactory",
    title="JFrog Artifactory",
    hosts=("jfrog.io",),
    signs=(Sign("X-JFrog-Version"), Sign("X-Artifactory-*")),
    record=CapabilityRecord(upload="patch", delete_tag=True),
    # of an account without Delete/Overwrite; some versions say so in a detail alone
    immutable=(Refusal(frozenset({403})), Refusal(code="MANIFEST_INVALID", text="403 Forbidden")),
    read_right="Read on the repository",
    write_right="Deploy on the repository, and Delete/Overwrite to move tags",
    listing=ArtifactoryItems(),
    notifications=artifactory.FORMAT,
    limits=(
        "Only local repositories, and virtual ones with a default deployment repository, accept pushes.",
        "Each tag is a separate folder.",
    ),
)
