"""Small images that every container engine accepts, the same bytes for the same seed."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from replicator.demo.store import Blob, Store
from replicator.model.descriptor import Descriptor, Platform
from replicator.model.digest import Digest, digest_of
from replicator.model.manifest import Manifest, parse_manifest
from replicator.model.mediatypes import OCI_INDEX, OCI_MANIFEST

CREATED: Final = "2024-01-01T00:00:00Z"
AMD64: Final = Platform("amd64", "linux")
ARM64: Final = Platform("arm64", "linux")
LAYER_BYTES: Final = 2_000

_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: the compressed tar, and the digest of the tar (its "diff id")."""

    data: bytes
    diff_id: Digest


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """A manifest and all that it leads to: its own blobs, or (an index) its children."""

    manifest: Manifest
    blobs: Mapping[Digest, bytes]
    children: tuple[BuiltImage, ...] = ()
    platform: Platform | None = None

    @property
    def digest(self) -> Digest:
        """The root's digest."""
        return self.manifest.digest

    def walk(self) -> Iterator[BuiltImage]:
        """This and everything below, children before parents."""
        for child in self.children:
            yield from child.walk()
        yield self


def layer(seed: str, size: int = LAYER_BYTES) -> Layer:
    """A layer with one file of `size` bytes that no compression makes smaller."""
    noise = hashlib.shake_128(seed.encode(), usedforsecurity=False).digest(size)
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        entry = tarfile.TarInfo(f"data/{digest_of(seed.encode())[7:19]}")
        entry.size = size
        archive.addfile(entry, io.BytesIO(noise))
    return Layer(gzip.compress(tarred.getvalue(), compresslevel=1, mtime=0), digest_of(tarred.getvalue()))


def image(
    seed: str,
    layers: int | Sequence[Layer] = 2,
    *,
    platform: Platform = AMD64,
    subject: Descriptor | None = None,
    created: str = CREATED,
) -> BuiltImage:
    """An OCI image.

    Args:
        seed: what tells this image's content from another's.
        layers: how many layers of its own, or the layers (which other images may share).
        platform: what the config says it runs on.
        subject: what it refers to, which makes it a referrer.
        created: when the config says it was built, RFC 3339.
    """
    stack = [layer(f"{seed}/{number}") for number in range(layers)] if isinstance(layers, int) else layers
    config = msgspec.json.encode(
        {
            "created": created,
            "architecture": platform.architecture,
            "os": platform.os,
            **({"variant": platform.variant} if platform.variant else {}),
            "config": {"Labels": {"seed": seed}},
            "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in stack]},
            "history": [{"created": created, "created_by": seed} for _ in stack],
        }
    )
    body: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _descriptor(_CONFIG, config),
        "layers": [_descriptor(_LAYER, one.data) for one in stack],
    }
    if subject is not None:
        body["subject"] = subject
    blobs = {digest_of(data): data for data in [config, *(one.data for one in stack)]}
    return BuiltImage(parse_manifest(msgspec.json.encode(body), OCI_MANIFEST), blobs, platform=platform)


def index(images: Sequence[BuiltImage], annotations: Mapping[str, str] | None = None) -> BuiltImage:
    """An OCI index of images (or of indexes)."""
    children = [msgspec.structs.replace(one.manifest.descriptor, platform=one.platform) for one in images]
    body: dict[str, object] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
    if annotations:
        body["annotations"] = dict(annotations)
    return BuiltImage(parse_manifest(msgspec.json.encode(body), OCI_INDEX), {}, tuple(images))


def load(store: Store, repository: str, tag: str | None, built: BuiltImage) -> Digest:
    """Puts an image into a store, whole, and tags it (unless `tag` is None); returns the root's digest."""
    for one in built.walk():
        for digest, data in one.blobs.items():
            store.add_blob(repository, digest, Blob(data))
        store.put_manifest(repository, one.manifest, tag if one is built else None)
    return built.digest


def _descriptor(media_type: str, data: bytes) -> Descriptor:
    return Descriptor(media_type, digest_of(data), len(data))
