"""Sigstore bundles v0.1 to v0.3: what they contain. Nothing is verified here.

sigstore/protobuf-specs, protos/sigstore_bundle.proto, in its JSON form.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from replicator.trust.statement import Envelope, read_envelope
from replicator.trust.strict import as_bytes, as_list, as_object, as_text, read_strict

_PREFIX: Final = "application/vnd.dev.sigstore.bundle"
_TYPES: Final = {
    f"{_PREFIX}.v0.3+json": "0.3",
    f"{_PREFIX}+json;version=0.3": "0.3",
    f"{_PREFIX}+json;version=0.2": "0.2",
    f"{_PREFIX}+json;version=0.1": "0.1",
}
_MAX_CERTIFICATES: Final = 16


@dataclass(frozen=True, slots=True)
class MessageSignature:
    """A signature over the image's manifest itself. `digest` is what the bundle says of it, in hex."""

    digest: bytes
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle. `certificates` (DER, leaf first) are those of a keyless signature; empty for one by a key."""

    version: str
    content: Envelope | MessageSignature
    certificates: tuple[bytes, ...] = field(default=(), repr=False)


def is_bundle(media_type: str | None) -> bool:
    """Whether a media type or artifact type is that of a bundle."""
    return media_type is not None and media_type.replace(" ", "").lower() in _TYPES


def read_bundle(body: bytes) -> Bundle:
    """The bundle.

    Raises:
        ValueError: it is not one, or of an unknown version.
    """
    document = read_strict(body, "the bundle")
    media_type = as_text(document.get("mediaType"), "the bundle's mediaType")
    version = _TYPES.get(media_type.replace(" ", "").lower())
    if version is None:
        raise ValueError(f"unknown version of bundle: {media_type[:80]!r}")
    material = as_object(document.get("verificationMaterial"), "verificationMaterial")
    certificates: list[bytes] = []
    if "certificate" in material:
        certificates = [_raw(material["certificate"])]
    elif "x509CertificateChain" in material:
        if version == "0.3":
            raise ValueError("a bundle of version 0.3 must have its certificate only, not a chain")
        chain = as_object(material["x509CertificateChain"], "x509CertificateChain")
        certificates = [
            _raw(one) for one in as_list(chain.get("certificates"), "the chain", _MAX_CERTIFICATES)
        ]
        if not certificates:
            raise ValueError("the certificate chain is empty")
    elif "publicKey" in material:
        as_object(material["publicKey"], "publicKey")  # its hint is anybody's word for the key
    else:
        raise ValueError("the bundle names neither a key nor a certificate")
    if ("dsseEnvelope" in document) == ("messageSignature" in document):
        raise ValueError("the bundle must have either a DSSE envelope or a message signature")
    if "dsseEnvelope" in document:
        return Bundle(version, read_envelope(document["dsseEnvelope"]), tuple(certificates))
    message = as_object(document["messageSignature"], "messageSignature")
    digest = as_object(message.get("messageDigest", {}), "messageDigest").get("digest", "")
    signature = MessageSignature(
        as_bytes(digest, "messageDigest"), as_bytes(message.get("signature"), "the signature")
    )
    return Bundle(version, signature, tuple(certificates))


def _raw(value: object) -> bytes:
    return as_bytes(as_object(value, "a certificate").get("rawBytes"), "a certificate")
