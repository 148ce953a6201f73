"""Keyless signatures: by a certificate that was issued for minutes, with a log entry or timestamp that dates the signature.

Needs the package `sigstore` (extra `sigstore`), which verifies chain, certificate timestamp, log entry and signature with the
trusted root alone: nobody is asked. Sigstore client specification, "Verification".
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from replicator.trust.keys import verifies
from replicator.trust.policy import Identity, PublicKey, TrustedRoot
from replicator.trust.promise import Logged, read_promise
from replicator.trust.statement import SIGNED, Claim, Envelope, read_statement

if TYPE_CHECKING:
    from sigstore.verify import Verifier

    from replicator.trust.verify import Subject

_ISSUER: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_ISSUER_RAW: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
"""Before 2023, as plain bytes."""
_OTHER_NAME: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7")
"""The identity where it is neither an URI nor an address."""
_UTF8_STRING: Final = 0x0C


def check_root(root: TrustedRoot) -> None:
    """Raises ValueError for a trusted root that cannot be used, and says what would be right."""
    try:
        _verifier(root)
    except ImportError as error:
        raise ValueError(
            "keyless signatures need the package sigstore; install replicator[sigstore]"
        ) from error
    except Exception as error:
        raise ValueError(
            f"not a trusted root of sigstore ({type(error).__name__}); write one with `cosign trusted-root create`"
        ) from error


def verify_keyless(
    body: bytes, root: TrustedRoot, identities: Sequence[Identity], subject: Subject
) -> tuple[Claim, str, str]:
    """What a keyless bundle claims of the image, by whom, and how that was verified.

    Raises:
        ValueError: it is not valid, or by none of `identities`.
    """
    from sigstore.errors import Error  # noqa: PLC0415  # an extra, and half a second
    from sigstore.hashes import Hashed  # noqa: PLC0415
    from sigstore.models import Bundle  # noqa: PLC0415
    from sigstore_models.common.v1 import HashAlgorithm  # noqa: PLC0415

    policy = _Certified(identities)
    try:
        bundle = Bundle.from_json(body)
        if bundle._dsse_envelope is None:  # noqa: SLF001  # sigstore has no other way to tell
            digest = bytes.fromhex(subject.digest.partition(":")[2])
            if not subject.digest.startswith("sha256:"):
                raise ValueError("a message signature of an image by sha512 cannot be verified")
            _verifier(root).verify_artifact(
                Hashed(algorithm=HashAlgorithm.SHA2_256, digest=digest), bundle, policy
            )
            claim = Claim(SIGNED, {})
        else:
            kind, payload = _verifier(root).verify_dsse(bundle, policy)
            claim = read_statement(Envelope(kind, payload, b""), subject.digest)
    except Error as error:
        raise ValueError(f"keyless signature: {error}") from error
    return claim, f"{policy.issuer} {policy.identity}", f"signed by {policy.identity} of {policy.issuer}"


def verify_legacy(
    logged: Logged, promised: str | None, root: TrustedRoot, identities: Sequence[Identity]
) -> tuple[str, str]:
    """By whom a keyless signature of cosign before version 3 is, and how that was verified.

    The log's promise ("signed entry timestamp") dates the signature; unlike a bundle, it does not prove that the log has it.

    Args:
        logged: the signature.
        promised: what the log promised; None where the layer has no such annotation.
        root: the keys and certificates that are trusted.
        identities: the signers that count.

    Raises:
        ValueError: it is not valid, or by none of `identities`.
    """
    from sigstore._internal.sct import verify_sct  # noqa: PLC0415  # an extra, and half a second
    from sigstore._internal.timestamp import TimestampSource, TimestampVerificationResult  # noqa: PLC0415
    from sigstore._internal.trust import KeyringPurpose  # noqa: PLC0415
    from sigstore._utils import KeyID  # noqa: PLC0415
    from sigstore.errors import Error  # noqa: PLC0415

    certificate = x509.load_pem_x509_certificate(logged.pem.encode())
    promise = read_promise(promised, logged)
    at = dt.datetime.fromtimestamp(promise.seconds, dt.UTC)
    policy, verifier = _Certified(identities), _verifier(root)
    try:
        # sigstore verifies only signatures with a proof. These are its own steps for all the rest.
        inner = verifier._trusted_root  # noqa: SLF001
        inner.rekor_keyring(KeyringPurpose.VERIFY).verify(
            key_id=KeyID(promise.log), signature=promise.signature, data=promise.signed
        )
        stamp = TimestampVerificationResult(source=TimestampSource.TRANSPARENCY_SERVICE, time=at)
        chain = verifier._verify_chain_at_time(certificate, stamp)  # noqa: SLF001
        verify_sct(certificate, chain, inner.ct_keyring(KeyringPurpose.VERIFY))
        policy.verify(certificate)
    except Error as error:
        raise ValueError(f"keyless signature: {error}") from error
    _check_usage(certificate)
    der = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    key = PublicKey("certificate", der, "key of the certificate")
    if verifies(key, logged.signature, logged.signed) is None:
        raise ValueError("keyless signature: not made with the certificate's key")
    return f"{policy.issuer} {policy.identity}", f"signed by {policy.identity} of {policy.issuer}"


def _check_usage(certificate: x509.Certificate) -> None:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound as error:
        raise ValueError("the certificate does not say what it is for") from error
    if not usage.digital_signature or ExtendedKeyUsageOID.CODE_SIGNING not in extended:
        raise ValueError("the certificate is not for signing code")


@functools.lru_cache(maxsize=16)
def _verifier(root: TrustedRoot) -> Verifier:
    from sigstore.models import TrustedRoot as Root  # noqa: PLC0415  # an extra, and half a second
    from sigstore.verify import Verifier  # noqa: PLC0415
    from sigstore_models.trustroot.v1 import TrustedRoot as Document  # noqa: PLC0415

    return Verifier(trusted_root=Root(Document.from_json(root.content)))


class _Certified:
    """A `sigstore.verify.policy.VerificationPolicy`: any of these identities. Keeps who it was."""

    def __init__(self, identities: Sequence[Identity]) -> None:
        self._identities = identities
        self.issuer = ""
        self.identity = ""

    def verify(self, cert: x509.Certificate) -> None:
        """Raises sigstore's VerificationError for somebody else's certificate."""
        from sigstore.errors import VerificationError  # noqa: PLC0415  # an extra

        issuer = _issuer(cert)
        for identity in _names(cert):
            if issuer is not None and any(each.matches(issuer, identity) for each in self._identities):
                self.issuer, self.identity = issuer, identity
                return
        who = ", ".join(_names(cert)) or "nobody"
        raise VerificationError(
            f"is by {who[:200]} of {(issuer or 'no issuer')[:200]}, which the policy does not trust"
        )


def _issuer(certificate: x509.Certificate) -> str | None:
    for oid in (_ISSUER, _ISSUER_RAW):
        try:
            extension = certificate.extensions.get_extension_for_oid(oid).value
        except x509.ExtensionNotFound:
            continue
        if not isinstance(extension, x509.UnrecognizedExtension):
            return None
        return _text(extension.value) if oid == _ISSUER else extension.value.decode("utf-8", "replace")
    return None


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    others = [
        text
        for other in names.get_values_for_type(x509.OtherName)
        if other.type_id == _OTHER_NAME and (text := _text(other.value)) is not None
    ]
    return [
        *names.get_values_for_type(x509.UniformResourceIdentifier),
        *names.get_values_for_type(x509.RFC822Name),
        *others,
    ]


def _text(der: bytes) -> str | None:
    """A DER UTF8String; None for anything else."""
    if len(der) < 2 or der[0] != _UTF8_STRING:
        return None
    length, start = der[1], 2
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 2 or len(der) < 2 + count:
            return None
        length, start = int.from_bytes(der[2 : 2 + count]), 2 + count
    if len(der) != start + length:
        return None
    return der[start:].decode("utf-8", "replace")
