"""Keyless signatures: every link of the chain must hold, and the signer must be the one who is meant."""

from __future__ import annotations

import datetime as dt
import json
import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from replicator.demo.images import image
from replicator.model.digest import digest_of
from replicator.trust.keyless import check_root
from replicator.trust.policy import Identity, TrustedRoot, TrustPolicy
from replicator.trust.verify import Signature, Subject, Trial, Verdict
from tests.fakes.fulcio import IDENTITY, ISSUER, SIGNED_AT, Sigstore
from tests.fakes.signing import PROVENANCE, Signer, b64, bundle, payload, statement

SIGSTORE = Sigstore()
ROOT = TrustedRoot("trusted_root.json", SIGSTORE.trusted_root)
IMAGE = image("keyless").manifest
D = IMAGE.digest


def policy(*identities: Identity, **more: Any) -> TrustPolicy:
    return TrustPolicy("ci", keyless=identities or (Identity(ISSUER, IDENTITY),), trusted_root=ROOT, **more)


def judged(document: dict[str, Any] | bytes, demand: TrustPolicy | None = None) -> Verdict:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    trial = Trial([demand or policy()], Subject(D, "app", IMAGE.body))
    trial.examine(Signature("referrer", "bundle", body))
    return trial.verdict()


def test_a_keyless_signature_is_trusted_long_after_its_certificate_has_expired() -> None:
    assert judged(SIGSTORE.bundle(D)) == Verdict(trusted=True)


def test_an_identity_may_be_a_pattern_of_the_whole() -> None:
    def by(pattern: str) -> bool:
        return judged(SIGSTORE.bundle(D), policy(Identity(ISSUER, re.compile(pattern)))).trusted

    assert by(r"https://github\.com/acme/.*@refs/tags/v.*")
    assert not by(r"https://github\.com/acme/")
    assert not by(r"github\.com/acme/.*@refs/tags/v.*")
    assert not by(r".*@refs/tags/v")


@pytest.mark.parametrize(
    "identity",
    [
        Identity("https://accounts.google.com", IDENTITY),
        Identity(ISSUER + "/", IDENTITY),
        Identity(ISSUER, IDENTITY + "x"),
        Identity(ISSUER, IDENTITY[:-1]),
    ],
)
def test_somebody_else_does_not_count(identity: Identity) -> None:
    verdict = judged(SIGSTORE.bundle(D), policy(identity))
    assert not verdict.trusted
    assert f"is by {IDENTITY} of {ISSUER}, which the policy does not trust" in verdict.reason


def test_another_sigstore_does_not_count() -> None:
    assert not judged(Sigstore().bundle(D)).trusted


