"""What pullers need to demand the signatures that a rule demands, as far as they can. Pure.

containers-policy.json(5) and containers-registries.d(5) for podman, CRI-O, skopeo and bootc; ClusterImagePolicy of sigstore's
policy-controller for Kubernetes.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from replicator.policy.mapping import rename
from replicator.policy.rule import Rule
from replicator.trust.policy import Identity, PublicKey, TrustPolicy

_WILDCARD: Final = re.compile(r"[*?\[{]")
_UNSAFE: Final = re.compile(r"[^a-z0-9-]+")


@dataclass(frozen=True, slots=True)
class PullPolicy:
    """The documents, and sentences that say what they cannot demand."""

    policy_json: Mapping[str, Any]
    registries_d: Mapping[str, Any]
    cluster_image_policies: Sequence[Mapping[str, Any]]
    gaps: Sequence[str]


def pull_policy(rule: Rule, source: str, destinations: Sequence[str]) -> PullPolicy:
    """What pullers from the destinations of a rule need.

    Args:
        rule: demands something (`trust`).
        source: host of the source registry, with a path where it has one; "" if it is not a registry.
        destinations: the same of the destinations that are registries.
    """
    gaps: list[str] = []
    scopes = list(_scopes(rule, source, destinations, gaps))
    requirements = [each for policy in rule.trust for each in _requirements(policy, gaps)]
    docker = {
        scope: [{**requirement, **identity} for requirement in requirements] or [{"type": "reject"}]
        for scope, identity in scopes
    }
    hosts = {scope.partition("/")[0]: {"use-sigstore-attachments": True} for scope, _ in scopes}
    gaps.append(
        "policy.json: podman, CRI-O and skopeo do not verify bundles, the form of cosign 3; images must be signed in the "
        "older form too (cosign sign --new-bundle-format=false)"
    )
    gaps.append(
        "policy.json: of a multi-platform image they verify the platform's own manifest, not the index, so each platform must "
        "be signed too (cosign sign --recursive)"
    )
    images = [
        f"{host}/{rename(rule.rename_repository, glob.text)}"
        for host in destinations
        for glob in rule.repositories.include
    ]
    policies = [
        _cluster_policy(rule, policy, number, images, gaps) for number, policy in enumerate(rule.trust, 1)
    ]
    if rule.repositories.exclude:
        gaps.append("ClusterImagePolicy: repositories that the rule excludes by ! are covered, too")
    return PullPolicy(
        {"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": docker}},
        {"docker": hosts},
        policies,
        list(dict.fromkeys(gaps)),
    )


def _scopes(
    rule: Rule, source: str, destinations: Sequence[str], gaps: list[str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The scopes of policy.json, each with the identity that signatures there must have."""
    for glob in rule.repositories.include:
        for host in destinations:
            if glob.exact is not None:
                scope = f"{host}/{rename(rule.rename_repository, glob.exact)}"
                signed = {"type": "exactRepository", "dockerRepository": f"{source}/{glob.exact}"}
                yield scope, {"signedIdentity": signed if source else {"type": "matchRepository"}}
                continue
            fixed = _fixed(glob.text)
            where = (
                ""
                if rule.rename_repository.replacements
                else rename(rule.rename_repository, fixed + "/" if fixed else "")
            )
            scope = f"{host}/{where}".rstrip("/")
            yield (
                scope,
                {
                    "signedIdentity": {
                        "type": "remapIdentity",
                        "prefix": scope,
                        "signedPrefix": f"{source}/{fixed}".rstrip("/") if source else scope,
                    }
                },
            )
            gaps.append(
                f"policy.json: {scope} stands for the pattern {glob.text}, and may cover more; there only pulls by digest "
                "pass, because cosign's signatures name no tag: list repositories by exact names to pull by tag"
            )


def _fixed(pattern: str) -> str:
    """The components of a pattern before the first wildcard."""
    parts = pattern.split("/")
    count = next((at for at, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
    return "/".join(parts[:count])


def _requirements(policy: TrustPolicy, gaps: list[str]) -> Iterator[Mapping[str, Any]]:
    """The requirements of policy.json that one policy comes to; all of them must be met."""
    if policy.attestations:
        gaps.append(
            f"policy.json: {policy.name} demands attestations, which cannot be demanded there; left out"
        )
        return
    if policy.annotations:
        gaps.append(f"policy.json: {policy.name} demands annotations, which cannot be demanded there")
    gaps.extend(
        f"policy.json: {policy.name}: {identity} is left out; write fulcio and rekorPublicKeyData by hand"
        for identity in policy.keyless
    )
    keys = [base64.b64encode(_pem(key).encode()).decode() for key in policy.keys]
    if not keys:
        yield {"type": "reject"}
    elif policy.minimum > 1 and policy.minimum == len({key.id for key in policy.keys}):
        yield from ({"type": "sigstoreSigned", "keyData": key} for key in dict.fromkeys(keys))
    else:
        if policy.minimum > 1:
            gaps.append(f"policy.json: {policy.name} demands {policy.minimum} signers; one is demanded there")
        yield {"type": "sigstoreSigned", **({"keyData": keys[0]} if len(keys) == 1 else {"keyDatas": keys})}
        if len(keys) > 1:
            gaps.append(
                "policy.json: keyDatas, for one of several keys, needs containers/image 5.33 or newer"
            )


def _cluster_policy(
    rule: Rule, policy: TrustPolicy, number: int, images: Sequence[str], gaps: list[str]
) -> Mapping[str, Any]:
    """One policy: any of its authorities is enough, and all policies that match an image must agree."""
    attested = [
        {"name": f"a{at}", "predicateType": predicate} for at, predicate in enumerate(policy.attestations, 1)
    ]
    more = {"attestations": attested} if attested else {}
    authorities = [
        *({"name": f"key-{at}", "key": {"data": _pem(key), "hashAlgorithm": "sha256"}, **more} for at, key in enumerate(policy.keys, 1)),
        *({"name": f"keyless-{at}", "keyless": {"identities": [_identity(one)], "trustRootRef": "replicator"}, **more} for at, one in enumerate(policy.keyless, 1)),
    ]  # fmt: skip
    if policy.keyless:
        gaps.append(
            "ClusterImagePolicy: keyless signers need a TrustRoot named replicator, made of the rule's trusted_root"
        )
    if policy.minimum > 1:
        gaps.append(
            f"ClusterImagePolicy: {policy.name} demands {policy.minimum} signers; one is demanded there"
        )
    if policy.annotations:
        gaps.append(f"ClusterImagePolicy: {policy.name} demands annotations, which cannot be demanded there")
    if policy.same_repository:
        gaps.append(
            f"ClusterImagePolicy: {policy.name} demands the repository in the signature, which cannot be demanded there"
        )
    name = _UNSAFE.sub("-", f"replicator-{rule.name}-{number}".lower()).strip("-")
    return {
        "apiVersion": "policy.sigstore.dev/v1beta1",
        "kind": "ClusterImagePolicy",
        "metadata": {"name": name},
        "spec": {"images": [{"glob": image} for image in images], "authorities": authorities},
    }


def _identity(identity: Identity) -> dict[str, str]:
    if isinstance(identity.identity, str):
        return {"issuer": identity.issuer, "subject": identity.identity}
    return {"issuer": identity.issuer, "subjectRegExp": f"^(?:{identity.identity.pattern})$"}


def _pem(key: PublicKey) -> str:
    lines = base64.encodebytes(key.der).decode().replace("\n", "")
    body = "\n".join(lines[at : at + 64] for at in range(0, len(lines), 64))
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"
