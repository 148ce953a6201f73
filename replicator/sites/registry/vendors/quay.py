"""Quay: quay.io and installations of one's own.

https://docs.quay.io/api/ and https://github.com/quay/quay
"""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec

from replicator.notifications import quay
from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.creating.quay import QuayRepositories
from replicator.sites.registry.vendors.listing import (
    IMMUTABLE,
    ListedRepository,
    Page,
    PageAnswer,
    PagedListing,
    PageRequest,
    listed,
)
from replicator.sites.registry.vendors.vendor import NameRules, Refusal, Sign, Vendor

_APPLICATION: Final = "$oauthtoken"
"""The user name with which Quay's registry takes an application's token, which is what its API wants."""


class _Tag(msgspec.Struct):
    name: str
    manifest_digest: str | None = None
    immutable: bool | None = None


class _Tags(msgspec.Struct):
    tags: list[_Tag]
    page: int
    has_additional: bool


class QuayTags(PagedListing):
    """`GET /api/v1/repository/REPOSITORY/tag/`.

    Robot accounts may not use the API: public repositories are asked for without credentials, others with the token of
    an OAuth application as the password of `$oauthtoken`.
    """

    how: ClassVar[str] = "Quay's API"
    page_tags: ClassVar[int] = 100

    def first(self, place: ListedRepository) -> PageRequest:
        """See `PagedListing`."""
        return self._page(place, 1)

    def read(self, place: ListedRepository, answer: PageAnswer) -> Page:
        """See `PagedListing`."""
        found = msgspec.json.decode(answer.body, type=_Tags)
        tags = {
            tag.name: one
            for tag in reversed(found.tags)  # the newest of a name is first
            if (one := listed(tag.name, tag.manifest_digest, fixed=IMMUTABLE if tag.immutable else ""))
        }
        return Page(tuple(tags.values()), self._page(place, found.page + 1) if found.has_additional else None)

    def _page(self, place: ListedRepository, page: int) -> PageRequest:
        # Without onlyActiveTags the tags of the past are listed too.
        query = f"onlyActiveTags=true&limit={self.page_tags}&page={page}"
        is_application = place.login is not None and place.login.username == _APPLICATION
        headers = place.login.token() if place.login is not None and is_application else {}
        return PageRequest(f"{place.api}/api/v1/repository/{place.repository}/tag/?{query}", headers=headers)


QUAY: Final = Vendor(
    kind="quay",
    title="Quay",
    hosts=("quay.io",),
    signs=(Sign("WWW-Authenticate", r'realm="[^"]*/v2/auth"'),),
    record=CapabilityRecord(status_range="exclusive", delete_tag=True, tags_per_page=100),
    names=NameRules(shape="NAMESPACE/NAME"),
    immutable=(Refusal(frozenset({409}), code="TAG_IMMUTABLE"),),
    read_right="Read on the repository for the robot",
    write_right="Write on the repository for the robot",
    listing=QuayTags(),
    creation=QuayRepositories(),
    notifications=quay.FORMAT,
    limits=(
        "A page of tags has at most 100.",
        "Content without a tag is removed after an hour.",
        "Requesting a token to push creates the repository.",
    ),
)
