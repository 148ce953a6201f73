"""One image of each kind of content, for the table of `docs/content.md`."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Mapping
from typing import Final

from replicator.demo.images import AMD64, ARM64, BuiltImage, image, index, layer
from replicator.model.digest import Digest, digest_of
from replicator.model.manifest import parse_manifest
from replicator.model.mediatypes import OCI_MANIFEST
from tests.fakes import content

ZSTD: Final = bytes.fromhex("28b52ffd2000010000")
"""The empty input, as `zstd` compresses it."""
_EMPTY: Final = "application/vnd.oci.empty.v1+json"


def _artifact(
    config: tuple[str, bytes],
    *layers: tuple[str, bytes],
    algorithm: str = "sha256",
    inline: bool = False,
    **members: object,
) -> BuiltImage:
    """A manifest of this config and these layers, each a media type and its content."""
    blobs = {digest_of(data, algorithm): data for _, data in (config, *layers)}

    def descriptor(part: tuple[str, bytes]) -> Mapping[str, object]:
        media_type, data = part
        carried = {"data": base64.b64encode(data).decode()} if inline else {}
        return {
            "mediaType": media_type,
            "digest": digest_of(data, algorithm),
            "size": len(data),
            **carried,
        }

    body = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config),
        "layers": [descriptor(part) for part in layers],
        **members,
    }
    return BuiltImage(parse_manifest(json.dumps(body).encode(), OCI_MANIFEST), blobs)


def helm() -> BuiltImage:
    """A chart as helm pushes it."""
    chart = gzip.compress(b"name: chart", mtime=0)
    return _artifact(
        (
            "application/vnd.cncf.helm.config.v1+json",
            b'{"name": "chart", "version": "0.1.0", "apiVersion": "v2"}',
        ),
        ("application/vnd.cncf.helm.chart.content.v1.tar+gzip", chart),
    )


def wasm() -> BuiltImage:
    """A component as wasm-to-oci and wkg push it."""
    config = (
        b'{"created": "2024-01-01T00:00:00Z", "architecture": "wasm", "os": "wasip2", "layerDigests": []}'
    )
    return _artifact(("application/vnd.wasm.config.v0+json", config), ("application/wasm", b"\0asm\r\0\1\0"))


def model() -> BuiltImage:
    """A model as Docker Model Runner packs it."""
    return _artifact(
        ("application/vnd.docker.ai.model.config.v0.1+json", b'{"config": {"format": "gguf"}}'),
        ("application/vnd.docker.ai.gguf.v3", b"GGUF\3\0\0\0"),
        ("application/vnd.docker.ai.license", b"MIT"),
    )


def any_config() -> BuiltImage:
    """A config of a type that nobody knows, and that is not JSON."""
    return _artifact(("application/vnd.example.settings", b"\xff\0"), ("application/x-anything", b"anything"))


def empty_config() -> BuiltImage:
    """An OCI 1.1 artifact with the empty config as a blob."""
    return _artifact((_EMPTY, b"{}"), ("text/plain", b"notes"), artifactType="application/vnd.example.notes")


def inline_data() -> BuiltImage:
    """An artifact whose descriptors carry their content."""
    return _artifact(
        (_EMPTY, b"{}"), ("text/plain", b"inline"), inline=True, artifactType="application/vnd.example.notes"
    )


def zstd() -> BuiltImage:
    """An image whose layer is compressed by zstd."""
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(b"")]}}
    )
    return _artifact(
        ("application/vnd.oci.image.config.v1+json", config.encode()),
        ("application/vnd.oci.image.layer.v1.tar+zstd", ZSTD),
    )


def sha512_blobs() -> BuiltImage:
    """An artifact whose content is named by sha512, and its manifest by sha256."""
    return _artifact(
        ("application/vnd.example.config.v1+json", b'{"long": true}'),
        ("application/octet-stream", b"named by a long digest"),
        algorithm="sha512",
    )


def sha512_manifest() -> BuiltImage:
    """An image whose manifest is named by sha512."""
    built = image("named by a long digest")
    body = built.manifest.body
    return BuiltImage(parse_manifest(body, OCI_MANIFEST, digest_of(body, "sha512")), built.blobs)


def foreign(url: str, base: bytes) -> BuiltImage:
    """An older Windows image: the base layer, `base`, is at that URL, and perhaps in no registry."""
    built = content.docker_image("windows")
    body = json.loads(built.manifest.body)
    named = {"mediaType": content.FOREIGN_LAYER, "digest": digest_of(base), "size": len(base), "urls": [url]}
    body["layers"].insert(0, named)
    return BuiltImage(parse_manifest(json.dumps(body).encode(), built.manifest.media_type), built.blobs)


def platforms() -> BuiltImage:
    """A multi-platform image."""
    shared = layer("shared by platforms")
    return index([image("amd64", [shared], platform=AMD64), image("arm64", [shared], platform=ARM64)])


KINDS: Final[Mapping[str, Callable[[], BuiltImage]]] = {
    "multi-platform image": platforms,
    "buildkit attestations": lambda: content.with_attestation("attested"),
    "nested indexes": lambda: content.nested_index("nested"),
    "zstd layers": zstd,
    "Docker schema 2": lambda: content.docker_image("docker"),
    "Docker manifest list": lambda: content.docker_list(content.docker_image("a"), content.docker_image("b")),
    "Helm chart": helm,
    "WASM": wasm,
    "model": model,
    "unknown config type": any_config,
    "empty config": empty_config,
    "inline `data`": inline_data,
    "blobs by sha512": sha512_blobs,
    "manifest by sha512": sha512_manifest,
    "Docker schema 1": lambda: content.schema1("old", name="kinds/docker-schema-1", tag="v1"),
}


def digests(built: BuiltImage) -> set[Digest]:
    """Of all blobs."""
    return {digest for one in built.walk() for digest in one.blobs}
