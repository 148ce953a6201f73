"""Documents for pullers demand what the rule demands, or say that they do not."""

from __future__ import annotations

import base64
import re
from posixpath import normpath

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from replicator.policy.enforcing import PullPolicy, pull_policy
from replicator.policy.pattern import Glob
from replicator.policy.rule import Rename, Replacement, RepositorySelection, Rule
from replicator.trust.policy import Identity, TrustedRoot, TrustPolicy
from replicator.trust.statement import SIGNED
from tests.fakes.fulcio import ISSUER, Sigstore
from tests.fakes.signing import PROVENANCE, Signer

A, B = Signer.ecdsa("a.pub"), Signer.ecdsa("b.pub")


def rule(*policies: TrustPolicy, repositories: tuple[str, ...] = ("team/app",)) -> Rule:
    selection = RepositorySelection(tuple(Glob.parse(text) for text in repositories))
    made = Rule(
        "Team.Images", "hub", ("fra",), selection, rename_repository=Rename(strip="team/", prefix="mirror/")
    )
    return replace(made, trust=policies)


def documents(*policies: TrustPolicy, repositories: tuple[str, ...] = ("team/app",)) -> PullPolicy:
    one = rule(*policies, repositories=repositories)
    return pull_policy(one.name, [(one, "hub.example.com")], ["fra.example.com"])


def made(
    *policies: TrustPolicy, repositories: tuple[str, ...] = ("team/app",)
) -> tuple[dict, list[dict], str]:  # type: ignore[type-arg]
    found = documents(*policies, repositories=repositories)
    return (
        dict(found.policy_json["transports"]["docker"]),
        [dict(each) for each in found.cluster_image_policies],
        "\n".join(found.gaps),
    )


def test_one_key_of_an_exact_repository_is_demanded_as_it_is() -> None:
    scopes, (policy,), gaps = made(TrustPolicy("release", (A.key,)))
    (requirement,) = scopes["fra.example.com/mirror/app"]
    assert base64.b64decode(requirement["keyData"]) == A.pem
    assert requirement["signedIdentity"] == {
        "type": "exactRepository",
        "dockerRepository": "hub.example.com/team/app",
    }
    assert policy["metadata"]["name"] == "replicator-team-images-1"
    assert policy["spec"]["images"] == [
        {"glob": "fra.example.com/mirror/app:**"},
        {"glob": "fra.example.com/mirror/app@**"},
    ]
    assert [each["key"]["data"] for each in policy["spec"]["authorities"]] == [A.pem.decode()]
    assert sorted(line.partition(":")[0] for line in gaps.splitlines()) == [
        "ClusterImagePolicy", "ImageValidatingPolicy", "policy.json", "policy.json"
    ]  # fmt: skip
    assert "do not verify bundles" in gaps


def test_all_policies_and_all_of_several_keys_are_all_demanded() -> None:
    scopes, policies, gaps = made(
        TrustPolicy("one", (A.key,)), TrustPolicy("both", (A.key, B.key), minimum=2)
    )
    assert [set(each) & {"keyData", "keyDatas"} for each in scopes["fra.example.com/mirror/app"]] == [
        {"keyData"}
    ] * 3
    names = [each["metadata"]["name"] for each in policies]
    assert names == [f"replicator-team-images-{number}" for number in ("1", "2-1", "2-2")]
    signers = [[one["key"]["data"] for one in each["spec"]["authorities"]] for each in policies]
    assert signers == [[A.pem.decode()], [A.pem.decode()], [B.pem.decode()]]
    assert "signers" not in gaps
    *_, gaps = made(TrustPolicy("two of three", (A.key, B.key, Signer.ecdsa("c.pub").key), minimum=2))
    assert "ClusterImagePolicy: two of three demands 2 signers" in gaps
    assert "policy.json: two of three demands 2 signers" in gaps


def test_any_of_several_keys_is_one_requirement() -> None:
    scopes, (policy,), gaps = made(TrustPolicy("any", (A.key, B.key)))
    assert len(scopes["fra.example.com/mirror/app"][0]["keyDatas"]) == 2
    assert len(policy["spec"]["authorities"]) == 2
    assert "keyDatas" in gaps


def test_patterns_are_prefixes_and_that_is_said() -> None:
    scopes, (policy,), gaps = made(TrustPolicy("any", (A.key,)), repositories=("team/web/**",))
    ((scope, (requirement,)),) = scopes.items()
    assert scope == "fra.example.com/mirror/web"
    assert requirement["signedIdentity"]["signedPrefix"] == "hub.example.com/team/web"
    assert policy["spec"]["images"] == [{"glob": "fra.example.com/mirror/web/**"}]
    assert "name a tag or digest" in gaps


