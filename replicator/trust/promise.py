"""What a log promised of a keyless signature of cosign before version 3: the "signed entry timestamp" beside it.

Rekor's types hashedrekord 0.0.1 (signatures), intoto 0.0.1 and dsse 0.0.1 (attestations, from cosign 1 and 2.2 on).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from replicator.trust.strict import as_bytes, as_list, as_object, as_text, read_strict

_MAX_SECONDS: Final = 2**33


@dataclass(frozen=True, slots=True)
class Logged:
    """A signature that the log should have an entry of.

    Args:
        pem: the certificate, as PEM.
        signature: the signature itself.
        signed: the bytes that it is over.
        payload: the part of `signed` whose hash the log has; all of it, or the payload of an envelope.
        envelope: the whole DSSE envelope of an attestation; None for simple signing.
    """

    pem: str
    signature: bytes
    signed: bytes
    payload: bytes
    envelope: bytes | None = None


@dataclass(frozen=True, slots=True)
class Promise:
    """A log's promise: it accepted the signature at `seconds` (Unix time). `signed`: the bytes that the log's `signature` is over."""

    seconds: int
    log: bytes
    signature: bytes
    signed: bytes


def read_promise(text: str | None, logged: Logged) -> Promise:
    """The promise beside a signature, with its own signature not verified yet.

    It is about this signature, payload and certificate; otherwise anybody's entry would date it (CVE-2022-36056).

    Raises:
        ValueError: there is none, or it is about something else.
    """
    if text is None:
        raise ValueError(
            "keyless signature: lacks the log's promise; cosign would look it up in the log, replicator asks nobody"
        )
    bundle = read_strict(text.encode(), "the log's promise")
    entry = as_object(bundle.get("Payload"), "the entry")
    body, seconds, index, log = (entry.get(name) for name in ("body", "integratedTime", "logIndex", "logID"))
    if type(seconds) is not int or type(index) is not int or not 0 <= seconds < _MAX_SECONDS:
        raise ValueError("the log's promise has no time")
    if not _is_about(read_strict(as_bytes(body, "the entry's body"), "the entry's body"), logged):
        raise ValueError("the log's entry is about another signature")
    # RFC 8785 of four members whose values are plain: names sorted, no blanks.
    canonical = json.dumps(
        {"body": body, "integratedTime": seconds, "logID": log, "logIndex": index},
        separators=(",", ":"),
        sort_keys=True,
    )
    try:
        log_id = bytes.fromhex(as_text(log, "logID"))
    except ValueError:
        raise ValueError("the log's promise names no log") from None
    promised = as_bytes(bundle.get("SignedEntryTimestamp"), "SignedEntryTimestamp")
    return Promise(seconds, log_id, promised, canonical.encode())


def _is_about(record: Mapping[str, Any], logged: Logged) -> bool:
    kind, version = record.get("kind"), record.get("apiVersion")
    spec = as_object(record.get("spec"), "spec")
    match kind if version == "0.0.1" else None, logged.envelope:
        case "hashedrekord", None:
            return _is_hashed(spec, logged)
        case "intoto", bytes(envelope):
            content = as_object(spec.get("content"), "content")
            return _is_digest_of(content.get("hash"), envelope) and _is_by(spec.get("publicKey"), logged)
        case "dsse", bytes():
            return _is_enveloped(spec, logged)
    known = "a hashedrekord" if logged.envelope is None else "an intoto or dsse entry"
    raise ValueError(f"the log's entry is not {known} of version 0.0.1")


def _is_hashed(spec: Mapping[str, Any], logged: Logged) -> bool:
    data, signed = as_object(spec.get("data"), "data"), as_object(spec.get("signature"), "signature")
    key = as_object(signed.get("publicKey"), "publicKey")
    return (
        _is_digest_of(data.get("hash"), logged.payload)
        and as_bytes(signed.get("content"), "content") == logged.signature
        and _is_by(key.get("content"), logged)
    )


def _is_enveloped(spec: Mapping[str, Any], logged: Logged) -> bool:
    signatures = as_list(spec.get("signatures"), "signatures", 32)
    if len(signatures) != 1:
        return False
    signed = as_object(signatures[0], "signature")
    return (
        _is_digest_of(spec.get("payloadHash"), logged.payload)
        and as_bytes(signed.get("signature"), "signature") == logged.signature
        and _is_by(signed.get("verifier"), logged)
    )


def _is_digest_of(told: Any, data: bytes) -> bool:
    about = as_object(told, "hash")
    return about.get("algorithm") == "sha256" and about.get("value") == hashlib.sha256(data).hexdigest()


def _is_by(told: Any, logged: Logged) -> bool:
    return as_bytes(told, "publicKey").strip() == logged.pem.encode().strip()
