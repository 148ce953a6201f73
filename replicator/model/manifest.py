"""Manifests: the bytes as received, and the edges read from them.

The bytes are what is pushed; what is parsed here only decides where the walk goes.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from replicator.model.decoding import JSON_ERRORS
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, digest_of, parse_digest
from replicator.model.mediatypes import DOCKER_SCHEMA1, IMAGES, INDEXES, OCI_INDEX, OCI_MANIFEST, SCHEMA1

MAX_MANIFEST_BYTES: Final = 8 * 1024 * 1024
"""Registries promise 4 MiB; clients of the field read up to 8."""
MAX_CHILDREN: Final = 1_000
MAX_BLOBS: Final = 4_096


class Kind(enum.Enum):
    """How a manifest is walked."""

    INDEX = "index"
    IMAGE = "image"
    SCHEMA1 = "schema1"
    UNKNOWN = "unknown"


class Manifest(msgspec.Struct, frozen=True):
    """One manifest: descriptor of the body, the body's exact bytes, and its edges.

    `blobs` are config and layers in the order of the manifest, each digest once, foreign layers left out;
    `children` the manifests of an index, each digest once. An unknown media type has no edges.
    """

    descriptor: Descriptor
    body: bytes
    kind: Kind
    blobs: tuple[Descriptor, ...] = ()
    children: tuple[Descriptor, ...] = ()
    config: Descriptor | None = None
    subject: Descriptor | None = None

    @property
    def digest(self) -> Digest:
        """The digest of the body."""
        return self.descriptor.digest

    @property
    def media_type(self) -> str:
        """The media type it was served with, which is the one to push it with."""
        return self.descriptor.media_type


class _Edges(msgspec.Struct, rename="camel"):
    """The parts of a manifest's JSON that carry edges, whatever its kind."""

    schema_version: int | None = None
    media_type: str | None = None
    artifact_type: str | None = None
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    blobs: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None
    subject: Descriptor | None = None


class _Annotated(msgspec.Struct):
    """What only listings of referrers ask of a manifest."""

    annotations: dict[str, str] | None = None


_decoder: Final = msgspec.json.Decoder(_Edges)


def parse_manifest(body: bytes, media_type: str, digest: Digest | None = None) -> Manifest:
    """Reads the edges of a manifest.

    Args:
        body: the exact bytes; `MAX_MANIFEST_BYTES` at most.
        media_type: the Content-Type it was served with; parameters are ignored, and where it names no manifest
            type the JSON's own `mediaType`, else its shape, decides.
        digest: the digest the bytes were verified against; computed (sha256) where None. Not verified here.

    Raises:
        ValueError: too large, not a JSON object, an edge that is no descriptor, too many edges, a size below
            zero, or a media type in the JSON that contradicts the one it was served with.
    """
    if len(body) > MAX_MANIFEST_BYTES:
        raise ValueError(f"manifest of {len(body)} bytes is larger than the {MAX_MANIFEST_BYTES} allowed")
    served = media_type.partition(";")[0].strip()
    digest = digest or digest_of(body)
    if served in SCHEMA1:
        return Manifest(Descriptor(served, digest, len(body)), body, Kind.SCHEMA1)
    try:
        edges = _decoder.decode(body)
    except JSON_ERRORS as error:
        raise ValueError(f"manifest is not usable JSON: {error}") from error
    actual = _media_type(served, edges)
    descriptor = Descriptor(actual, digest, len(body), artifact_type=edges.artifact_type)
    if actual in INDEXES:
        children = _distinct(edges.manifests or [], MAX_CHILDREN, "children")
        return Manifest(descriptor, body, Kind.INDEX, children=children, subject=edges.subject)
    if actual in IMAGES:
        blobs = ([edges.config] if edges.config else []) + (edges.layers or [])
        return Manifest(
            descriptor,
            body,
            Kind.IMAGE,
            blobs=tuple(blob for blob in _distinct(blobs, MAX_BLOBS, "blobs") if not blob.is_foreign),
            config=edges.config,
            subject=edges.subject,
        )
    if actual in SCHEMA1:
        return Manifest(descriptor, body, Kind.SCHEMA1)
    return Manifest(descriptor, body, Kind.UNKNOWN, subject=edges.subject)


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
    try:
        return msgspec.json.decode(manifest.body, type=_Annotated).annotations
    except JSON_ERRORS:
        return None


def _media_type(served: str, edges: _Edges) -> str:
    known = INDEXES | IMAGES
    if edges.media_type:
        if served in known and edges.media_type != served:
            raise ValueError(f"served as {served} but its mediaType says {edges.media_type}")
        return edges.media_type
    if served in known:
        return served
    if edges.schema_version == 1:
        return DOCKER_SCHEMA1
    if served in {"", "application/json", "text/plain", "application/octet-stream"}:
        # Old Artifactory and some proxies: the shape decides, as image-spec allows where mediaType is absent.
        return OCI_INDEX if edges.manifests is not None else OCI_MANIFEST
    return served


def _distinct(descriptors: list[Descriptor], most: int, what: str) -> tuple[Descriptor, ...]:
    if len(descriptors) > most:
        raise ValueError(f"manifest names {len(descriptors)} {what}, more than the {most} allowed")
    seen: dict[str, Descriptor] = {}
    for descriptor in descriptors:
        parse_digest(descriptor.digest)
        if descriptor.size is not None and descriptor.size < 0:
            raise ValueError(f"{descriptor.digest} has a size of {descriptor.size}")
        seen.setdefault(descriptor.digest, descriptor)
    return tuple(seen.values())