def swap(place: str, other: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["verificationMaterial"][place] = other["verificationMaterial"][place]

    return change


def entry(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    return lambda document: change(document["verificationMaterial"]["tlogEntries"][0])


OTHER = SIGSTORE.bundle(digest_of(b"other"))


@pytest.mark.parametrize(
    "spoil",
    [
        swap("certificate", OTHER),
        swap("tlogEntries", OTHER),
        entry(lambda each: each.update(integratedTime=str(int(each["integratedTime"]) + 60))),
        entry(lambda each: each["inclusionPromise"].update(signedEntryTimestamp=b64(b"forged"))),
        entry(lambda each: each.pop("inclusionPromise")),
        entry(lambda each: each.pop("inclusionProof")),
        entry(lambda each: each["inclusionProof"].update(rootHash=b64(b"\0" * 32))),
        entry(lambda each: each["inclusionProof"]["checkpoint"].update(envelope="x\n1\ny\n\n")),
        lambda document: document["verificationMaterial"].update(tlogEntries=[]),
        lambda document: document["verificationMaterial"].update(tlogEntries="\ntrusted"),
        lambda document: document["dsseEnvelope"].update(payload=b64(statement(D, PROVENANCE))),
        lambda document: document["dsseEnvelope"].update(signatures=[{"sig": b64(b"forged")}]),
        lambda document: document["dsseEnvelope"].update(payloadType="text/plain"),
    ],
)
def test_each_link_that_is_forged_or_swapped_voids_it(spoil: Callable[[dict[str, Any]], None]) -> None:
    document = SIGSTORE.bundle(D)
    spoil(document)
    verdict = judged(document)
    assert not verdict.trusted
    assert verdict.reason
    assert verdict.reason.isprintable(), "one line, whatever sigstore says of it"


@pytest.mark.parametrize(
    "document",
    [
        SIGSTORE.bundle(D, logged_at=SIGNED_AT + dt.timedelta(hours=1)),
        SIGSTORE.bundle(D, logged_at=SIGNED_AT - dt.timedelta(hours=1)),
        SIGSTORE.bundle(D, at=SIGNED_AT - dt.timedelta(days=400)),
        SIGSTORE.bundle(D, usage=ExtendedKeyUsageOID.CLIENT_AUTH),
        SIGSTORE.bundle(D, certified=False),
    ],
    ids=["signed after expiry", "signed before issue", "before the authority", "other usage", "not logged"],
)
def test_a_certificate_that_was_not_good_when_it_signed_does_not_count(document: dict[str, Any]) -> None:
    assert not judged(document).trusted


def test_what_was_signed_decides_as_with_keys() -> None:
    assert "about another digest" in judged(OTHER).reason
    attested = SIGSTORE.bundle(D, payload=statement(D, PROVENANCE))
    assert "not a signature" in judged(attested).reason
    assert judged(attested, policy(attestations=(PROVENANCE,))).trusted
    assert judged(
        SIGSTORE.bundle(D, payload=statement(D, annotations={"env": "prod"})),
        policy(annotations={"env": "prod"}),
    ).trusted


def test_keys_and_identities_do_not_stand_in_for_each_other() -> None:
    signer = Signer.ecdsa()
    by_key = TrustPolicy("keys", keys=(signer.key,))
    assert "has no keyless identities" in judged(SIGSTORE.bundle(D), by_key).reason
    assert "has no keys" in judged(bundle(signer, D)).reason
    both = policy(keys=(signer.key,), minimum=2)
    trial = Trial([both], Subject(D, "app", IMAGE.body))
    for body in (bundle(signer, D), json.dumps(SIGSTORE.bundle(D)).encode()):
        assert not trial.is_trusted
        trial.examine(Signature("referrer", "bundle", body))
    assert trial.is_trusted


def test_two_certificates_of_one_signer_are_one_signer() -> None:
    trial = Trial([policy(minimum=2)], Subject(D, "app", IMAGE.body))
    for _ in range(2):
        trial.examine(Signature("referrer", "bundle", json.dumps(SIGSTORE.bundle(D)).encode()))
    assert not trial.is_trusted


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"mediaType": "x"}', SIGSTORE.trusted_root[:-9]])
def test_what_is_not_a_trusted_root_is_refused_with_the_remedy(content: bytes) -> None:
    with pytest.raises(ValueError, match="cosign trusted-root create"):
        check_root(TrustedRoot("x", content))


def test_a_timestamp_dates_a_signature_in_a_log_without_times(tmp_path: Path) -> None:
    """Rekor v2."""
    stamped = SIGSTORE.stamped_bundle(D, tmp_path)
    assert judged(stamped) == Verdict(trusted=True)
    entry = stamped["verificationMaterial"]["tlogEntries"][0]
    entry["canonicalizedBody"] = b64(b64decode(entry["canonicalizedBody"]).replace(b"0.0.2", b"0.0.1"))
    assert not judged(stamped).trusted


@pytest.mark.parametrize("times", ["none", "of another signature", "of another authority"])
def test_without_its_own_timestamp_it_does_not_count(tmp_path: Path, times: str) -> None:
    stamped = SIGSTORE.stamped_bundle(D, tmp_path)
    material = stamped["verificationMaterial"]
    if times == "none":
        material.pop("timestampVerificationData")
    else:
        other = SIGSTORE if times == "of another signature" else Sigstore()
        forged = other.stamped_bundle(D, tmp_path)["verificationMaterial"]["timestampVerificationData"]
        material["timestampVerificationData"] = forged
    assert not judged(stamped).trusted


# --- cosign before version 3 ---


def of(signature: Signature, demand: TrustPolicy | None = None) -> Verdict:
    trial = Trial([demand or policy()], Subject(D, "app", IMAGE.body))
    trial.examine(signature)
    return trial.verdict()


def test_an_older_keyless_signature_is_trusted_by_the_promise_of_the_log() -> None:
    signature = SIGSTORE.legacy(payload(D))
    assert of(signature) == Verdict(trusted=True)
    assert "which the policy does not trust" in of(signature, policy(Identity(ISSUER, "somebody"))).reason
    assert "about another digest" in of(SIGSTORE.legacy(payload(digest_of(b"other")))).reason
    assert "has no keyless identities" in of(signature, TrustPolicy("k", (Signer.ecdsa().key,))).reason


def with_annotation(name: str, other: Signature) -> Signature:
    signature = SIGSTORE.legacy(payload(D))
    return replace(signature, annotations={**signature.annotations, name: other.annotations[name]})


@pytest.mark.parametrize(
    "signature",
    [
        with_annotation("dev.sigstore.cosign/bundle", SIGSTORE.legacy(payload(D))),
        with_annotation("dev.sigstore.cosign/certificate", SIGSTORE.legacy(payload(D))),
        with_annotation("dev.cosignproject.cosign/signature", SIGSTORE.legacy(payload(D))),
        replace(SIGSTORE.legacy(payload(D, "a/b")), body=payload(D)),
        Sigstore().legacy(payload(D)),
        SIGSTORE.legacy(payload(D), logged_at=SIGNED_AT + dt.timedelta(hours=1)),
        SIGSTORE.legacy(payload(D), logged_at=SIGNED_AT - dt.timedelta(hours=1)),
    ],
    ids=["promise", "certificate", "signature", "payload", "authority", "late", "early"],
)
def test_an_older_keyless_signature_with_one_part_of_another_does_not_count(signature: Signature) -> None:
    assert not of(signature).trusted


@pytest.mark.parametrize(
    "promise", ["", "{}", "[]", '{"Payload": {"integratedTime": 1}}', '{"Payload": {"body": 5}}', None]
)
def test_an_older_keyless_signature_without_a_promise_does_not_count(promise: str | None) -> None:
    signature = SIGSTORE.legacy(payload(D))
    annotations = dict(signature.annotations)
    del annotations["dev.sigstore.cosign/bundle"]
    if promise is not None:
        annotations["dev.sigstore.cosign/bundle"] = promise
    assert not of(replace(signature, annotations=annotations)).trusted


def test_a_promise_whose_time_was_changed_is_void() -> None:
    signature = SIGSTORE.legacy(payload(D))
    promise = json.loads(signature.annotations["dev.sigstore.cosign/bundle"])
    promise["Payload"]["integratedTime"] += 1
    changed = {**signature.annotations, "dev.sigstore.cosign/bundle": json.dumps(promise)}
    assert not of(replace(signature, annotations=changed)).trusted


# --- attestations of cosign before version 3 ---

ATTESTED = policy(attestations=(PROVENANCE,))
KINDS = pytest.mark.parametrize("kind", ["dsse", "intoto"])


@KINDS
def test_an_older_keyless_attestation_counts_where_its_predicate_is_named(kind: str) -> None:
    attestation = SIGSTORE.legacy_attestation(statement(D, PROVENANCE), kind)
    assert of(attestation, ATTESTED) == Verdict(trusted=True)
    assert "is an attestation of" in of(attestation).reason, "it is not a signature"
    somebody = msgspec.structs.replace(ATTESTED, keyless=(Identity(ISSUER, "somebody"),))
    assert "which the policy does not trust" in of(attestation, somebody).reason
    other = SIGSTORE.legacy_attestation(statement(digest_of(b"other"), PROVENANCE), kind)
    assert "about another digest" in of(other, ATTESTED).reason
    assert not of(Sigstore().legacy_attestation(statement(D, PROVENANCE), kind), ATTESTED).trusted


@KINDS
@pytest.mark.parametrize(
    "name", ["dev.sigstore.cosign/bundle", "dev.sigstore.cosign/certificate", "body", "kind", "payload"]
)
def test_an_older_keyless_attestation_with_one_part_of_another_does_not_count(kind: str, name: str) -> None:
    attestation = SIGSTORE.legacy_attestation(statement(D, PROVENANCE), kind)
    other = SIGSTORE.legacy_attestation(statement(D, PROVENANCE), kind)
    annotations = dict(attestation.annotations)
    match name:
        case "body":
            spoilt = replace(attestation, body=other.body)
        case "kind":  # the promise for a plain signature
            plain = SIGSTORE.legacy(payload(D)).annotations["dev.sigstore.cosign/bundle"]
            spoilt = replace(attestation, annotations={**annotations, "dev.sigstore.cosign/bundle": plain})
        case "payload":
            envelope = json.loads(attestation.body)
            envelope["payload"] = b64(statement(D, PROVENANCE, more="x"))
            spoilt = replace(attestation, body=json.dumps(envelope).encode())
        case _:
            spoilt = replace(attestation, annotations={**annotations, name: other.annotations[name]})
    assert not of(spoilt, ATTESTED).trusted


def test_the_promise_for_an_attestation_does_not_date_a_signature() -> None:
    signature = SIGSTORE.legacy(payload(D))
    promise = SIGSTORE.legacy_attestation(statement(D)).annotations["dev.sigstore.cosign/bundle"]
    changed = {**signature.annotations, "dev.sigstore.cosign/bundle": promise}
    assert "not a hashedrekord" in of(replace(signature, annotations=changed)).reason
