"""GitLab: gitlab.com and installations of one's own.

https://docs.gitlab.com/user/packages/container_registry/ and docs/spec/gitlab/api.md of GitLab's container-registry
"""

from __future__ import annotations

from typing import ClassVar, Final
from urllib.parse import quote

import msgspec

from replicator.notifications import gitlab
from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.creating.gitlab import GitLabProjects
from replicator.sites.registry.vendors.listing import (
    ListedRepository,
    Page,
    PageAnswer,
    PagedListing,
    PageRequest,
    Refers,
    listed,
)
from replicator.sites.registry.vendors.vendor import NameRules, Refusal, Sign, Vendor


class _Referrer(msgspec.Struct):
    digest: str


class _Tag(msgspec.Struct):
    name: str
    digest: str | None = None
    referrers: list[_Referrer] | None = None


class GitLabTags(PagedListing):
    """`GET /gitlab/v1/repositories/REPOSITORY/tags/list/`, of registries with the metadata database; with referrers."""

    how: ClassVar[str] = "the API of GitLab's registry"
    page_tags: ClassVar[int] = 1000

    def first(self, place: ListedRepository) -> PageRequest:
        """See `PagedListing`."""
        return self._page(place, "")

    def read(self, place: ListedRepository, answer: PageAnswer) -> Page:
        """See `PagedListing`."""
        found = msgspec.json.decode(answer.body, type=list[_Tag])
        tags = [one for tag in found if (one := listed(tag.name, tag.digest))]
        last = answer.next_query("last")
        refers = [
            Refers(tag.digest, referrer.digest)
            for tag in found
            if tag.digest
            for referrer in tag.referrers or ()
        ]
        return Page(tags, self._page(place, f"&last={quote(last)}") if last else None, refers)

    def _page(self, place: ListedRepository, rest: str) -> PageRequest:
        url = f"{place.url}/gitlab/v1/repositories/{place.repository}/tags/list/"
        url = f"{url}?n={self.page_tags}&referrers=true{rest}"
        return PageRequest(url, actions="pull")


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
    immutable=(
        Refusal(frozenset({401}), text="PROTECTED_TAG"),
        Refusal(frozenset({401}), text="IMMUTABLE_TAG"),
    ),
    read_right="read_registry",
    write_right="write_registry",
    listing=GitLabTags(),
    creation=GitLabProjects(),
    notifications=gitlab.FORMAT,
    limits=("The project must exist.", "Tokens last 5 minutes (15 on gitlab.com)."),
)
