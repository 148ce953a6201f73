"""A sigstore of one's own: certificate authority, certificate log and signature log, each with a key of this process."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from replicator.model.digest import Digest
from replicator.trust.statement import Envelope
from replicator.trust.verify import Signature
from tests.fakes.signing import BUNDLE, b64, statement

IN_TOTO: Final = "application/vnd.in-toto+json"
ISSUER: Final = "https://token.actions.githubusercontent.com"
IDENTITY: Final = "https://github.com/acme/app/.github/workflows/release.yml@refs/tags/v1.0"
SIGNED_AT: Final = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
_ISSUER_OID: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_RAW_ISSUER_OID: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
"""Fulcio writes the issuer twice; cosign looks here for older signatures."""
_SCT_OID: Final = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_ORIGIN: Final = "rekor.example.com - 1"


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _raw(key: ed25519.Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _key_id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(_der(key)).digest()


def _sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def _octets(data: bytes) -> bytes:
    """A DER OCTET STRING."""
    return b"\x04" + (bytes([len(data)]) if len(data) < 128 else b"\x81" + bytes([len(data)])) + data


@dataclass
class Sigstore:
    """Issues certificates and logs signatures."""

    ca: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    ct_log: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    rekor: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    rekor2: ed25519.Ed25519PrivateKey = field(default_factory=ed25519.Ed25519PrivateKey.generate)
    tsa: ec.EllipticCurvePrivateKey = field(default_factory=_key)

    def __post_init__(self) -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fulcio of a test")])
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        self.root = (
            x509.CertificateBuilder(self._name, self._name, self.ca.public_key(), x509.random_serial_number())
            .not_valid_before(SIGNED_AT - dt.timedelta(days=365))
            .not_valid_after(SIGNED_AT + dt.timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.ca.public_key()), critical=False)
            .sign(self.ca, hashes.SHA256())
        )

        self.stamper = (
            x509.CertificateBuilder(
                self._name,
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "timestamps of a test")]),
                self.tsa.public_key(),
                x509.random_serial_number(),
            )
            .not_valid_before(SIGNED_AT - dt.timedelta(days=365))
            .not_valid_after(SIGNED_AT + dt.timedelta(days=3650))
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca.public_key()), critical=False
            )
            .sign(self.ca, hashes.SHA256())
        )

    @property
    def _log2_id(self) -> bytes:
        return hashlib.sha256(_raw(self.rekor2)).digest()

    def _log2(self) -> dict[str, Any]:
        """The log of Rekor v2: an Ed25519 key, and entries without a time."""
        since = (SIGNED_AT - dt.timedelta(days=365)).isoformat().replace("+00:00", "Z")
        return {
            "baseUrl": "https://log2.example.com",
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": b64(_raw(self.rekor2)),
                "keyDetails": "PKIX_ED25519",
                "validFor": {"start": since},
            },
            "logId": {"keyId": b64(self._log2_id)},
        }

    def stamped_bundle(self, image: Digest, folder: Path) -> dict[str, Any]:
        """As with Rekor v2: the entry has no time, so a timestamp authority dates the signature, which is made now."""
        now, key, said = dt.datetime.now(dt.UTC), _key(), statement(image)
        certificate = self.certificate(key.public_key(), issuer=ISSUER, identity=IDENTITY, at=now)
        signed = Envelope(IN_TOTO, said, b"").signed
        signature = _sign(key, signed)
        der = b64(certificate.public_bytes(serialization.Encoding.DER))
        body = json.dumps(
            {
                "kind": "hashedrekord",
                "apiVersion": "0.0.2",
                "spec": {
                    "hashedRekordV002": {
                        "data": {"algorithm": "SHA2_256", "digest": b64(hashlib.sha256(signed).digest())},
                        "signature": {
                            "content": b64(signature),
                            "verifier": {
                                "x509Certificate": {"rawBytes": der},
                                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                            },
                        },
                    }
                },
            }
        ).encode()
        root = hashlib.sha256(b"\0" + body).digest()
        note = f"log2.example.com\n1\n{b64(root)}\n"
        checked = b64(self._log2_id[:4] + self.rekor2.sign(note.encode()))
        entry = {
            "logIndex": "0",
            "logId": {"keyId": b64(self._log2_id)},
            "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": b64(root),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n\N{EM DASH} log2.example.com {checked}\n"},
            },
            "canonicalizedBody": b64(body),
        }
        return {
            "mediaType": BUNDLE,
            "verificationMaterial": {
                "certificate": {"rawBytes": der},
                "tlogEntries": [entry],
                "timestampVerificationData": {
                    "rfc3161Timestamps": [{"signedTimestamp": b64(self._stamp(signature, folder))}]
                },
            },
            "dsseEnvelope": {
                "payload": b64(said),
                "payloadType": IN_TOTO,
                "signatures": [{"sig": b64(signature)}],
            },
        }

    def _stamp(self, data: bytes, folder: Path) -> bytes:
        """RFC 3161, by openssl."""
        pem = serialization.Encoding.PEM
        (folder / "tsa.pem").write_bytes(self.stamper.public_bytes(pem))
        (folder / "chain.pem").write_bytes(self.root.public_bytes(pem))
        (folder / "tsa.key").write_bytes(
            self.tsa.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        (folder / "data").write_bytes(data)
        (folder / "serial").write_text("01\n")
        (folder / "tsa.cnf").write_text(
            "[tsa]\ndefault_tsa = t\n[t]\nserial = serial\ncrypto_device = builtin\nsigner_digest = sha256\n"
            "default_policy = 1.2.3.4.1\ndigests = sha256\naccuracy = secs:1\ness_cert_id_alg = sha256\n"
        )
        query = ["openssl", "ts", "-query", "-data", "data", "-sha256", "-cert", "-out", "query"]
        reply = ["openssl", "ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query", "-inkey", "tsa.key"]
        for command in (query, [*reply, "-signer", "tsa.pem", "-chain", "chain.pem", "-out", "reply"]):
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)
        return (folder / "reply").read_bytes()

    @property
    def trusted_root(self) -> bytes:
        """As `cosign trusted-root create` writes it."""
        since = (SIGNED_AT - dt.timedelta(days=365)).isoformat().replace("+00:00", "Z")

        def log(key: ec.EllipticCurvePrivateKey, host: str) -> dict[str, Any]:
            return {
                "baseUrl": f"https://{host}",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": b64(_der(key)),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": {"start": since},
                },
                "logId": {"keyId": b64(_key_id(key))},
            }

        chain = [{"rawBytes": b64(self.root.public_bytes(serialization.Encoding.DER))}]
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [log(self.rekor, "rekor.example.com"), self._log2()],
                "timestampAuthorities": [
                    {
                        "subject": {"organization": "test", "commonName": "timestamps of a test"},
                        "uri": "https://tsa.example.com",
                        "certChain": {
                            "certificates": [
                                {"rawBytes": b64(self.stamper.public_bytes(serialization.Encoding.DER))},
                                *chain,
                            ]
                        },
                        "validFor": {"start": since},
                    }
                ],
                "ctlogs": [log(self.ct_log, "ct.example.com")],
                "certificateAuthorities": [
                    {
                        "subject": {"organization": "test", "commonName": "fulcio of a test"},
                        "uri": "https://fulcio.example.com",
                        "certChain": {"certificates": chain},
                        "validFor": {"start": since},
                    }
                ],
            }
        ).encode()

    def certificate(
        self,
        public: ec.EllipticCurvePublicKey,
        *,
        issuer: str,
        identity: str,
        at: dt.datetime,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING,
        logged: bool = True,
    ) -> x509.Certificate:
        """A certificate of ten minutes, with the timestamp of the certificate log in it."""
        name = issuer.encode()
        builder = (
            x509.CertificateBuilder(self._name, x509.Name([]), public, x509.random_serial_number())
            .not_valid_before(at - dt.timedelta(minutes=1))
            .not_valid_after(at + dt.timedelta(minutes=9))
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True, content_commitment=False, key_encipherment=False,
                    data_encipherment=False, key_agreement=False, key_cert_sign=False, crl_sign=False,
                    encipher_only=False, decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca.public_key()), critical=False
            )
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        x509.UniformResourceIdentifier(identity)
                        if "/" in identity
                        else x509.RFC822Name(identity)
                    ]
                ),
                critical=True,
            )
            .add_extension(
                x509.UnrecognizedExtension(_ISSUER_OID, b"\x0c" + bytes([len(name)]) + name), critical=False
            )
            .add_extension(x509.UnrecognizedExtension(_RAW_ISSUER_OID, name), critical=False)
        )  # fmt: skip
        before = builder.sign(self.ca, hashes.SHA256())
        stamp = self._sct(before, at)
        if not logged:
            return before
        return builder.add_extension(
            x509.UnrecognizedExtension(_SCT_OID, _octets(stamp)), critical=False
        ).sign(self.ca, hashes.SHA256())

    def _sct(self, certificate: x509.Certificate, at: dt.datetime) -> bytes:
        """RFC 6962, 3.2 and 3.3: the list of one timestamp."""
        millis = int(at.timestamp() * 1000)
        body = certificate.tbs_certificate_bytes
        entry = _key_id(self.ca) + len(body).to_bytes(3) + body
        signature = _sign(self.ct_log, struct.pack("!BBQH", 0, 0, millis, 1) + entry + b"\0\0")
        sct = struct.pack("!B32sQH", 0, _key_id(self.ct_log), millis, 0)
        sct += struct.pack("!BBH", 4, 3, len(signature)) + signature
        one = struct.pack("!H", len(sct)) + sct
        return struct.pack("!H", len(one)) + one

    def bundle(
        self,
        image: Digest,
        *,
        issuer: str = ISSUER,
        identity: str = IDENTITY,
        at: dt.datetime = SIGNED_AT,
        logged_at: dt.datetime | None = None,
        payload: bytes | None = None,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING,
        certified: bool = True,
    ) -> dict[str, Any]:
        """As `cosign sign` without a key: a statement, its certificate, and its entry in the log."""
        key = _key()
        certificate = self.certificate(
            key.public_key(), issuer=issuer, identity=identity, at=at, usage=usage, logged=certified
        )
        said = payload if payload is not None else statement(image)
        signature = _sign(key, Envelope(IN_TOTO, said, b"").signed)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        return {
            "mediaType": BUNDLE,
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(certificate.public_bytes(serialization.Encoding.DER))},
                "tlogEntries": [self._entry(said, signature, pem, logged_at or at)],
            },
            "dsseEnvelope": {
                "payload": b64(said),
                "payloadType": IN_TOTO,
                "signatures": [{"sig": b64(signature)}],
            },
        }

    def legacy(
        self,
        said: bytes,
        *,
        at: dt.datetime = SIGNED_AT,
        logged_at: dt.datetime | None = None,
        identity: str = IDENTITY,
    ) -> Signature:
        """As a layer of the `.sig` tag that cosign before version 3 writes without a key."""
        key = _key()
        certificate = self.certificate(key.public_key(), issuer=ISSUER, identity=identity, at=at)
        signature, pem = _sign(key, said), certificate.public_bytes(serialization.Encoding.PEM)
        record = {
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": {"hash": {"algorithm": "sha256", "value": hashlib.sha256(said).hexdigest()}},
                "signature": {"content": b64(signature), "publicKey": {"content": b64(pem)}},
            },
        }
        return Signature(
            "tag", "simple signing", said, self._beside(record, logged_at or at, pem, b64(signature))
        )

    def legacy_attestation(
        self, said: bytes, kind: str = "dsse", *, at: dt.datetime = SIGNED_AT
    ) -> Signature:
        """As a layer of the `.att` tag; `kind` is the log's: "intoto" before cosign 2.2."""
        key = _key()
        certificate = self.certificate(key.public_key(), issuer=ISSUER, identity=IDENTITY, at=at)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        signature = _sign(key, Envelope(IN_TOTO, said, b"").signed)
        signed = {
            "payloadType": IN_TOTO,
            "payload": b64(said),
            "signatures": [{"keyid": "", "sig": b64(signature)}],
        }
        body = json.dumps(signed).encode()
        whole, inner = (
            {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()} for data in (body, said)
        )
        spec: dict[str, Any] = (
            {"content": {"hash": whole, "payloadHash": inner}, "publicKey": b64(pem)}
            if kind == "intoto"
            else {
                "envelopeHash": whole,
                "payloadHash": inner,
                "signatures": [{"signature": b64(signature), "verifier": b64(pem)}],
            }
        )
        record = {"apiVersion": "0.0.1", "kind": kind, "spec": spec}
        return Signature("tag", "DSSE", body, self._beside(record, at, pem, ""))

    def _beside(self, record: dict[str, Any], at: dt.datetime, pem: bytes, signature: str) -> dict[str, str]:
        """The annotations of a layer, with the log's promise."""
        entry = {
            "body": b64(json.dumps(record).encode()),
            "integratedTime": int(at.timestamp()),
            "logIndex": 7,
            "logID": _key_id(self.rekor).hex(),
        }
        promised = _sign(self.rekor, json.dumps(entry, separators=(",", ":"), sort_keys=True).encode())
        return {
            "dev.cosignproject.cosign/signature": signature,
            "dev.sigstore.cosign/certificate": pem.decode(),
            "dev.sigstore.cosign/bundle": json.dumps(
                {"SignedEntryTimestamp": b64(promised), "Payload": entry}
            ),
        }

    def _entry(self, payload: bytes, signature: bytes, pem: bytes, at: dt.datetime) -> dict[str, Any]:
        """An entry of Rekor v1 in a log of one: with its promise, and the proof that it is in the log."""
        body = json.dumps(
            {
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": {
                    "envelopeHash": {"algorithm": "sha256", "value": "00" * 32},
                    "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
                    "signatures": [{"signature": b64(signature), "verifier": b64(pem)}],
                },
            }
        ).encode()
        seconds, log = int(at.timestamp()), _key_id(self.rekor)
        promised = json.dumps(
            {"body": b64(body), "integratedTime": seconds, "logID": log.hex(), "logIndex": 0},
            separators=(",", ":"),
            sort_keys=True,
        ).encode()
        root = hashlib.sha256(b"\0" + body).digest()
        note = f"{_ORIGIN}\n1\n{b64(root)}\n"
        signed = b64(log[:4] + _sign(self.rekor, note.encode()))
        return {
            "logIndex": "0",
            "logId": {"keyId": b64(log)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(seconds),
            "inclusionPromise": {"signedEntryTimestamp": b64(_sign(self.rekor, promised))},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": b64(root),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n\N{EM DASH} rekor.example.com {signed}\n"},
            },
            "canonicalizedBody": b64(body),
        }
