"""Harbor.

https://goharbor.io/docs/latest/ and https://github.com/goharbor/harbor (api/v2.0/swagger.yaml)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

import msgspec

from replicator.notifications import harbor
from replicator.sites.registry.vendors.creating.harbor import HarborProjects
from replicator.sites.registry.vendors.listing import (
    IMMUTABLE,
    ListedRepository,
    Page,
    PageAnswer,
    PagedListing,
    PageRequest,
    Refers,
    listed,
)
from replicator.sites.registry.vendors.vendor import NameRules, Refusal, Sign, Vendor

_COSIGN: Final = "signature.cosign"
"""The type of an accessory that is cosign's, whether in a tag or, since 2.15, a bundle."""


class _Tag(msgspec.Struct):
    name: str
    immutable: bool = False


class _Accessory(msgspec.Struct):
    digest: str
    type: str = ""


class _Reference(msgspec.Struct):
    child_digest: str


class _Artifact(msgspec.Struct):
    digest: str
    tags: list[_Tag] | None = None
    accessories: list[_Accessory] | None = None
    references: list[_Reference] | None = None


class HarborArtifacts(PagedListing):
    """`GET /api/v2.0/projects/PROJECT/repositories/NAME/artifacts`, artifacts with tags only, and their accessories.

    What refers to an artifact is its accessory, and so is a signature in a `.sig` tag: such tags are not listed. Those of the
    platforms of an index are asked for where the index itself is signed.
    """

    how: ClassVar[str] = "Harbor's API"

    def first(self, place: ListedRepository) -> PageRequest | None:
        """See `PagedListing`."""
        return self._page(place, 1) if "/" in place.repository else None

    def read(self, place: ListedRepository, answer: PageAnswer) -> Page:
        """See `PagedListing`."""
        artifacts = msgspec.json.decode(answer.body, type=list[_Artifact])
        tags = [
            one
            for artifact in artifacts
            for tag in artifact.tags or ()
            if (one := listed(tag.name, artifact.digest, fixed=IMMUTABLE if tag.immutable else ""))
        ]
        page = int(answer.asked.url.rpartition("&page=")[2])
        refers = [one for artifact in artifacts for one in _refers(artifact)]
        return Page(tags, self._page(place, page + 1) if answer.next_link else None, refers)

    def _page(self, place: ListedRepository, page: int) -> PageRequest:
        project, _, name = place.repository.partition("/")
        name = name.replace("/", "%252F")  # encoded twice: Harbor's router decodes it once too often
        query = f"page_size={self.page_tags}&with_tag=true&with_label=false&with_accessory=true&q=tags%3D*&page={page}"
        url = f"{place.api}/api/v2.0/projects/{project}/repositories/{name}/artifacts?{query}"
        return PageRequest(url, headers=place.login.basic() if place.login else {})


def _refers(artifact: _Artifact) -> Iterator[Refers]:
    is_signed = False
    for accessory in artifact.accessories or ():
        by_cosign = accessory.type == _COSIGN
        is_signed = is_signed or by_cosign
        yield Refers(artifact.digest, accessory.digest, hides_tag=by_cosign)
    if is_signed:
        for reference in artifact.references or ():
            yield Refers(reference.child_digest, "", hides_tag=True)


HARBOR: Final = Vendor(
    kind="harbor",
    title="Harbor",
    signs=(Sign("WWW-Authenticate", 'service="harbor-registry"'),),
    names=NameRules(min_parts=2, shape="PROJECT/NAME"),
    tag_deletion="vendor",
    immutable=(Refusal(frozenset({412}), code="PRECONDITION"),),
    read_right='"Pull Repository", "List Repository" and "List Tag" of the robot',
    write_right='"Push Repository" of the robot',
    listing=HarborArtifacts(),
    creation=HarborProjects(),
    notifications=harbor.FORMAT,
    limits=(
        "The project must exist; repositories in it are created by a push.",
        "A project that is a proxy cache accepts no pushes.",
    ),
)
