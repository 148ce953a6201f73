"""What pullers need to demand the signatures that a rule demands, as far as they can. Pure.

containers-policy.json(5) and containers-registries.d(5) for podman, CRI-O, skopeo and bootc; `admission.py` for Kubernetes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from replicator.policy.admission import (
    cluster_image_policies,
    fixed_part,
    image_validating_policy,
    images_of,
    renamed_front,
)
from replicator.policy.certified import by_email
from replicator.policy.mapping import rename
from replicator.policy.rule import Rule
from replicator.trust.policy import TrustPolicy, pem_of


@dataclass(frozen=True, slots=True)
class PullPolicy:
    """The documents, and sentences that say what they cannot demand."""

    policy_json: Mapping[str, Any]
    registries_d: Mapping[str, Any]
    cluster_image_policies: Sequence[Mapping[str, Any]]
    image_validating_policy: Mapping[str, Any]
    gaps: Sequence[str]


def pull_policy(name: str, rules: Sequence[tuple[Rule, str]], destinations: Sequence[str]) -> PullPolicy:
    """What pullers from the destinations of a rule need.

    Args:
        name: the rule's name in the config.
        rules: the rule; several where it takes its images from lists, one for each source. All demand the same (`trust`).
            Each with the host of its source registry, with a path where it has one; "" if it is not a registry.
        destinations: the same of the destinations that are registries.
    """
    gaps: list[str] = []
    trust = rules[0][0].trust
    scopes = [each for rule, source in rules for each in _scopes(rule, source, destinations, gaps)]
    requirements = [each for policy in trust for each in _requirements(policy, gaps)]
    docker = _transport(scopes, requirements, gaps)
    hosts = {scope.partition("/")[0]: {"use-sigstore-attachments": True} for scope, _ in scopes}
    gaps.append(
        "policy.json: podman, CRI-O and skopeo do not verify bundles, the form of cosign 3; images must be signed in the "
        "older form too (cosign sign --new-bundle-format=false)"
    )
    gaps.append(
        "policy.json: of a multi-platform image they verify the platform's own manifest, not the index, so each platform must "
        "be signed too (cosign sign --recursive)"
    )
    images = list(
        dict.fromkeys(
            images_of(rule, glob, host, gaps)
            for rule, _ in rules
            for glob in rule.repositories.include
            for host in destinations
        )
    )
    if any(rule.repositories.exclude for rule, _ in rules):
        gaps.append("repositories that the rule excludes by ! are covered too, where a pattern includes them")
    return PullPolicy(
        {
            "default": [{"type": "insecureAcceptAnything"}],
            "transports": {"docker": docker},
        },
        {"docker": hosts},
        cluster_image_policies(name, trust, images, gaps),
        image_validating_policy(name, trust, images, gaps),
        list(dict.fromkeys(gaps)),
    )


def _transport(
    scopes: Sequence[tuple[str, Mapping[str, Any]]],
    requirements: Sequence[Mapping[str, Any]],
    gaps: list[str],
) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """What policy.json demands in each scope: everything at once."""
    if not requirements:
        gaps.append(
            "policy.json: nothing that the rule demands can be demanded there, so all pulls are refused; remove these scopes to "
            "allow them unverified"
        )
    is_refused = not requirements or any(each["type"] == "reject" for each in requirements)
    identities: dict[str, list[Mapping[str, Any]]] = {}
    for scope, identity in scopes:
        known = identities.setdefault(scope, [])
        if identity not in known:
            known.append(identity)
    gaps += [
        f"policy.json: {scope} has images from {len(known)} places, and each signature names one, so all pulls are refused; give "
        "each place its own repositories at the destination, or write signedIdentity by hand"
        for scope, known in identities.items()
        if not is_refused and len(known) > 1
    ]
    # containers/image refuses the whole file, and so all pulls of the host, where a reject has a signedIdentity.
    return {
        scope: [{"type": "reject"}]
        if is_refused
        else [{**each, **identity} for identity in known for each in requirements]
        for scope, known in identities.items()
    }


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
            fixed = fixed_part(glob.text)
            where = renamed_front(rule.rename_repository, f"{fixed}/" if fixed else "") or ""
            where = where if where.endswith("/") else where.rpartition("/")[0]
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
                f"policy.json: {scope} stands for the pattern {glob.text}, and may cover more; signatures pass there only if they "
                "name a tag or digest: sign with cosign sign --sign-container-identity, or list repositories by exact names"
            )


def _requirements(policy: TrustPolicy, gaps: list[str]) -> Iterator[Mapping[str, Any]]:
    """The requirements of policy.json that one policy comes to; all of them must be met."""
    if policy.attestations:
        gaps.append(
            f"policy.json: {policy.name} demands attestations, which cannot be demanded there; left out"
        )
        return
    if policy.annotations:
        gaps.append(f"policy.json: {policy.name} demands annotations, which cannot be demanded there")
    if (certified := by_email(policy)) is not None:
        gaps.append(
            f"policy.json: {policy.name}: only keyless signatures in .sig tags are verified, and containers/image 5.33 or newer is "
            "needed where the trusted root has several logs"
        )
        yield certified
        return
    gaps.extend(
        f"policy.json: {policy.name}: {identity} is left out; write fulcio and rekorPublicKeyData by hand"
        for identity in policy.keyless
    )
    keys = [base64.b64encode(pem_of(key).encode()).decode() for key in policy.keys]
    if not keys:
        gaps.append(f"policy.json: {policy.name} has keyless signers only, so until then pulls are refused")
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
