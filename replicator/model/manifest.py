"""Manifests: the bytes as received, and the edges read from them.

The bytes are what is pushed; what is parsed here only decides where the walk goes.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Container, Sequence
from typing import Final

import msgspec

from replicator.model import schema1
from replicator.model.descriptor import Descriptor, read_annotations, read_descriptor
from replicator.model.digest import Digest, digest_of
from replicator.model.mediatypes import (
    ARTIFACTS,
    DOCKER_SCHEMA1,
    DOCKER_SCHEMA1_SIGNED,
    IMAGES,
    INDEXES,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1,
)
from replicator.model.strictjson import Members, check_names, read_object, text_or

MAX_MANIFEST_BYTES: Final = 8 * 1024 * 1024
"""Registries promise 4 MiB; clients of the field read up to 8."""
_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}", re.ASCII)
_SAYS_NOTHING: Final = frozenset({"", "application/json", "text/plain", "application/octet-stream"})
"""Content-Types of storage and of proxies, which do not know what they serve."""
_NAMES: Final = {
    name.casefold(): name
    for name in (
        "schemaVersion",
        "mediaType",
        "config",
        "layers",
        "blobs",
        "manifests",
        "subject",
        "artifactType",
    )
}


class Kind(enum.Enum):
    """How a manifest is walked."""

    INDEX = "index"
    IMAGE = "image"
    SCHEMA1 = "schema1"
    UNKNOWN = "unknown"


class Manifest(msgspec.Struct, frozen=True):
    """One manifest: descriptor of the body, the body's exact bytes, and its edges.

    `blobs` are config and layers in the order of the manifest, each digest once, foreign layers left out;
    `children` the manifests of an index, each digest once. An unknown media type has no edges. `served_as` is the
    Content-Type that it came with, where that contradicts the document. `left_out`: children that the body names and
    that are not wanted with it (see `sparse`); parsing leaves none out.
    """

    descriptor: Descriptor
    body: bytes
    kind: Kind
    blobs: tuple[Descriptor, ...] = ()
    children: tuple[Descriptor, ...] = ()
    config: Descriptor | None = None
    subject: Descriptor | None = None
    served_as: str = ""
    left_out: tuple[Descriptor, ...] = ()
    foreign: tuple[Descriptor, ...] = ()

    @property
    def digest(self) -> Digest:
        """The digest of the body."""
        return self.descriptor.digest

    @property
    def media_type(self) -> str:
        """The media type to push it with."""
        return self.descriptor.media_type


def parse_manifest(body: bytes, media_type: str, digest: Digest | None = None) -> Manifest:
    """Reads the edges of a manifest: strict in all that is followed, lenient in all that is not.

    The document's own `mediaType` decides what it is, else its shape. The Content-Type only chooses between the
    OCI and the Docker type where the document has no `mediaType`.

    Args:
        body: the exact bytes; `MAX_MANIFEST_BYTES` at most.
        media_type: the Content-Type it was served with; parameters are ignored.
        digest: the digest the bytes were verified against (of schema 1: its payload); computed (sha256) where None. Not
            verified here.

    Raises:
        ValueError: too large, not JSON that all clients read alike (see `strictjson`), not a manifest, or an edge
            that is not a descriptor with digest and size.
    """
    if len(body) > MAX_MANIFEST_BYTES:
        raise ValueError(f"manifest of {len(body)} bytes is larger than the {MAX_MANIFEST_BYTES} allowed")
    served = media_type.partition(";")[0].strip().lower()
    document = read_object(body)
    check_names(document, _NAMES, "the manifest")
    kind, actual = _kind(document, served)
    served_as = "" if served in _SAYS_NOTHING or served == actual else served[:100]
    if kind is Kind.SCHEMA1:
        payload = schema1.payload(body)
        descriptor = Descriptor(actual, digest or digest_of(payload), len(body))
        return Manifest(descriptor, body, kind, blobs=tuple(schema1.layers(payload)), served_as=served_as)
    descriptor = Descriptor(
        actual, digest or digest_of(body), len(body), artifact_type=text_or(document.get("artifactType"))
    )
    config = read_descriptor(document["config"], "config") if document.get("config") is not None else None
    subject = read_descriptor(document["subject"], "subject") if document.get("subject") is not None else None
    named = _descriptors(document, "blobs" if actual in ARTIFACTS else "layers") if kind is Kind.IMAGE else []
    blobs = _distinct([*([config] if config and kind is Kind.IMAGE else []), *named])
    return Manifest(
        descriptor,
        body,
        kind,
        blobs=tuple(blob for blob in blobs if not blob.is_foreign),
        children=_distinct(_descriptors(document, "manifests")) if kind is Kind.INDEX else (),
        config=config,
        subject=subject,
        served_as=served_as,
        foreign=tuple(blob for blob in blobs if blob.is_foreign),
    )


def entries(manifest: Manifest) -> Sequence[Descriptor]:
    """The descriptors of an index as it has them: a digest may be there for several platforms."""
    return _descriptors(read_object(manifest.body), "manifests") if manifest.kind is Kind.INDEX else ()


def sparse(manifest: Manifest, kept: Container[Digest]) -> Manifest:
    """The same index, with only these children to follow."""
    every = (*manifest.children, *manifest.left_out)
    return msgspec.structs.replace(
        manifest,
        children=tuple(child for child in every if child.digest in kept),
        left_out=tuple(child for child in every if child.digest not in kept),
    )


def with_foreign_layers(manifest: Manifest) -> Manifest:
    """The same manifest, with its foreign layers among the blobs."""
    if not manifest.foreign:
        return manifest
    return msgspec.structs.replace(manifest, blobs=(*manifest.blobs, *manifest.foreign), foreign=())


def described(manifest: Manifest) -> Descriptor:
    """A manifest as listings of referrers describe it (distribution-spec, "Listing Referrers")."""
    artifact_type = manifest.descriptor.artifact_type or (
        manifest.config.media_type if manifest.config else None
    )
    return Descriptor(
        manifest.media_type,
        manifest.digest,
        len(manifest.body),
        artifact_type=artifact_type,
        annotations=annotations_of(manifest),
    )


def annotations_of(manifest: Manifest) -> dict[str, str] | None:
    """A manifest's own annotations; None where it has none that can be used."""
    if b"annotations" not in manifest.body and b"\\" not in manifest.body:  # nor is it there as an escape
        return None
    try:
        return read_annotations(read_object(manifest.body).get("annotations"))
    except ValueError:
        return None


