"""zot.

https://zotregistry.dev/ and https://github.com/project-zot/zot (pkg/extensions/search)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final
from urllib.parse import quote, unquote

import msgspec

from replicator.notifications import zot
from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.listing import (
    ListedRepository,
    Page,
    PageAnswer,
    PagedListing,
    PageRequest,
    Refers,
    listed,
)
from replicator.sites.registry.vendors.vendor import Sign, Vendor


class _Referrer(msgspec.Struct, rename="pascal"):
    digest: str | None = None


class _Signature(msgspec.Struct, rename="pascal"):
    tool: str | None = None


class _Manifest(msgspec.Struct, rename="pascal"):
    digest: str | None = None
    referrers: list[_Referrer] | None = None
    signatures: list[_Signature] | None = msgspec.field(name="SignatureInfo", default=None)


class _Image(_Manifest, rename="pascal", kw_only=True):
    tag: str
    manifests: list[_Manifest] | None = None


class _Images(msgspec.Struct, rename="pascal"):
    results: list[_Image]


class _Data(msgspec.Struct):
    images: _Images = msgspec.field(name="ImageList")


class _Answer(msgspec.Struct):
    data: _Data


_TOLD: Final = "Digest Referrers{Digest} SignatureInfo{Tool}"


class ZotImages(PagedListing):
    """The search extension's GraphQL query `ImageList`. Refusals come with status 200, without data.

    It tells what refers to images and to their platforms, except for some signatures, which are only counted. Cosign's `.sig`
    tags are not listed.
    """

    how: ClassVar[str] = "zot's search extension"
    page_tags: ClassVar[int] = 1000

    def first(self, place: ListedRepository) -> PageRequest:
        """See `PagedListing`."""
        return self._page(place, 0)

    def read(self, place: ListedRepository, answer: PageAnswer) -> Page:
        """See `PagedListing`."""
        found = msgspec.json.decode(answer.body, type=_Answer).data.images.results
        offset = int(unquote(answer.asked.url).partition("offset:")[2].partition("}")[0]) + len(found)
        tags = [one for image in found if (one := listed(image.tag, image.digest))]
        refers = [
            one
            for image in found
            for manifest in (image, *(image.manifests or ()))
            for one in _refers(manifest)
        ]
        return Page(tags, self._page(place, offset) if len(found) >= self.page_tags else None, refers)

    def _page(self, place: ListedRepository, offset: int) -> PageRequest:
        page = f"{{limit:{self.page_tags},offset:{offset}}}"
        query = f'{{ImageList(repo:"{place.repository}",requestedPage:{page}){{Results{{Tag {_TOLD} Manifests{{{_TOLD}}}}}}}}}'
        return PageRequest(f"{place.url}/v2/_zot/ext/search?query={quote(query, safe='')}", actions="pull")


def _refers(manifest: _Manifest) -> Iterator[Refers]:
    digest = manifest.digest or ""
    for referrer in manifest.referrers or ():
        if referrer.digest:
            yield Refers(digest, referrer.digest)
    for number, signature in enumerate(manifest.signatures or ()):
        yield Refers(digest, f"{signature.tool}#{number}", hides_tag=signature.tool != "notation")


ZOT: Final = Vendor(
    kind="zot",
    title="zot",
    signs=(Sign("Blob-Upload-UUID"), Sign("Server", "^zot")),
    record=CapabilityRecord(delete_tag=True, has_referrers=True, sparse="yes"),
    read_right="read in zot's access control",
    write_right="create and update in zot's access control",
    listing=ZotImages(),
    notifications=zot.FORMAT,
    limits=(
        "Manifests of docker's own types are refused, unless `http.compat` has `docker2s2` (zot 2.1).",
        "With deduplication (the default), a blob of any repository is found in all of them.",
        "To list referrers, it reads every manifest of the repository.",
    ),
)
