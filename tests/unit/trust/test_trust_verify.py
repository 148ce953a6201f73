"""What makes an image trusted, and everything that must not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from replicator.demo.images import image
from replicator.model.digest import Digest, digest_of
from replicator.trust.policy import TrustPolicy
from replicator.trust.statement import SIGNED
from replicator.trust.verify import Signature, Subject, Trial, Verdict
from tests.fakes.signing import (
    BUNDLE,
    PROVENANCE,
    STATEMENT,
    Signer,
    b64,
    bundle,
    envelope,
    legacy,
    message_bundle,
    payload,
    statement,
)

KEY = Signer.ecdsa("release.pub")
OTHER = Signer.ecdsa("other.pub")
IMAGE = image("trusted").manifest
D = IMAGE.digest
SUBJECT = Subject(D, "app", IMAGE.body)
POLICY = TrustPolicy("release keys", keys=(KEY.key,))
ANOTHER = digest_of(b"another image")


def judged(*signatures: Signature, policies: Sequence[TrustPolicy] = (POLICY,)) -> Verdict:
    trial = Trial(policies, SUBJECT)
    for signature in signatures:
        trial.examine(signature)
    assert trial.is_trusted == trial.verdict().trusted
    return trial.verdict()


def bundled(body: bytes) -> Signature:
    return Signature("referrer", "bundle", body)


# --- what counts ---


@pytest.mark.parametrize(
    "media_type",
    [
        BUNDLE,
        "application/vnd.dev.sigstore.bundle+json;version=0.1",
        "application/vnd.dev.sigstore.bundle+json;version=0.2",
        "application/vnd.dev.sigstore.bundle+json; version=0.3",
    ],
)
def test_a_bundle_of_every_version_is_trusted(media_type: str) -> None:
    assert judged(bundled(bundle(KEY, D, media_type=media_type))) == Verdict(trusted=True)


def test_older_signatures_and_message_signatures_are_trusted() -> None:
    assert judged(legacy(KEY, payload(D))).trusted
    assert judged(bundled(message_bundle(KEY, IMAGE.body))).trusted


def test_an_older_attestation_counts_where_its_predicate_is_named() -> None:
    policy = replace(POLICY, attestations=(PROVENANCE,))
    body = json.dumps(envelope(KEY, statement(D, PROVENANCE))).encode()
    assert judged(Signature("tag", "DSSE", body), policies=[policy]).trusted


def test_a_sha512_image_is_judged_by_its_own_digest() -> None:
    long = digest_of(IMAGE.body, "sha512")
    trial = Trial([POLICY], dataclasses.replace(SUBJECT, digest=long))
    trial.examine(bundled(bundle(KEY, D)))
    assert not trial.is_trusted
    trial.examine(bundled(bundle(KEY, long)))
    assert trial.is_trusted


# --- what does not ---


def test_no_signature_is_not_trusted() -> None:
    verdict = judged()
    assert not verdict.trusted
    assert verdict.reason == "release keys: no signature: no signatures found"


def test_a_signature_by_another_key_does_not_count() -> None:
    for signature in (bundled(bundle(OTHER, D)), legacy(OTHER, payload(D))):
        verdict = judged(signature)
        assert not verdict.trusted
        assert "not signed by release.pub" in verdict.reason


@pytest.mark.parametrize(
    "predicate", [PROVENANCE, "https://cosign.sigstore.dev/attestation/vuln/v1", "", SIGNED + "/"]
)
def test_an_attestation_is_not_a_signature(predicate: str) -> None:
    assert not judged(bundled(bundle(KEY, D, predicate))).trusted


def test_where_an_ed25519_key_does_not_hold_the_form_that_is_not_supported_is_named() -> None:
    key = Signer(ed25519.Ed25519PrivateKey.generate())
    policy = TrustPolicy("release keys", keys=(key.key,))
    assert judged(bundled(bundle(key, D)), policies=[policy]).trusted
    reason = judged(bundled(bundle(KEY, D)), policies=[policy]).reason
    assert "Ed25519ph, which cosign 3 makes with an Ed25519 key, is not supported" in reason
    assert "Ed25519ph" not in judged(bundled(bundle(OTHER, D))).reason


def test_a_signature_is_not_an_attestation() -> None:
    policy = replace(POLICY, attestations=(PROVENANCE,))
    assert not judged(bundled(bundle(KEY, D)), policies=[policy]).trusted
    assert not judged(legacy(KEY, payload(D)), policies=[policy]).trusted
    wrong = judged(bundled(bundle(KEY, D, "https://spdx.dev/Document")), policies=[policy])
    assert "is an attestation of https://spdx.dev/Document" in wrong.reason


def test_a_signature_of_another_image_does_not_count() -> None:
    assert "about another digest" in judged(bundled(bundle(KEY, ANOTHER))).reason
    assert "about another digest" in judged(legacy(KEY, payload(ANOTHER))).reason
    assert not judged(bundled(message_bundle(KEY, b"another manifest"))).trusted


def test_a_swapped_payload_is_forged() -> None:
    genuine, wanted = json.loads(bundle(KEY, ANOTHER)), json.loads(bundle(OTHER, D))
    genuine["dsseEnvelope"]["payload"] = wanted["dsseEnvelope"]["payload"]
    assert not judged(bundled(json.dumps(genuine).encode())).trusted
    signed = legacy(KEY, payload(ANOTHER))
    assert not judged(dataclasses.replace(signed, body=payload(D))).trusted


def test_the_type_of_a_payload_is_signed_too() -> None:
    document = json.loads(bundle(KEY, D))
    document["dsseEnvelope"] = envelope(KEY, statement(D), kind="text/plain")
    assert "not an in-toto statement" in judged(bundled(json.dumps(document).encode())).reason
    document["dsseEnvelope"]["payloadType"] = "application/vnd.in-toto+json"
    assert "not signed by" in judged(bundled(json.dumps(document).encode())).reason


WHOLE = bundle(KEY, D)  # signed once: another signature may be shorter


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, len(WHOLE) - 1))
def test_a_truncated_bundle_never_counts_and_never_raises(cut: int) -> None:
    assert not judged(bundled(WHOLE[:cut])).trusted


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_rubbish_never_counts_and_never_raises(rubbish: bytes) -> None:
    for form in ("bundle", "simple signing", "DSSE"):
        for beside in ({}, {"dev.cosignproject.cosign/signature": b64(KEY.sign(b"x"))}):
            assert not judged(Signature("x", form, rubbish, beside)).trusted


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(
        ["mediaType", "verificationMaterial", "dsseEnvelope", "payload", "payloadType", "signatures"]
    ),
)
def test_members_of_any_type_never_raise_and_what_was_signed_cannot_be_replaced(
    value: Any, name: str
) -> None:
    document = json.loads(bundle(KEY, D))
    place = document if name in document else document["dsseEnvelope"]
    place[name] = value
    verdict = judged(bundled(json.dumps(document).encode()))
    if place is not document:  # what was signed, or its signature
        assert not verdict.trusted


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"not json", "not valid JSON"),
        (b'{"_type": "a", "_type": "b"}', "same member twice"),
        (statement(D).replace(b'"predicate": {}', b'"predicate": NaN'), "not valid JSON"),
        (b"[" * 50_000, "nested too deep"),
        (statement(D).replace(b'"predicate": {}', b'"predicate": ' + b"9" * 5000), "not valid JSON"),
        (statement(D).replace(STATEMENT.encode(), b"https://example.com"), "unknown kind of statement"),
        (json.dumps({"_type": STATEMENT, "predicateType": SIGNED}).encode(), "about another digest"),
        (
            json.dumps(
                {"_type": STATEMENT, "predicateType": SIGNED, "subject": [{"digest": {}}] * 1025}
            ).encode(),
            "1025 items",
        ),
        (statement(Digest(D.upper())), "about another digest"),
        (statement(D).replace(b'"sha256"', b'"SHA256"'), "about another digest"),
        (statement(Digest(D[:-1] + "\0")), "about another digest"),
        (b"\xff" + statement(D), "not UTF-8"),
    ],
)
def test_what_a_good_key_signed_is_read_strictly_all_the_same(said: bytes, why: str) -> None:
    verdict = judged(bundled(bundle(KEY, D, payload=said)))
    assert not verdict.trusted
    assert why in verdict.reason


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (payload(D).replace(b"cosign container", b"some other"), "unknown kind of payload"),
        (payload(D)[:-1] + b', "critical": {}}', "same member twice"),
        (b'{"critical": null}', "not an object"),
        (b"[]", "not an object"),
    ],
)
def test_an_older_payload_is_read_strictly(said: bytes, why: str) -> None:
    assert why in judged(legacy(KEY, said)).reason


def test_an_envelope_with_two_signatures_is_refused() -> None:
    document = json.loads(bundle(KEY, D))
    document["dsseEnvelope"]["signatures"] *= 2
    assert "2 signatures, not one" in judged(bundled(json.dumps(document).encode())).reason


def test_a_bundle_without_key_or_certificate_or_content_is_refused() -> None:
    document = json.loads(bundle(KEY, D))
    assert not judged(bundled(json.dumps({**document, "verificationMaterial": {}}).encode())).trusted
    assert not judged(
        bundled(json.dumps({**document, "messageSignature": {"signature": ""}}).encode())
    ).trusted
    assert "unknown version" in judged(bundled(json.dumps({**document, "mediaType": "x"}).encode())).reason


# --- how many, and of whom ---


def test_two_signatures_of_one_key_are_one_signer() -> None:
    policy = replace(POLICY, keys=(KEY.key, OTHER.key), minimum=2)
    verdict = judged(bundled(bundle(KEY, D)), legacy(KEY, payload(D)), policies=[policy])
    assert not verdict.trusted
    assert "by 2 signers, found 1" in verdict.reason
    assert judged(bundled(bundle(KEY, D)), legacy(OTHER, payload(D)), policies=[policy]).trusted


def test_one_key_under_two_names_is_one_signer() -> None:
    twin = dataclasses.replace(KEY, name="twin.pub")
    policy = replace(POLICY, keys=(KEY.key, twin.key), minimum=2)
    assert not judged(bundled(bundle(KEY, D)), bundled(bundle(twin, D)), policies=[policy]).trusted


def test_all_policies_must_agree() -> None:
    both = [POLICY, TrustPolicy("auditors", keys=(OTHER.key,))]
    verdict = judged(bundled(bundle(KEY, D)), policies=both)
    assert not verdict.trusted
    assert verdict.reason.startswith("auditors: ")
    assert judged(bundled(bundle(KEY, D)), bundled(bundle(OTHER, D)), policies=both).trusted


def test_every_named_attestation_is_needed() -> None:
    policy = replace(POLICY, attestations=(PROVENANCE, "https://spdx.dev/Document"))
    first, second = bundled(bundle(KEY, D, PROVENANCE)), bundled(bundle(KEY, D, "https://spdx.dev/Document"))
    assert "https://spdx.dev/Document" in judged(first, policies=[policy]).reason
    assert judged(first, second, policies=[policy]).trusted


def test_one_bad_signature_does_not_spoil_a_good_one() -> None:
    assert judged(bundled(b"{"), bundled(bundle(OTHER, D)), bundled(bundle(KEY, D))).trusted


# --- annotations and replays ---


def test_annotations_must_be_in_what_was_signed() -> None:
    policy = replace(POLICY, annotations={"env": "prod"})
    for good, bad in (
        (bundled(bundle(KEY, D, annotations={"env": "prod"})), bundled(bundle(KEY, D))),
        (legacy(KEY, payload(D, env="prod")), legacy(KEY, payload(D, env="test"))),
    ):
        assert judged(good, policies=[policy]).trusted
        assert "lacks the annotation env=prod" in judged(bad, policies=[policy]).reason


def test_a_signature_replayed_under_another_repository_is_reported() -> None:
    policy = replace(POLICY, same_repository=True)
    assert judged(legacy(KEY, payload(D)), policies=[policy]).trusted
    replayed = judged(legacy(KEY, payload(D, "registry.example.com/evil/app")), policies=[policy])
    assert "was made for another repository: registry.example.com/evil/app" in replayed.reason
    bundle_says_nothing = judged(bundled(bundle(KEY, D)), policies=[policy])
    assert "does not say which repository" in bundle_says_nothing.reason


def test_a_policy_that_decides_differently_has_another_fingerprint() -> None:
    others = [
        replace(POLICY, minimum=2),
        replace(POLICY, keys=(OTHER.key,)),
        replace(POLICY, annotations={"a": "b"}),
        replace(POLICY, same_repository=True),
        replace(POLICY, attestations=(PROVENANCE,)),
    ]
    assert len({each.fingerprint for each in (POLICY, *others)}) == 6
    assert replace(POLICY, name="renamed").fingerprint == POLICY.fingerprint