def test_what_cannot_be_demanded_is_said_and_never_waved_through() -> None:
    keyless = Identity("https://issuer.example.com", re.compile("a|b"))
    scopes, (policy,), gaps = made(TrustPolicy("ci", keyless=(keyless,), annotations={"env": "prod"}))
    assert scopes["fra.example.com/mirror/app"] == [{"type": "reject"}]
    bundle, older = policy["spec"]["authorities"]
    for authority in (bundle, older):
        assert authority["keyless"]["identities"] == [
            {"issuer": "https://issuer.example.com", "subjectRegExp": "^(?:a|b)$"}
        ]
    assert (bundle.get("signatureFormat"), older.get("signatureFormat")) == ("bundle", None)
    for said in (
        "fulcio",
        "policy.json: ci demands annotations",
        "ClusterImagePolicy: ci demands annotations",
        "TrustRoot",
    ):
        assert said in gaps
    scopes, (policy,), gaps = made(TrustPolicy("ci", (A.key,), attestations=(PROVENANCE,)))
    assert scopes["fra.example.com/mirror/app"] == [{"type": "reject"}]
    attested = [{"name": "attestation", "predicateType": PROVENANCE}]
    assert policy["spec"]["authorities"][0]["attestations"] == attested
    assert "demands attestations" in gaps
    assert "so all pulls are refused" in gaps


def test_one_keyless_signer_with_an_e_mail_address_is_demanded_of_podman_too() -> None:
    sigstore = Sigstore()
    root = TrustedRoot("root.json", sigstore.trusted_root)
    demand = TrustPolicy("dev", keyless=(Identity(ISSUER, "dev@example.com"),), trusted_root=root)
    scopes, _, gaps = made(demand)
    ((_, (requirement,)),) = scopes.items()
    authority = requirement["fulcio"]
    assert (authority["oidcIssuer"], authority["subjectEmail"]) == (ISSUER, "dev@example.com")
    pem = base64.b64decode(authority["caData"])
    assert x509.load_pem_x509_certificate(pem) == sigstore.root
    key = serialization.load_pem_public_key(base64.b64decode(requirement["rekorPublicKeyData"]))
    assert key == sigstore.rekor.public_key(), "and not that of Rekor v2, which podman cannot read"
    assert ".sig tags" in gaps
    snake = re.sub(rb"(?<=[a-z])([A-Z])(?=[A-Za-z]*\":)", lambda found: b"_" + found[1].lower(), root.content)
    for other in (
        replace(demand, trusted_root=TrustedRoot("root.json", snake)),
        replace(demand, keyless=(*demand.keyless, Identity(ISSUER, "ops@example.com"))),
        replace(demand, keyless=(Identity(ISSUER, "https://github.com/acme/app@refs/tags/v1"),)),
        replace(demand, keyless=(Identity(ISSUER, re.compile(".*@example.com")),)),
        replace(demand, keys=(A.key,), minimum=2),
    ):
        assert "fulcio" not in str(made(other)[0])


def test_each_attestation_is_a_document_of_its_own() -> None:
    """Within one, policy-controller wants all of them of the same signer."""
    _, policies, _ = made(
        TrustPolicy("ci", (A.key, B.key), attestations=(PROVENANCE, "https://spdx.dev/Document"))
    )
    wanted = [
        {
            one["predicateType"]
            for authority in each["spec"]["authorities"]
            for one in authority["attestations"]
        }
        for each in policies
    ]
    assert wanted == [{PROVENANCE}, {"https://spdx.dev/Document"}]


def test_a_curve_has_the_hashes_that_cosign_used_for_it() -> None:
    key = Signer.ecdsa("p384.pub", ec.SECP384R1()).key
    _, (policy,), _ = made(TrustPolicy("release", (key,)))
    hashes = [each["key"]["hashAlgorithm"] for each in policy["spec"]["authorities"]]
    assert hashes == ["sha384", "sha256"]


