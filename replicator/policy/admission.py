"""Documents that demand in Kubernetes the signatures that a rule demands, as far as they can. Pure.

ClusterImagePolicy of sigstore's policy-controller (0.13: config/300-clusterimagepolicy.yaml), ImageValidatingPolicy of Kyverno
(1.19: policies.kyverno.io/v1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from replicator.policy.mapping import rename
from replicator.policy.pattern import Glob
from replicator.policy.rule import Rename, Rule
from replicator.trust.policy import Identity, PublicKey, TrustPolicy, pem_of
from replicator.trust.statement import SIGNED

Document = Mapping[str, Any]

TRUST_ROOT: Final = "replicator"
_BEYOND_STARS: Final = re.compile(r"[?\[{]|\*\*/")
_WILDCARD: Final = re.compile(r"[*?\[{]")
_UNSAFE: Final = re.compile(r"[^a-z0-9-]+")
_HASHES: Final = {"ECDSA P-384": ("sha384", "sha256"), "ECDSA P-521": ("sha512", "sha256")}
"""cosign before version 3 signed with SHA-256 whatever the curve."""
_IMAGES: Final = "(images.containers + images.initContainers + images.ephemeralContainers)"


@dataclass(frozen=True, slots=True)
class Images:
    """The images of some repositories: `pattern` has `*` (no slash) and `**` as its only wildcards."""

    pattern: str

    @property
    def of_policy_controller(self) -> Sequence[str]:
        """Globs that match the references of all of them, which end with a tag or digest."""
        if self.pattern.endswith("*"):
            return (self.pattern,)  # a tag and a digest have no slash
        return (f"{self.pattern}:**", f"{self.pattern}@**")

    @property
    def of_kyverno(self) -> Sequence[str]:
        """The same where `*` also stands for slashes, and a reference may have neither."""
        pattern = re.sub(r"\*+", "*", self.pattern)
        return (pattern,) if pattern.endswith("*") else (pattern, f"{pattern}:*", f"{pattern}@*")


def fixed_part(pattern: str) -> str:
    """The components of a pattern before the first wildcard."""
    parts = pattern.split("/")
    count = next((at for at, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
    return "/".join(parts[:count])


def renamed_front(names: Rename, front: str) -> str | None:
    """What all names with this front begin with when they are renamed; None where they need have nothing in common."""
    if names.replacements or (names.strip != front and names.strip.startswith(front)):
        return None
    return rename(replace(names, suffix=""), front)


def images_of(rule: Rule, glob: Glob, host: str, gaps: list[str]) -> Images:
    """The images that a pattern of a rule's repositories brings to a destination; more where that cannot be said."""
    if glob.exact is not None:
        return Images(f"{host}/{rename(rule.rename_repository, glob.exact)}")
    text = glob.text
    if _BEYOND_STARS.search(text):
        fixed = fixed_part(text)
        text = f"{fixed}/**" if fixed else "**"
    if renamed_front(rule.rename_repository, _WILDCARD.split(text)[0]) is None:
        gaps.append(
            f"Kubernetes: {host}/** stands for the pattern {glob.text}, and covers more: how the rule renames depends on the name"
        )
        return Images(f"{host}/**")
    if text != glob.text:
        gaps.append(f"Kubernetes: {text} stands for the pattern {glob.text}, and may cover more")
    return Images(f"{host}/{rename(rule.rename_repository, text)}")


def resource_name(*parts: object) -> str:
    """A name that Kubernetes takes."""
    return _UNSAFE.sub("-", "-".join(map(str, parts)).lower()).strip("-")


# --- policy-controller ---


def cluster_image_policies(
    name: str, policies: Sequence[TrustPolicy], images: Sequence[Images], gaps: list[str]
) -> list[Document]:
    """ClusterImagePolicy documents: any authority of one is enough, and all that match an image must agree."""
    globs = [{"glob": glob} for each in images for glob in each.of_policy_controller]
    found: list[Document] = []
    for number, policy in enumerate(policies, 1):
        _tell_cluster_gaps(policy, gaps)
        documents = list(_demands(policy, gaps))
        for at, authorities in enumerate(documents, 1):
            parts = (number,) if len(documents) == 1 else (number, at)
            found.append(
                {
                    "apiVersion": "policy.sigstore.dev/v1beta1",
                    "kind": "ClusterImagePolicy",
                    "metadata": {"name": resource_name("replicator", name, *parts)},
                    "spec": {"images": globs, "authorities": authorities},
                }
            )
    return found


def _tell_cluster_gaps(policy: TrustPolicy, gaps: list[str]) -> None:
    what = f"ClusterImagePolicy: {policy.name}"
    if policy.keys:
        gaps.append(
            f"{what}: policy-controller does not verify bundles that were signed with a key; such images must be signed in the "
            "older form too (cosign sign --new-bundle-format=false)"
        )
    if policy.keyless:
        gaps.append(
            f"{what}: keyless signers need a TrustRoot named {TRUST_ROOT}, made of the rule's trusted_root"
        )
    if policy.annotations:
        gaps.append(f"{what} demands annotations, which cannot be demanded there")
    if policy.same_repository:
        gaps.append(f"{what} demands the repository in the signature, which cannot be demanded there")


