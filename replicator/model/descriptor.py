"""Descriptor: what content is, how large, and by which name. OCI image-spec, descriptor.md."""

from __future__ import annotations

import msgspec

from replicator.model.digest import Digest
from replicator.model.mediatypes import FOREIGN_LAYERS


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
