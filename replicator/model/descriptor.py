"""Descriptor: what content is, how large, and by which name. OCI image-spec, descriptor.md."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from replicator.model.digest import Digest, parse_digest
from replicator.model.mediatypes import FOREIGN_LAYERS
from replicator.model.strictjson import check_names, text_or

MAX_SIZE: Final = 2**63 - 1
"""What Go's clients can hold."""
_NAMES: Final = {name.casefold(): name for name in ("mediaType", "digest", "size", "urls", "data")}


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """The `platform` of an index's child."""

    architecture: str = ""
    os: str = ""
    variant: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A digest with its size in bytes and its media type.

    `size` is None where a source could not tell it (a HEAD without Content-Length); whoever reads then
    bounds the read by other means. Of two descriptors only the digest says whether they name one content.
    """

    media_type: str
    digest: Digest
    size: int | None = None
    urls: tuple[str, ...] = ()
    annotations: dict[str, str] | None = None
    artifact_type: str | None = None
    platform: Platform | None = None
    data: str | None = None

    @property
    def is_foreign(self) -> bool:
        """A layer that registries do not keep: it stays named in the manifest and is not copied."""
        return bool(self.urls) and self.media_type in FOREIGN_LAYERS


def read_descriptor(value: Any, where: str) -> Descriptor:
    """A descriptor of somebody's manifest, its digest and size required.

    Members that nobody relies on may be null, missing or of another type, as .NET, Java and hand-made builders write
    them; they are then as if they were missing. A missing media type is "".

    Args:
        value: from `strictjson.read_object`.
        where: for the message, as `layers[3]`.

    Raises:
        ValueError: not an object, or its digest, size or media type cannot be used.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not a descriptor")  # noqa: TRY004 - foreign content
    check_names(value, _NAMES, where)
    digest, size, media_type = value.get("digest"), value.get("size"), value.get("mediaType")
    if not isinstance(digest, str):
        raise ValueError(f"{where} has no digest")  # noqa: TRY004 - foreign content
    parse_digest(digest)
    if type(size) is not int:
        raise ValueError(f"{where} ({digest}) has no size in whole bytes")
    if not 0 <= size <= MAX_SIZE:
        shown = str(size) if abs(size) < 10**20 else f"a number of {len(str(size))} digits"
        raise ValueError(f"{where} ({digest}) has an impossible size: {shown}")
    if media_type is not None and text_or(media_type) is None:
        raise ValueError(f"{where} ({digest}) has a mediaType that is not text")
    urls = value.get("urls")
    return Descriptor(
        media_type=media_type or "",
        digest=Digest(digest),
        size=size,
        urls=tuple(url for url in urls if isinstance(url, str)) if isinstance(urls, list) else (),
        annotations=read_annotations(value.get("annotations")),
        artifact_type=text_or(value.get("artifactType")),
        platform=_platform(value.get("platform")),
        data=text_or(value.get("data")),
    )


def read_annotations(value: Any) -> dict[str, str] | None:
    """The annotations that are text; None where there are none."""
    if not isinstance(value, dict):
        return None
    texts = {name: text for name, text in value.items() if text_or(name) and text_or(text) is not None}
    return texts or None


def _platform(value: Any) -> Platform | None:
    if not isinstance(value, dict):
        return None
    return Platform(
        architecture=text_or(value.get("architecture")) or "",
        os=text_or(value.get("os")) or "",
        variant=text_or(value.get("variant")),
        os_version=text_or(value.get("os.version")),
    )
