"""Documents for pullers demand what the rule demands, or say that they do not."""

from __future__ import annotations

import base64
import re
from dataclasses import replace

from replicator.policy.enforcing import pull_policy
from replicator.policy.pattern import Glob
from replicator.policy.rule import Rename, RepositorySelection, Rule
from replicator.trust.policy import Identity, TrustPolicy
from tests.fakes.signing import PROVENANCE, Signer

A, B = Signer.ecdsa("a.pub"), Signer.ecdsa("b.pub")


def rule(*policies: TrustPolicy, repositories: tuple[str, ...] = ("team/app",)) -> Rule:
    selection = RepositorySelection(tuple(Glob.parse(text) for text in repositories))
    made = Rule(
        "Team.Images", "hub", ("fra",), selection, rename_repository=Rename(strip="team/", prefix="mirror/")
    )
    return replace(made, trust=policies)


def made(
    *policies: TrustPolicy, repositories: tuple[str, ...] = ("team/app",)
) -> tuple[dict, list[dict], str]:  # type: ignore[type-arg]
    found = pull_policy(rule(*policies, repositories=repositories), "hub.example.com", ["fra.example.com"])
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
    assert policy["spec"]["images"] == [{"glob": "fra.example.com/mirror/app"}]
    assert [each["key"]["data"] for each in policy["spec"]["authorities"]] == [A.pem.decode()]
    assert len(gaps.splitlines()) == 2  # what skopeo never does
    assert "do not verify bundles" in gaps


def test_all_policies_and_all_of_several_keys_are_all_demanded() -> None:
    scopes, policies, gaps = made(
        TrustPolicy("one", (A.key,)), TrustPolicy("both", (A.key, B.key), minimum=2)
    )
    assert [set(each) & {"keyData", "keyDatas"} for each in scopes["fra.example.com/mirror/app"]] == [
        {"keyData"}
    ] * 3
    assert len(policies) == 2
    assert "ClusterImagePolicy: both demands 2 signers" in gaps


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
    assert "only pulls by digest" in gaps


def test_what_cannot_be_demanded_is_said_and_never_waved_through() -> None:
    keyless = Identity("https://issuer.example.com", re.compile("a|b"))
    scopes, (policy,), gaps = made(TrustPolicy("ci", keyless=(keyless,), annotations={"env": "prod"}))
    assert scopes["fra.example.com/mirror/app"][0]["type"] == "reject"
    (authority,) = policy["spec"]["authorities"]
    assert authority["keyless"]["identities"] == [
        {"issuer": "https://issuer.example.com", "subjectRegExp": "^(?:a|b)$"}
    ]
    for said in (
        "fulcio",
        "policy.json: ci demands annotations",
        "ClusterImagePolicy: ci demands annotations",
        "TrustRoot",
    ):
        assert said in gaps
    scopes, (policy,), gaps = made(TrustPolicy("ci", (A.key,), attestations=(PROVENANCE,)))
    assert scopes["fra.example.com/mirror/app"] == [{"type": "reject"}]
    assert policy["spec"]["authorities"][0]["attestations"] == [{"name": "a1", "predicateType": PROVENANCE}]
    assert "demands attestations" in gaps