def _kind(document: Members, served: str) -> tuple[Kind, str]:
    """What the document is, and its media type."""
    declared = document.get("mediaType")
    if declared is not None and not (
        isinstance(declared, str) and (not declared or _TYPE.fullmatch(declared))
    ):
        raise ValueError(f"its mediaType {str(declared)[:50]!r} is not a media type")
    version = document.get("schemaVersion")
    if type(version) is int and version == 1:
        default = DOCKER_SCHEMA1 if document.get("signatures") is None else DOCKER_SCHEMA1_SIGNED
        return Kind.SCHEMA1, next((each for each in (declared, served) if each in SCHEMA1), default)
    if declared and declared not in INDEXES | IMAGES | ARTIFACTS | SCHEMA1:
        return Kind.UNKNOWN, declared
    if not (type(version) is int and version == 2) and declared not in ARTIFACTS:
        raise ValueError(f"not a manifest: its schemaVersion is {_short(version)}, not 2")
    kind = _shape(document, declared or served)
    types = INDEXES if kind is Kind.INDEX else IMAGES
    if declared:
        if declared not in types | (ARTIFACTS if kind is Kind.IMAGE else frozenset()):
            raise ValueError(f"its mediaType is {declared}, but its members are those of an {kind.value}")
        return kind, declared
    if served in types:
        return kind, served
    return kind, OCI_INDEX if kind is Kind.INDEX else OCI_MANIFEST


def _shape(document: Members, said: str) -> Kind:
    """What the members make it. Null is what Go writes for an empty list."""
    is_image = "layers" in document and document.get("config") is not None
    is_artifact = said in ARTIFACTS and not is_image
    has_manifests = document.get("manifests") is not None
    if has_manifests and (document.get("config") is not None or document.get("layers") is not None):
        raise ValueError("it is an index and an image at once: clients disagree about what it means")
    if has_manifests or ("manifests" in document and not is_image and said in INDEXES):
        return Kind.INDEX
    if is_image or is_artifact:
        return Kind.IMAGE
    raise ValueError("not a manifest: it has neither config and layers nor manifests")


def _descriptors(document: Members, name: str) -> list[Descriptor]:
    items = document.get(name)
    if items is None:
        return []
    if not isinstance(items, list):
        raise ValueError(f"{name} is {_short(items)}, not a list")  # noqa: TRY004 - foreign content
    return [read_descriptor(item, f"{name}[{at}]") for at, item in enumerate(items)]


def _distinct(descriptors: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    seen: dict[str, Descriptor] = {}
    for descriptor in descriptors:
        first = seen.setdefault(descriptor.digest, descriptor)
        if first.size != descriptor.size:
            raise ValueError(f"{first.digest} has two sizes in it, {first.size} and {descriptor.size}")
    return tuple(seen.values())


def _short(value: object) -> str:
    return "missing" if value is None else f"{value!r:.40}"
