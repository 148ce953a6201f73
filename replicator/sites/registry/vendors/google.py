"""Google Artifact Registry, and gcr.io, which it serves too.

https://cloud.google.com/artifact-registry/docs/docker/troubleshoot and /quotas
"""

from __future__ import annotations

from typing import ClassVar, Final
from urllib.parse import quote, urlsplit

import msgspec

from replicator.notifications import google
from replicator.sites.registry.identity.settings import GoogleIdentity
from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.creating.google import GoogleRepositories, location_of, token_headers
from replicator.sites.registry.vendors.listing import (
    AboutRepository,
    ListedRepository,
    Page,
    PageAnswer,
    PagedListing,
    PageRequest,
    listed,
)
from replicator.sites.registry.vendors.vendor import NameRules, Refusal, Vendor

_PACKAGES: Final = "/packages/"
_API_TAGS: Final = 1000


class _Manifest(msgspec.Struct):
    tag: list[str] = []


class _Tags(msgspec.Struct):
    tags: list[str] | None = None
    manifest: dict[str, _Manifest] | None = None


class _ApiTag(msgspec.Struct):
    name: str
    version: str = ""


class _ApiTags(msgspec.Struct, rename="camel"):
    tags: list[_ApiTag] = []
    next_page_token: str = ""


class ManifestMap(PagedListing):
    """`GET /v2/REPOSITORY/tags/list`, whose answer has a map of manifests with their tags. Numbers in it are strings.

    An answer holds 10,000 entries and cannot be continued. What has more is listed by Artifact Registry's API
    (`projects.locations.repositories.packages.tags.list`), which takes an access token and needs the location that the
    host name has; without these it is not listed.
    """

    how: ClassVar[str] = "the map of manifests"
    page_tags: ClassVar[int] = 10_000
    is_hint: ClassVar[bool] = True

    def first(self, place: ListedRepository) -> PageRequest:
        """See `PagedListing`."""
        return PageRequest(f"{place.url}/v2/{place.repository}/tags/list?n={self.page_tags}", actions="pull")

    def read(self, place: ListedRepository, answer: PageAnswer) -> Page:
        """See `PagedListing`."""
        if _PACKAGES in answer.asked.url:
            return _api_page(place, answer)
        found = msgspec.json.decode(answer.body, type=_Tags)
        if found.manifest is None:
            raise ValueError("it has no map of manifests")
        names = found.tags or ()
        if len(names) >= self.page_tags or len(found.manifest) >= self.page_tags or answer.next_link:
            if (first := _api_request(place, "")) is not None:
                return Page((), first)
            raise AboutRepository(f"it is cut off after {self.page_tags} entries")
        digests = {tag: digest for digest, manifest in found.manifest.items() for tag in manifest.tag}
        return Page([one for tag in {*names, *digests} if (one := listed(tag, digests.get(tag)))])


def _api_request(place: ListedRepository, token: str) -> PageRequest | None:
    location, headers = location_of(urlsplit(place.url).hostname or ""), token_headers(place.login)
    if not location or headers is None:
        return None
    parts = place.repository.split("/", 2)
    if len(parts) < 3:
        return None
    project, name, image = parts
    url = f"{place.api}/v1/projects/{project}/locations/{location}/repositories/{name}"
    query = f"pageSize={_API_TAGS}&pageToken={quote(token, safe='')}"
    return PageRequest(f"{url}{_PACKAGES}{quote(image, safe='')}/tags?{query}", headers=headers)


def _api_page(place: ListedRepository, answer: PageAnswer) -> Page:
    found = msgspec.json.decode(answer.body, type=_ApiTags)
    tags = [
        one
        for tag in found.tags
        if (one := listed(tag.name.rpartition("/tags/")[2], tag.version.rpartition("/versions/")[2]))
    ]
    token = found.next_page_token
    return Page(tags, _api_request(place, token) if token else None)


GOOGLE: Final = Vendor(
    kind="google",
    title="Google Artifact Registry",
    hosts=("pkg.dev", "gcr.io"),
    record=CapabilityRecord(chunk_bytes=0, resume=False, delete_tag=True, tags_per_page=10_000),
    names=NameRules(min_parts=2, shape="PROJECT/REPOSITORY/IMAGE (gcr.io: PROJECT/IMAGE)"),
    digest_deletion="refused while tagged",
    immutable=(Refusal(code="FAILED_PRECONDITION"),),
    identity=GoogleIdentity(),
    read_right="roles/artifactregistry.reader",
    write_right="roles/artifactregistry.writer",
    api="https://artifactregistry.googleapis.com",
    listing=ManifestMap(),
    creation=GoogleRepositories(),
    notifications=google.FORMAT,
    limits=(
        "Each blob must be sent in one request.",
        "A repository of Artifact Registry must exist; images in it are created by a push.",
    ),
)
