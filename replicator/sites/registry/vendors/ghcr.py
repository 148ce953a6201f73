"""GitHub's container registry.

https://docs.github.com/en/packages/working-with-a-github-packages-registry/working-with-the-container-registry
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Final
from urllib.parse import quote

import msgspec

from replicator.notifications import ghcr
from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.listing import (
    ListedRepository,
    Page,
    PageAnswer,
    PagedListing,
    PageRequest,
    listed,
)
from replicator.sites.registry.vendors.vendor import NameRules, Vendor


class _Container(msgspec.Struct):
    tags: list[str] = []


class _Metadata(msgspec.Struct):
    container: _Container | None = None


class _Version(msgspec.Struct):
    name: str
    metadata: _Metadata | None = None


class PackageVersions(PagedListing):
    """`GET /orgs/OWNER/packages/container/NAME/versions` of GitHub's REST API, or of a user.

    It wants a classic personal access token with `read:packages`, for public packages too. A version is a digest; those
    without tags are listed with the others.
    """

    how: ClassVar[str] = "GitHub's packages API"
    page_tags: ClassVar[int] = 100
    is_hint: ClassVar[bool] = True

    def first(self, place: ListedRepository) -> PageRequest | None:
        """See `PagedListing`."""
        if place.login is None or "/" not in place.repository:
            return None
        return replace(self._page(place, "orgs", 1), otherwise=self._page(place, "users", 1))

    def read(self, place: ListedRepository, answer: PageAnswer) -> Page:
        """See `PagedListing`."""
        versions = msgspec.json.decode(answer.body, type=list[_Version])
        tags = [
            one
            for version in versions
            if version.metadata and version.metadata.container
            for tag in version.metadata.container.tags
            if (one := listed(tag, version.name))
        ]
        page = answer.next_query("page")
        if not page.isdigit():
            return Page(tags)
        owners = "users" if "/users/" in answer.next_link or "/user/" in answer.next_link else "orgs"
        more = self._page(place, owners, int(page))
        return Page(
            tags, replace(more, otherwise=self._page(place, "users", int(page))) if owners == "orgs" else more
        )

    def _page(self, place: ListedRepository, owners: str, page: int) -> PageRequest:
        owner, _, name = place.repository.partition("/")
        url = f"{place.api}/{owners}/{owner}/packages/container/{quote(name, safe='')}/versions"
        headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
        if place.login is not None:
            headers |= place.login.token()
        return PageRequest(f"{url}?state=active&per_page={self.page_tags}&page={page}", headers=headers)


GHCR: Final = Vendor(
    kind="ghcr",
    title="GitHub Container Registry",
    hosts=("ghcr.io",),
    record=CapabilityRecord(upload="patch", chunk_bytes=0, resume=False, catalog=False),
    names=NameRules(min_parts=2, shape="OWNER/NAME"),
    tag_deletion="whole version",
    read_right="read:packages (of an App: packages: read)",
    write_right="write:packages (of an App: packages: write)",
    api="https://api.github.com",
    listing=PackageVersions(),
    notifications=ghcr.FORMAT,
    limits=("About 2,000 requests per minute are allowed (measured by others, not documented).",),
)
