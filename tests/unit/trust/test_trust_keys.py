"""Keys of every kind, and signatures by them."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.trust.keys import read_public_key, verifies
from tests.fakes.signing import Signer

RSA = rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize(
    ("signer", "how"),
    [
        (Signer(ec.generate_private_key(ec.SECP256R1())), "ECDSA P-256 with SHA-256"),
        (
            Signer(ec.generate_private_key(ec.SECP384R1()), hash=hashes.SHA384()),
            "ECDSA P-384 with SHA-384",
        ),
        (
            Signer(ec.generate_private_key(ec.SECP384R1()), hash=hashes.SHA256()),
            "ECDSA P-384 with SHA-256",
        ),
        (
            Signer(ec.generate_private_key(ec.SECP521R1()), hash=hashes.SHA512()),
            "ECDSA P-521 with SHA-512",
        ),
        (Signer(RSA), "RSA 2048 PKCS#1 v1.5 with SHA-256"),
        (Signer(RSA, scheme="pss"), "RSA 2048 PSS with SHA-256"),
        (Signer(RSA, scheme="pss", hash=hashes.SHA512()), "RSA 2048 PSS with SHA-512"),
        (Signer(ed25519.Ed25519PrivateKey.generate()), "Ed25519"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_signatures_of_every_kind_hold(signer: Signer, how: str) -> None:
    signature = signer.sign(b"data")
    assert verifies(signer.key, signature, b"data") == how
    assert verifies(signer.key, signature, b"datb") is None
    assert verifies(signer.key, signature[:-1], b"data") is None
    assert verifies(signer.key, b"", b"data") is None


def test_a_curve_does_not_take_any_other_hash() -> None:
    signer = Signer(ec.generate_private_key(ec.SECP256R1()), hash=hashes.SHA512())
    assert verifies(signer.key, signer.sign(b"data"), b"data") is None


KEY = Signer.ecdsa()
SIGNATURE = KEY.sign(b"data")


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, len(SIGNATURE) * 8 - 1))
def test_one_flipped_bit_voids_a_signature(at: int) -> None:
    flipped = bytearray(SIGNATURE)
    flipped[at // 8] ^= 1 << at % 8
    assert verifies(KEY.key, bytes(flipped), b"data") is None


def _pem(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "must contain one PEM public key"),
        (KEY.pem + KEY.pem, "must contain one PEM public key"),
        (KEY.private_pem, "private key"),
        (b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "openssl x509"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a PEM public key"),
        (_pem(ec.generate_private_key(ec.SECP256K1()).public_key()), "unsupported kind of key"),
        (_pem(rsa.generate_private_key(65537, 1024).public_key()), "RSA of 1024 bits"),  # noqa: S505
    ],
)
def test_what_is_not_a_usable_public_key_is_refused_with_the_remedy(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_public_key(data, "key.pub")


def test_a_key_is_known_by_its_content_not_its_name() -> None:
    assert read_public_key(KEY.pem, "a.pub") == read_public_key(KEY.pem, "b.pub")
    assert read_public_key(KEY.pem, "a.pub").id == read_public_key(b"# note\n" + KEY.pem, "b.pub").id
