"""Odd images of the field, each a `BuiltImage` (mode 21 of the fakes' list)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Final

import msgspec
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from replicator.demo.images import BuiltImage, image, index, layer
from replicator.model.descriptor import Descriptor, Platform
from replicator.model.digest import digest_of
from replicator.model.manifest import Manifest, parse_manifest
from replicator.model.mediatypes import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_SCHEMA1,
    DOCKER_SCHEMA1_SIGNED,
    OCI_INDEX,
    OCI_MANIFEST,
)

FOREIGN_LAYER: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
UNKNOWN: Final = "application/vnd.example.thing.v1+json"


def docker_image(seed: str) -> BuiltImage:
    """An image as Docker's own formats have it."""
    built = image(seed)
    body = json.loads(built.manifest.body)
    body["mediaType"] = DOCKER_MANIFEST
    body["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    for one in body["layers"]:
        one["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    return BuiltImage(_parsed(body, DOCKER_MANIFEST), built.blobs, platform=built.platform)


def docker_list(*images: BuiltImage) -> BuiltImage:
    """A Docker manifest list."""
    body = json.loads(index(images).manifest.body) | {"mediaType": DOCKER_LIST}
    return BuiltImage(_parsed(body, DOCKER_LIST), {}, images)


def without_media_type(seed: str) -> BuiltImage:
    """OCI 1.0: the JSON does not say what it is."""
    built = image(seed)
    body = json.loads(built.manifest.body)
    del body["mediaType"]
    return BuiltImage(_parsed(body, OCI_MANIFEST), built.blobs, platform=built.platform)


def with_foreign_layer(seed: str) -> BuiltImage:
    """A Windows image: one layer is at Microsoft's and in no registry."""
    built = image(seed)
    body = json.loads(built.manifest.body)
    foreign = {
        "mediaType": FOREIGN_LAYER,
        "digest": digest_of(b"windows"),
        "size": 7,
        "urls": ["https://go.example.invalid/layer"],
    }
    body["layers"].insert(0, foreign)
    return BuiltImage(_parsed(body, OCI_MANIFEST), built.blobs, platform=built.platform)


def with_repeated_layer(seed: str) -> BuiltImage:
    """One layer twice, as from a Dockerfile that does the same thing twice."""
    built = image(seed)
    body = json.loads(built.manifest.body)
    body["layers"].append(body["layers"][0])
    return BuiltImage(_parsed(body, OCI_MANIFEST), built.blobs, platform=built.platform)


def artifact(
    seed: str, subject: Manifest | None = None, artifact_type: str = "application/vnd.example+type"
) -> BuiltImage:
    """An OCI 1.1 artifact: the empty config inline, one layer of any type; a referrer where it has a subject."""
    empty, data = b"{}", seed.encode()
    body: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": digest_of(empty),
            "size": len(empty),
            "data": base64.b64encode(empty).decode(),
        },
        "layers": [{"mediaType": "text/plain", "digest": digest_of(data), "size": len(data)}],
        "annotations": {"org.example.seed": seed},
    }
    if subject is not None:
        body["subject"] = msgspec.to_builtins(subject.descriptor)
    return BuiltImage(_parsed(body, OCI_MANIFEST), {digest_of(empty): empty, digest_of(data): data})


def nested_index(seed: str) -> BuiltImage:
    """An index of an index and an image."""
    return index([index([image(f"{seed}/inner")]), image(f"{seed}/outer")])


def with_attestation(seed: str, *others: BuiltImage) -> BuiltImage:
    """What buildkit pushes: images, and after each a child of no platform that vouches for it."""
    images = (image(seed), *others)
    attestations = [artifact(f"{seed}/attestation/{number}") for number in range(len(images))]
    body = json.loads(index(images).manifest.body)
    entries, children = body["manifests"], list[BuiltImage]()
    body["manifests"] = []
    for entry, built, attestation in zip(entries, images, attestations, strict=True):
        described = msgspec.structs.replace(
            attestation.manifest.descriptor,
            platform=Platform("unknown", "unknown"),
            annotations={
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": built.digest,
            },
        )
        body["manifests"] += [entry, msgspec.to_builtins(described)]
        children += [built, attestation]
    return BuiltImage(_parsed(body, OCI_INDEX), {}, tuple(children))


