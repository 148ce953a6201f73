"""Signatures as cosign and others make them, by keys of this process."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from replicator.demo.images import BuiltImage
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, digest_of
from replicator.model.manifest import parse_manifest
from replicator.model.mediatypes import OCI_MANIFEST
from replicator.trust.keys import read_public_key
from replicator.trust.policy import PublicKey
from replicator.trust.statement import SIGNED, Envelope
from replicator.trust.verify import Signature

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
DSSE = "application/vnd.dsse.envelope.v1+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"

_Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(frozen=True)
class Signer:
    """A key pair. `scheme` is how it signs."""

    private: _Private
    name: str = "release.pub"
    scheme: Literal["pkcs1", "pss"] = "pkcs1"
    hash: hashes.HashAlgorithm | None = None

    @classmethod
    def ecdsa(cls, name: str = "release.pub", curve: ec.EllipticCurve | None = None) -> Signer:
        return cls(ec.generate_private_key(curve or ec.SECP256R1()), name)

    @property
    def pem(self) -> bytes:
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def private_pem(self) -> bytes:
        return self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @property
    def key(self) -> PublicKey:
        return read_public_key(self.pem, self.name)

    def sign(self, data: bytes) -> bytes:
        private, used = self.private, self.hash
        if isinstance(private, ed25519.Ed25519PrivateKey):
            return private.sign(data)
        if isinstance(private, rsa.RSAPrivateKey):
            used = used or hashes.SHA256()
            if self.scheme == "pss":
                return private.sign(data, padding.PSS(padding.MGF1(used), padding.PSS.DIGEST_LENGTH), used)
            return private.sign(data, padding.PKCS1v15(), used)
        return private.sign(data, ec.ECDSA(used or hashes.SHA256()))


def statement(subject: Digest, predicate: str = SIGNED, **more: Any) -> bytes:
    algorithm, _, value = subject.partition(":")
    annotations = more.pop("annotations", {})
    return json.dumps(
        {
            "_type": STATEMENT,
            "subject": [{"digest": {algorithm: value}, "annotations": annotations}],
            "predicateType": predicate,
            "predicate": {},
            **more,
        }
    ).encode()


def envelope(signer: Signer, payload: bytes, kind: str = "application/vnd.in-toto+json") -> dict[str, Any]:
    signature = signer.sign(Envelope(kind, payload, b"").signed)
    return {"payload": b64(payload), "payloadType": kind, "signatures": [{"sig": b64(signature)}]}


def bundle(
    signer: Signer,
    subject: Digest,
    predicate: str = SIGNED,
    *,
    media_type: str = BUNDLE,
    payload: bytes | None = None,
    annotations: Mapping[str, str] | None = None,
) -> bytes:
    """As `cosign sign --key` of cosign 3."""
    said = payload if payload is not None else statement(subject, predicate, annotations=annotations or {})
    return json.dumps(
        {
            "mediaType": media_type,
            "verificationMaterial": {"publicKey": {"hint": signer.key.id}, "tlogEntries": []},
            "dsseEnvelope": envelope(signer, said),
        }
    ).encode()


def message_bundle(signer: Signer, manifest: bytes) -> bytes:
    """As `cosign sign-blob --key` of a manifest."""
    return json.dumps(
        {
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": ""}},
            "messageSignature": {
                "messageDigest": {
                    "algorithm": "SHA2_256",
                    "digest": b64(bytes.fromhex(digest_of(manifest).partition(":")[2])),
                },
                "signature": b64(signer.sign(manifest)),
            },
        }
    ).encode()


def payload(subject: Digest, repository: str = "registry.example.com/app", **optional: str) -> bytes:
    return json.dumps(
        {
            "critical": {
                "identity": {"docker-reference": repository},
                "image": {"docker-manifest-digest": subject},
                "type": "cosign container image signature",
            },
            "optional": optional or None,
        }
    ).encode()


def legacy(signer: Signer, said: bytes) -> Signature:
    """As a layer of cosign's `.sig` tag."""
    return Signature(
        "tag", "simple signing", said, {"dev.cosignproject.cosign/signature": b64(signer.sign(said))}
    )


def _manifest(
    layers: Sequence[tuple[str, bytes, Mapping[str, str]]],
    *,
    artifact_type: str | None = None,
    subject: BuiltImage | None = None,
    created: str = "",
) -> BuiltImage:
    config = b"{}"
    blobs = {digest_of(config): config, **{digest_of(body): body for _, body, _ in layers}}
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": Descriptor("application/vnd.oci.empty.v1+json", digest_of(config), 2),
        "layers": [
            Descriptor(kind, digest_of(body), len(body), annotations=dict(annotations) or None)
            for kind, body, annotations in layers
        ],
        "subject": subject.manifest.descriptor if subject else None,
        "annotations": {"org.opencontainers.image.created": created} if created else None,
    }
    body = msgspec.json.encode({key: value for key, value in document.items() if value is not None})
    return BuiltImage(parse_manifest(body, OCI_MANIFEST), blobs)


def bundle_referrer(subject: BuiltImage, body: bytes, *, created: str = "") -> BuiltImage:
    """A bundle as cosign 3 attaches it."""
    return _manifest([(BUNDLE, body, {})], artifact_type=BUNDLE, subject=subject, created=created)


def sig_tag(*signatures: Signature) -> BuiltImage:
    """What cosign's `.sig` tag names: a layer for each signature."""
    return _manifest([(SIMPLE, each.body, each.annotations) for each in signatures])


def att_tag(*bodies: bytes | Signature) -> BuiltImage:
    """What cosign's `.att` tag names: a layer for each envelope."""
    plain = {"dev.cosignproject.cosign/signature": ""}
    return _manifest(
        [
            (DSSE, each, plain) if isinstance(each, bytes) else (DSSE, each.body, each.annotations)
            for each in bodies
        ]
    )
