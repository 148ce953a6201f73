"""Docker Hub.

https://docs.docker.com/reference/api/hub/latest/ and https://docs.docker.com/docker-hub/usage/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec

from replicator.notifications import dockerhub
from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.creating.dockerhub import HubRepositories
from replicator.sites.registry.vendors.listing import (
    ListedRepository,
    Page,
    PageAnswer,
    PagedListing,
    PageRequest,
    listed,
)
from replicator.sites.registry.vendors.vendor import NameRules, Refusal, Vendor


class _Tag(msgspec.Struct):
    name: str
    digest: str | None = None


class _Tags(msgspec.Struct):
    results: list[_Tag]
    next: str | None = None


class _Token(msgspec.Struct):
    access_token: str


class HubTags(PagedListing):
    """`GET /v2/namespaces/NAMESPACE/repositories/NAME/tags` of hub.docker.com, which counts no pulls.

    Old tags may lack a digest. It lags behind the registry. With credentials a token is asked for first, which lasts ten
    minutes: longer than a listing.
    """

    how: ClassVar[str] = "Docker Hub's API"
    page_tags: ClassVar[int] = 100
    is_hint: ClassVar[bool] = True

    def first(self, place: ListedRepository) -> PageRequest | None:
        """See `PagedListing`."""
        if place.repository.count("/") != 1:
            return None
        if place.login is None or not place.login.password:
            return self._page(place, 1, {})
        login = {"identifier": place.login.username, "secret": place.login.password}
        return PageRequest(
            f"{place.api}/v2/auth/token",
            method="POST",
            headers={"Content-Type": "application/json"},
            body=msgspec.json.encode(login),
        )

    def read(self, place: ListedRepository, answer: PageAnswer) -> Page:
        """See `PagedListing`."""
        if answer.asked.method == "POST":
            token = msgspec.json.decode(answer.body, type=_Token).access_token
            return Page((), self._page(place, 1, {"Authorization": f"Bearer {token}"}))
        found = msgspec.json.decode(answer.body, type=_Tags)
        tags = [one for tag in found.results if (one := listed(tag.name, tag.digest))]
        page = int(answer.asked.url.rpartition("&page=")[2])
        return Page(tags, self._page(place, page + 1, answer.asked.headers) if found.next else None)

    def _page(self, place: ListedRepository, page: int, headers: Mapping[str, str]) -> PageRequest:
        namespace, _, name = place.repository.partition("/")
        url = f"{place.api}/v2/namespaces/{namespace}/repositories/{name}/tags"
        return PageRequest(f"{url}?page_size={self.page_tags}&page={page}", headers=headers)


DOCKER_HUB: Final = Vendor(
    kind="dockerhub",
    title="Docker Hub",
    hosts=("docker.io",),
    record=CapabilityRecord(catalog=False),
    names=NameRules(min_parts=2, max_parts=2, shape="NAMESPACE/NAME"),
    tag_deletion="vendor",
    digest_deletion="not possible",
    immutable=(Refusal(frozenset({403})),),
    read_right='an access token with the scope "Read-only", and access to the repository',
    write_right='an access token with the scope "Read & Write", and access to the repository',
    api="https://hub.docker.com",
    listing=HubTags(),
    creation=HubRepositories(),
    notifications=dockerhub.FORMAT,
    limits=(
        "Reading a manifest counts as a pull; asking for its digest (HEAD) does not.",
        "Requests for repositories that are private or do not exist are both answered with 401.",
    ),
)