def schema1(seed: str, name: str = "app", tag: str = "old", *, signed: bool = True) -> BuiltImage:
    """Docker's first format, with one layer; the digest is of what is signed."""
    blobs = {digest_of(built.data): built.data for built in [layer(seed)]}
    body = {
        "schemaVersion": 1,
        "name": name,
        "tag": tag,
        "architecture": "amd64",
        "fsLayers": [{"blobSum": digest} for digest in blobs],
        "history": [{"v1Compatibility": json.dumps({"id": seed, "os": "linux"})} for _ in blobs],
    }
    payload = json.dumps(body, indent=3).encode()
    if not signed:
        return BuiltImage(parse_manifest(payload, DOCKER_SCHEMA1), blobs)
    return BuiltImage(parse_manifest(jws(payload), DOCKER_SCHEMA1_SIGNED), blobs)


def jws(payload: bytes) -> bytes:
    """The payload, signed as libtrust does: the signatures are a member put before the last brace."""
    key = ec.generate_private_key(ec.SECP256R1())
    cut = payload.rindex(b"\n}")
    tail = {"formatLength": cut, "formatTail": _base64(payload[cut:]), "time": "2015-01-01T00:00:00Z"}
    protected = _base64(json.dumps(tail).encode())
    der = key.sign(f"{protected}.{_base64(payload)}".encode(), ec.ECDSA(hashes.SHA256()))
    signature = b"".join(part.to_bytes(32, "big") for part in decode_dss_signature(der))
    numbers = key.public_key().public_numbers()
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    name = base64.b32encode(hashlib.sha256(spki).digest()[:30]).decode()
    jwk = {
        "crv": "P-256",
        "kid": ":".join(name[at : at + 4] for at in range(0, len(name), 4)),
        "kty": "EC",
        "x": _base64(numbers.x.to_bytes(32, "big")),
        "y": _base64(numbers.y.to_bytes(32, "big")),
    }
    entry = {"header": {"jwk": jwk, "alg": "ES256"}, "signature": _base64(signature), "protected": protected}
    return payload[:cut] + b',\n   "signatures": ' + json.dumps([entry]).encode() + payload[cut:]


def _base64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unknown_type(seed: str) -> BuiltImage:
    """A manifest of a kind that nobody told us of."""
    return BuiltImage(_parsed({"schemaVersion": 2, "mediaType": UNKNOWN, "seed": seed}, UNKNOWN), {})


def large_manifest(seed: str, size: int = 5 * 1024 * 1024) -> BuiltImage:
    """An image whose manifest has at least `size` bytes: more than registries take."""
    built = image(seed)
    body = json.loads(built.manifest.body) | {"annotations": {"padding": "x" * size}}
    return BuiltImage(_parsed(body, OCI_MANIFEST), built.blobs, platform=built.platform)


def odd_descriptors(seed: str) -> BuiltImage:
    """An image with null where builders of the field write it."""
    built = image(seed)
    body = json.loads(built.manifest.body)
    odd = {"urls": None, "annotations": {"note": None}, "platform": {"os": "linux", "variant": None}}
    body["layers"] = [{**entry, **odd, "mediaType": None} for entry in body["layers"]]
    return BuiltImage(_parsed(body, OCI_MANIFEST), built.blobs, platform=built.platform)


def sparse_index(seed: str) -> BuiltImage:
    """An index one of whose children is nowhere."""
    body = json.loads(index([image(seed)]).manifest.body)
    missing = Descriptor(OCI_MANIFEST, digest_of(f"{seed}/missing".encode()), 500)
    body["manifests"].append(msgspec.to_builtins(missing))
    return BuiltImage(_parsed(body, OCI_INDEX), {}, (image(seed),))


def _parsed(body: Mapping[str, object], media_type: str) -> Manifest:
    return parse_manifest(json.dumps(body, separators=(",", ":")).encode(), media_type)
