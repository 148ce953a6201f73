"""Public keys, and signatures by them. The key alone decides the algorithm, never the document that was signed."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from replicator.trust.policy import PublicKey

MAX_KEY_BYTES: Final = 64 * 1024
_MIN_RSA_BITS: Final = 2048
_MAX_RSA_BITS: Final = 8192
"""Verifying takes longer with the square of the size."""
_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_CURVES: Final[dict[str, tuple[str, hashes.HashAlgorithm]]] = {
    "secp256r1": ("P-256", hashes.SHA256()),
    "secp384r1": ("P-384", hashes.SHA384()),
    "secp521r1": ("P-521", hashes.SHA512()),
}
_Key = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


def read_public_key(data: bytes, name: str) -> PublicKey:
    """The key of a PEM file.

    Args:
        data: the file's content.
        name: what people call the key, such as its file's name.

    Raises:
        ValueError: not exactly one PEM public key of a kind that can be verified. Says what would be right.
    """
    blocks = [match[1].decode() for match in _BLOCK.finditer(data)]
    if any("PRIVATE KEY" in block for block in blocks):
        raise ValueError(
            "contains a private key; keep that secret and give its public key (`cosign public-key`)"
        )
    if "CERTIFICATE" in blocks:
        raise ValueError("is a certificate; extract its key with `openssl x509 -pubkey -noout -in FILE`")
    if len(blocks) != 1 or len(data) > MAX_KEY_BYTES:
        raise ValueError(f"must contain one PEM public key (-----BEGIN PUBLIC KEY-----), found {len(blocks)}")
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"not a PEM public key: {error}") from error
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(name, der, _kind(key))


def _kind(key: object) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return f"ECDSA {_CURVES[key.curve.name][0]}"
    if isinstance(key, rsa.RSAPublicKey):
        if not _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
            raise ValueError(f"RSA of {key.key_size} bits; use {_MIN_RSA_BITS} to {_MAX_RSA_BITS}")
        return f"RSA {key.key_size}"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "Ed25519"
    raise ValueError("unsupported kind of key; use ECDSA P-256, P-384 or P-521, RSA, or Ed25519")


@functools.lru_cache(maxsize=256)
def _loaded(der: bytes) -> _Key:
    key = serialization.load_der_public_key(der)
    if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey, ed25519.Ed25519PublicKey)):
        raise ValueError("unsupported kind of key")  # noqa: TRY004 - unreachable for what `_kind` accepted
    return key


def verifies(key: PublicKey, signature: bytes, data: bytes) -> str | None:
    """How the signature over the data holds with this key, such as "ECDSA P-384 with SHA-256"; None if it does not.

    ECDSA takes the hash of its curve, as cosign 3 does, else SHA-256, as cosign 1 and 2 did for every curve. RSA takes
    PKCS#1 v1.5, else PSS. Ed25519 is the pure one: cosign 3 makes Ed25519ph, which it cannot verify itself.
    """
    loaded = _loaded(key.der)
    if isinstance(loaded, ed25519.Ed25519PublicKey):
        return key.kind if _holds(lambda: loaded.verify(signature, data)) else None
    if isinstance(loaded, ec.EllipticCurvePublicKey):
        for algorithm in _distinct(_CURVES[loaded.curve.name][1]):
            if _holds(functools.partial(loaded.verify, signature, data, ec.ECDSA(algorithm))):
                return f"{key.kind} with {_shown(algorithm)}"
        return None
    for algorithm in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512()):
        pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
        for name, how in (("PKCS#1 v1.5", padding.PKCS1v15()), ("PSS", pss)):
            if _holds(functools.partial(loaded.verify, signature, data, how, algorithm)):
                return f"{key.kind} {name} with {_shown(algorithm)}"
    return None


def _distinct(own: hashes.HashAlgorithm) -> Iterator[hashes.HashAlgorithm]:
    yield own
    if not isinstance(own, hashes.SHA256):
        yield hashes.SHA256()


def _shown(algorithm: hashes.HashAlgorithm) -> str:
    return algorithm.name.upper().replace("SHA", "SHA-")


def _holds(verify: Callable[[], None]) -> bool:
    try:
        verify()
    except (InvalidSignature, ValueError):
        return False
    return True
