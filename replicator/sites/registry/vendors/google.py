"""Google Artifact Registry, and gcr.io, which it serves too.

https://cloud.google.com/artifact-registry/docs/docker/troubleshoot and /quotas
"""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec

from replicator.notifications import google
from replicator.sites.registry.identity.settings import GoogleIdentity
from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.creating.google import GoogleRepositories
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


class _Manifest(msgspec.Struct):
    tag: list[str] = []


class _Tags(msgspec.Struct):
    tags: list[str] | None = None
    manifest: dict[str, _Manifest] | None = None


class ManifestMap(PagedListing):
    """`GET /v2/REPOSITORY/tags/list`, whose answer has a map of manifests with their tags.

    An answer holds 10,000 entries and cannot be continued: a longer listing is none. Numbers in it are strings.
    """

    how: ClassVar[str] = "the map of manifests"
    page_tags: ClassVar[int] = 10_000
    is_hint: ClassVar[bool] = True

    def first(self, place: ListedRepository) -> PageRequest:
        """See `PagedListing`."""
        return PageRequest(f"{place.url}/v2/{place.repository}/tags/list?n={self.page_tags}", actions="pull")

    def read(self, place: ListedRepository, answer: PageAnswer) -> Page:  # noqa: ARG002 - a single page
        """See `PagedListing`."""
        found = msgspec.json.decode(answer.body, type=_Tags)
        if found.manifest is None:
            raise ValueError("it has no map of manifests")
        names = found.tags or ()
        if len(names) >= self.page_tags or len(found.manifest) >= self.page_tags or answer.next_link:
            raise AboutRepository(f"it is cut off after {self.page_tags} entries")
        digests = {tag: digest for digest, manifest in found.manifest.items() for tag in manifest.tag}
        return Page([one for tag in {*names, *digests} if (one := listed(tag, digests.get(tag)))])


GOOGLE: Final = Vendor(
    kind="google",
    title="Google Artifact Registry",
    hosts=("pkg.dev", "gcr.io"),
    record=CapabilityRecord(chunk_bytes=0, resume=False, delete_tag=True, tags_per_page=10_000),
    names=NameRules(min_parts=2, shape="PROJECT/REPOSITORY/IMAGE (gcr.io: PROJECT/IMAGE)"),
    digest_deletion="refused while tagged",
    immutable=(Refusal(code="FAILED_PRECONDITION"),),
    identity=GoogleIdentity(),
    listing=ManifestMap(),
    creation=GoogleRepositories(),
    notifications=google.FORMAT,
    limits=(
        "Blobs go up in one request each.",
        "A repository of Artifact Registry must exist; images in it are created by a push.",
    ),
)
