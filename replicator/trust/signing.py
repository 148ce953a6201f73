"""Signs images at a destination: a signature, and a statement about the copy, as cosign 3 attaches them.

sigstore/cosign, specs/BUNDLE_SPEC.md: a bundle by a key, in a referrer of its own.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, algorithm, digest_of, encoded
from replicator.model.manifest import Manifest, parse_manifest
from replicator.model.mediatypes import OCI_EMPTY, OCI_MANIFEST
from replicator.trust.statement import IN_TOTO, SIGNED, Envelope

MIRRORED: Final = "https://replicator.invalid/mirroring/v1"
"""Predicate type of the statement about a copy."""
_BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_EMPTY: Final = b"{}"
_MIN_RSA_BITS: Final = 2048


@dataclass(frozen=True, slots=True)
class Attached:
    """A referrer made here: its manifest, and its blobs by digest."""

    manifest: Manifest
    blobs: Mapping[Digest, bytes] = field(repr=False)


def check_signing_key(pem: str) -> None:
    """Raises ValueError for what is not a private key that cosign verifies by default; never quotes it."""
    _private(pem)


def signature_of(pem: str, image: Descriptor) -> Attached:
    """A signature of an image. The same key and image give the same bytes, so signing again adds nothing."""
    return _attached(pem, image, SIGNED, {}, {})


def mirroring_of(pem: str, image: Descriptor, said: Mapping[str, Any], created: str) -> Attached:
    """A statement about a copy of an image.

    Args:
        pem: the key.
        image: the copy.
        said: the predicate.
        created: when, in RFC 3339.
    """
    return _attached(pem, image, MIRRORED, said, {"org.opencontainers.image.created": created})


def _attached(
    pem: str, image: Descriptor, predicate: str, said: Mapping[str, Any], annotations: Mapping[str, str]
) -> Attached:
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {algorithm(image.digest): encoded(image.digest)}, "annotations": {}}],
        "predicateType": predicate,
        "predicate": said,
    }
    bundle = _bundle(pem, _json(statement))
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": _BUNDLE,
        "config": _described(OCI_EMPTY, _EMPTY),
        "layers": [_described(_BUNDLE, bundle)],
        "subject": {"mediaType": image.media_type, "digest": image.digest, "size": image.size},
        "annotations": {
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": predicate,
            **annotations,
        },
    }
    blobs = {digest_of(body): body for body in (_EMPTY, bundle)}
    return Attached(parse_manifest(_json(manifest), OCI_MANIFEST), blobs)


def _bundle(pem: str, payload: bytes) -> bytes:
    key = _private(pem)
    der = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signature = _sign(key, Envelope(IN_TOTO, payload, b"").signed)
    return _json(
        {
            "mediaType": _BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": _text(hashlib.sha256(der).digest())}},
            "dsseEnvelope": {
                "payload": _text(payload),
                "payloadType": IN_TOTO,
                "signatures": [{"sig": _text(signature)}],
            },
        }
    )


@functools.lru_cache(maxsize=16)
def _private(pem: str) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    if "ENCRYPTED" in pem:
        raise ValueError("is an encrypted key; write it as unencrypted PEM and protect the file instead")
    try:
        key = serialization.load_pem_private_key(pem.encode(), None)
    except Exception:  # noqa: BLE001 - whatever it was, its text may quote the key
        raise ValueError("is not a PEM private key") from None
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp256r1":
        return key
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _MIN_RSA_BITS:
        return key
    raise ValueError(
        f"must be an ECDSA P-256 key, or RSA of at least {_MIN_RSA_BITS} bits: cosign does not verify others by default"
    )


def _sign(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, data: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def _described(media_type: str, body: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(body), "size": len(body)}


def _json(document: Mapping[str, Any] | Sequence[Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