def test_kyverno_counts_signers_and_tells_signatures_from_attestations() -> None:
    found = documents(
        TrustPolicy("two", (A.key, B.key), minimum=2, annotations={"env": "prod"}),
        TrustPolicy("ci", (A.key,), attestations=(PROVENANCE,)),
    )
    spec = found.image_validating_policy["spec"]
    assert [each["name"] for each in spec["attestors"]] == ["trust1key1", "trust1key2", "trust2key1"]
    assert {each["intoto"]["type"] for each in spec["attestations"]} == {SIGNED, PROVENANCE}
    signed, attested = (each["expression"] for each in spec["validations"])
    assert "attestations.attestation1, [attestors.trust1key1, attestors.trust1key2])" in signed
    assert signed.endswith(".all(count, count >= 2)")
    assert "attestations.attestation2, [attestors.trust2key1])" in attested
    assert spec["attestors"][0]["cosign"]["annotations"] == {"env": "prod"}
    assert spec["failurePolicy"] == "Fail"
    assert not any(said.startswith("ImageValidatingPolicy: two demands") for said in found.gaps)


def policy_controller_matches(glob: str, reference: str) -> bool:
    """As pkg/apis/glob of policy-controller says: `*` is anything but a slash, `**` anything; all of it must match."""
    pattern = re.escape(glob).replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
    return re.fullmatch(pattern, reference) is not None


def kyverno_matches(glob: str, reference: str) -> bool:
    """As gobwas/glob does without separators."""
    return re.fullmatch(re.escape(glob).replace(r"\*", ".*"), reference) is not None


@pytest.mark.parametrize("ending", ["", ":v1", f"@sha256:{64 * 'a'}", f":v1@sha256:{64 * 'a'}"])
@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("team/app", "app", "app2"),
        ("team/app", "app", "app/below"),
        ("team/*", "app", "../other"),
        ("team/web-*", "web-a", "app"),
        ("team/**", "a/b/c", "../team2/a"),
        ("team/**/api", "api", "../other/api"),
        ("team/**/api", "a/b/api", "../other/api"),
        ("team/{web,api}", "api", "../other"),
        ("team/v[12]", "v1", "../other"),
        ("team/*/app", "x/app", "x/app2"),
    ],
)
def test_the_globs_match_the_images_of_the_rule(pattern: str, inside: str, outside: str, ending: str) -> None:
    found = documents(TrustPolicy("any", (A.key,)), repositories=(pattern,))
    (policy,) = found.cluster_image_policies
    host = "fra.example.com/mirror"
    other = normpath(f"{host}/{outside}") + ending
    controlled = [each["glob"] for each in policy["spec"]["images"]]
    if ending:  # policy-controller adds :latest
        assert any(policy_controller_matches(glob, f"{host}/{inside}{ending}") for glob in controlled)
        assert not any(policy_controller_matches(glob, other) for glob in controlled)
    kyverno = [each["glob"] for each in found.image_validating_policy["spec"]["matchImageReferences"]]
    assert any(kyverno_matches(glob, f"{host}/{inside}{ending}") for glob in kyverno)
    assert not any(kyverno_matches(glob, other) for glob in kyverno)


@pytest.mark.parametrize(
    ("rename", "pattern"),
    [
        (Rename(replacements=(Replacement(re.compile("team"), "mirror"),)), "team/*"),
        (Rename(strip="team/web-"), "team/*"),
        (Rename(strip="team/web-", prefix="mirror/"), "team/web-{a,b}"),
    ],
)
def test_where_names_have_nothing_in_common_the_whole_destination_is_covered(
    rename: Rename, pattern: str
) -> None:
    one = replace(rule(TrustPolicy("any", (A.key,)), repositories=(pattern,)), rename_repository=rename)
    found = pull_policy(one.name, [(one, "hub.example.com")], ["fra.example.com"])
    assert found.cluster_image_policies[0]["spec"]["images"] == [{"glob": "fra.example.com/**"}]
    assert list(found.policy_json["transports"]["docker"]) == ["fra.example.com"]
    assert any("how the rule renames depends on the name" in said for said in found.gaps)


def test_a_repository_with_images_from_several_sources_is_said_to_be_refused() -> None:
    one = rule(TrustPolicy("any", (A.key,)))
    sources = [(one, "hub.example.com"), (replace(one, source="near"), "near.example.com")]
    found = pull_policy("listed", sources, ["fra.example.com"])
    said = "policy.json: fra.example.com/mirror/app has images from 2 places"
    assert [gap for gap in found.gaps if gap.startswith(said)]
    same = documents(TrustPolicy("any", (A.key,)), repositories=("team/a-*", "team/b-*"))
    (demanded,) = same.policy_json["transports"]["docker"].values()
    assert len(demanded) == 1
    assert not [gap for gap in same.gaps if "places" in gap]
