"""Kinds of referrers, and patterns for them."""

from __future__ import annotations

import pytest

from replicator.policy.referrers import Traits, parse_referrer_pattern

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
OLD_BUNDLE = "application/vnd.dev.sigstore.bundle+json;version=0.2"
PREDICATE = "dev.sigstore.bundle.predicateType"
SIGNED = {PREDICATE: "https://sigstore.dev/cosign/sign/v1"}
ATTESTED = {PREDICATE: "https://slsa.dev/provenance/v1"}
LISTED = {PREDICATE: "https://spdx.dev/Document/v2.3"}


@pytest.mark.parametrize(
    ("pattern", "one", "matches"),
    [
        ("signature", Traits(BUNDLE, SIGNED), True),
        ("signature", Traits(OLD_BUNDLE, SIGNED), True),
        ("signature", Traits(BUNDLE, {"dev.sigstore.bundle.content": "message-signature"}), True),
        ("signature", Traits(BUNDLE, ATTESTED), False),
        ("signature", Traits(BUNDLE, {}), False),
        ("signature", Traits("application/vnd.cncf.notary.signature", {}), True),
        ("signature", Traits("application/vnd.dev.cosign.artifact.sig.v1+json", {}), True),
        ("signature", Traits("application/vnd.oci.image.config.v1+json", {}, ".sig"), True),
        ("signature", Traits("application/vnd.oci.image.config.v1+json", {}, ".att"), False),
        ("attestation", Traits(BUNDLE, ATTESTED), True),
        ("attestation", Traits(BUNDLE, SIGNED), False),
        ("attestation", Traits("", {}, ".att"), True),
        ("attestation", Traits("application/vnd.in-toto+json", {}), True),
        ("sbom", Traits(BUNDLE, LISTED), True),
        ("sbom", Traits("application/vnd.cyclonedx+json", {}), True),
        ("sbom", Traits("application/spdx+json", {}), True),
        ("sbom", Traits("text/spdx+xml", {}), True),
        ("sbom", Traits("", {}, ".sbom"), True),
        ("sbom", Traits(BUNDLE, ATTESTED), False),
        ("application/spdx+json", Traits("application/spdx+json", {}), True),
        ("application/spdx+json", Traits("application/spdx+json2", {}), False),
        ("application/*", Traits("application/spdx+json", {}), True),
        (OLD_BUNDLE, Traits(OLD_BUNDLE, {}), True),
        ("annotation:a=b*", Traits("", {"a": "bc"}), True),
        ("annotation:a=b", Traits("", {"a": "bc"}), False),
        ("annotation:a=*", Traits("", {"a": "x\ny"}), True),
        ("annotation:a=*", Traits("", {}), False),
        ("annotation:a=b=c", Traits("", {"a": "b=c"}), True),
    ],
)
def test_patterns(pattern: str, one: Traits, *, matches: bool) -> None:
    assert parse_referrer_pattern(pattern).matches(one) is matches


@pytest.mark.parametrize("text", ["signatures", "", "annotation:a", "annotation:=b", "annotation:a=", "spdx"])
def test_what_is_no_pattern_is_named_with_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        parse_referrer_pattern(text)