def _demands(policy: TrustPolicy, gaps: list[str]) -> Iterator[Sequence[Document]]:
    """The authorities of each document that one policy comes to."""
    every = (
        policy.minimum > 1 and not policy.keyless and policy.minimum == len({key.id for key in policy.keys})
    )
    if policy.minimum > 1 and not every:
        gaps.append(
            f"ClusterImagePolicy: {policy.name} demands {policy.minimum} signers; one is demanded there"
        )
    groups = [(key,) for key in {key.id: key for key in policy.keys}.values()] if every else [policy.keys]
    for keys in groups:
        for predicate in policy.attestations or (None,):
            more = (
                {"attestations": [{"name": "attestation", "predicateType": predicate}]} if predicate else {}
            )
            yield [{**authority, **more} for authority in _authorities(keys, policy.keyless)]


def _authorities(keys: Sequence[PublicKey], keyless: Sequence[Identity]) -> Iterator[Document]:
    for at, key in enumerate(keys, 1):
        for algorithm in _HASHES.get(key.kind, ("sha256",)):
            yield {"name": f"key-{at}-{algorithm}", "key": {"data": pem_of(key), "hashAlgorithm": algorithm}}
    for at, identity in enumerate(keyless, 1):
        signer = {"identities": [_identity(identity)], "trustRootRef": TRUST_ROOT}
        log = {"trustRootRef": TRUST_ROOT}
        yield {
            "name": f"keyless-{at}-bundle", "keyless": signer, "ctlog": log, "signatureFormat": "bundle"
        }  # fmt: skip
        yield {"name": f"keyless-{at}-older", "keyless": signer, "ctlog": log}


# --- Kyverno ---


def image_validating_policy(
    name: str, policies: Sequence[TrustPolicy], images: Sequence[Images], gaps: list[str]
) -> Document:
    """One ImageValidatingPolicy: an attestor for each signer, a validation for each demand.

    A signature is demanded as the attestation that it is in a bundle: Kyverno's verifyImageSignatures takes a bundle with any
    predicate for a signature.
    """
    attestors: list[Document] = []
    predicates: dict[str, str] = {}
    validations: list[Document] = []
    for number, policy in enumerate(policies, 1):
        signers = list(_attestors(number, policy))
        attestors += signers
        names = ", ".join(f"attestors.{each['name']}" for each in signers)
        for predicate in policy.attestations or (SIGNED,):
            known = predicates.setdefault(predicate, f"attestation{len(predicates) + 1}")
            verified = f"verifyAttestationSignatures(image, attestations.{known}, [{names}])"
            validations.append(
                {
                    "expression": f"{_IMAGES}.map(image, {verified}).all(count, count >= {policy.minimum})",
                    "message": f"{policy.name}: {_demanded(policy, predicate)}",
                }
            )
        _tell_kyverno_gaps(policy, gaps)
    return {
        "apiVersion": "policies.kyverno.io/v1",
        "kind": "ImageValidatingPolicy",
        "metadata": {"name": resource_name("replicator", name)},
        "spec": {
            "failurePolicy": "Fail",
            "validationActions": ["Deny"],
            "webhookConfiguration": {"timeoutSeconds": 30},
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["pods", "pods/ephemeralcontainers"],
                    }
                ]
            },
            "matchImageReferences": [{"glob": glob} for each in images for glob in each.of_kyverno],
            "validationConfigurations": {"mutateDigest": True, "verifyDigest": True, "required": True},
            "attestors": attestors,
            "attestations": [
                {"name": known, "intoto": {"type": predicate}} for predicate, known in predicates.items()
            ],
            "validations": validations,
        },
    }


def _demanded(policy: TrustPolicy, predicate: str) -> str:
    what = "a signature" if predicate == SIGNED else f"an attestation of {predicate}"
    return (
        f"{what} by {policy.minimum} of its signers is required"
        if policy.minimum > 1
        else f"{what} is required"
    )


def _attestors(number: int, policy: TrustPolicy) -> Iterator[Document]:
    more: dict[str, Any] = {"annotations": dict(policy.annotations)} if policy.annotations else {}
    unlogged = {"insecureIgnoreTlog": True, "insecureIgnoreSCT": True}
    for at, key in enumerate({key.id: key for key in policy.keys}.values(), 1):
        hashes = _HASHES.get(key.kind, ("sha256",))
        signer = {"data": pem_of(key), "hashAlgorithm": hashes[0]}
        yield {"name": f"trust{number}key{at}", "cosign": {"key": signer, "ctlog": unlogged, **more}}
    for at, identity in enumerate(policy.keyless, 1):
        yield {
            "name": f"trust{number}keyless{at}",
            "cosign": {"keyless": {"identities": [_identity(identity)]}, **more},
        }


def _tell_kyverno_gaps(policy: TrustPolicy, gaps: list[str]) -> None:
    what = f"ImageValidatingPolicy: {policy.name}"
    if not policy.attestations:
        gaps.append(
            f"{what}: only bundles are accepted, the form of cosign 3; images that are only signed in the older form are refused"
        )
    if policy.keyless:
        gaps.append(
            f"{what}: keyless signers are verified by sigstore's public instance; write tuf, roots, rekorPubKey and ctLogPubKey by "
            "hand for another, or without internet access"
        )
    if policy.same_repository:
        gaps.append(f"{what} demands the repository in the signature, which bundles do not name; left out")


def _identity(identity: Identity) -> dict[str, str]:
    if isinstance(identity.identity, str):
        return {"issuer": identity.issuer, "subject": identity.identity}
    return {"issuer": identity.issuer, "subjectRegExp": f"^(?:{identity.identity.pattern})$"}
