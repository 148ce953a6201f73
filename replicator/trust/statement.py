"""What was signed: DSSE envelopes with in-toto statements, and cosign's older payloads ("simple signing").

DSSE: secure-systems-lab/dsse, protocol.md. Statements: in-toto/attestation, spec/v1/statement.md, and v0.1. Payloads:
sigstore/cosign, specs/SIGNATURE_SPEC.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from replicator.model.digest import Digest, algorithm, encoded
from replicator.trust.strict import as_bytes, as_list, as_object, as_text, read_strict

IN_TOTO: Final = "application/vnd.in-toto+json"
SIGNED: Final = "https://sigstore.dev/cosign/sign/v1"
"""The predicate that says no more than "signed"."""
PAYLOAD_TYPES: Final = frozenset({"cosign container image signature", "atomic container signature"})
_STATEMENTS: Final = frozenset({"https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"})
_MAX_SUBJECTS: Final = 1024
_MAX_DIGESTS: Final = 32


@dataclass(frozen=True, slots=True)
class Envelope:
    """A DSSE envelope with one signature, nothing of it verified."""

    payload_type: str
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def signed(self) -> bytes:
        """The bytes that the signature is over: the pre-authentication encoding, lengths in bytes."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(self.payload), self.payload)


class Claim(msgspec.Struct, frozen=True):
    """What a signer says of an image. `predicate` is what it attests, `SIGNED` for a plain signature.

    `repository` is where the signer saw it, with its host; None where the form has no place for that.
    """

    predicate: str
    annotations: Mapping[str, str]
    repository: str | None = None


def read_envelope(value: Any) -> Envelope:
    """The envelope, from a document. Raises ValueError."""
    envelope = as_object(value, "the DSSE envelope")
    signatures = as_list(envelope.get("signatures"), "the envelope's signatures", 32)
    if len(signatures) != 1:
        raise ValueError(f"the envelope has {len(signatures)} signatures, not one")
    return Envelope(
        as_text(envelope.get("payloadType"), "payloadType"),
        as_bytes(envelope.get("payload"), "the payload"),
        as_bytes(as_object(signatures[0], "the envelope's signature").get("sig"), "the signature"),
    )


def read_statement(envelope: Envelope, image: Digest) -> Claim:
    """What a verified envelope says of the image.

    Raises:
        ValueError: it is not an in-toto statement, or about something else.
    """
    if envelope.payload_type != IN_TOTO:
        raise ValueError(f"the payload is {envelope.payload_type[:80]!r}, not an in-toto statement")
    statement = read_strict(envelope.payload, "the statement")
    if statement.get("_type") not in _STATEMENTS:
        raise ValueError(f"unknown kind of statement {str(statement.get('_type'))[:80]!r}")
    predicate = as_text(statement.get("predicateType"), "predicateType")
    for item in as_list(statement.get("subject"), "the statement's subjects", _MAX_SUBJECTS):
        subject = as_object(item, "a subject of the statement")
        digests = as_object(subject.get("digest"), "a subject's digest")
        if len(digests) > _MAX_DIGESTS:
            raise ValueError(f"a subject has {len(digests)} digests, more than {_MAX_DIGESTS}")
        if digests.get(algorithm(image)) == encoded(image):
            return Claim(predicate, _texts(subject.get("annotations")))
    raise ValueError("the statement is about another digest")


def read_payload(payload: bytes, image: Digest) -> Claim:
    """What a verified payload of simple signing says of the image.

    Raises:
        ValueError: it is not such a payload, or about something else.
    """
    document = read_strict(payload, "the payload")
    critical = as_object(document.get("critical"), "critical")
    kind = critical.get("type")
    if kind not in PAYLOAD_TYPES:
        raise ValueError(f"unknown kind of payload {str(kind)[:80]!r}")
    signed = as_object(critical.get("image"), "critical.image").get("docker-manifest-digest")
    if signed != image:
        raise ValueError(f"the payload is about another digest: {str(signed)[:80]}")
    identity = critical.get("identity")
    reference = identity.get("docker-reference") if isinstance(identity, dict) else None
    repository = reference if isinstance(reference, str) and reference else None
    return Claim(SIGNED, _texts(document.get("optional")), repository)


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {name: text for name, text in value.items() if isinstance(text, str)}
