"""Which of the manifests that refer to an image travel with it, and which must be among them. Pure.

Names of types: sigstore's bundle specification and cosign (pkg/types), the Notary Project's signature specification,
SPDX and CycloneDX as registered media types.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from replicator.model.companion import LEGACY_SUFFIXES
from replicator.model.image import Referrer
from replicator.model.manifest import described

ANNOTATION_PREFIX: Final = "annotation:"

_BUNDLE: Final = "application/vnd.dev.sigstore.bundle"
_CONTENT: Final = "dev.sigstore.bundle.content"
_PREDICATE: Final = "dev.sigstore.bundle.predicateType"
_SIGNED: Final = "https://sigstore.dev/cosign/sign/v1"
_SIGNATURE_TYPES: Final = frozenset(
    {"application/vnd.cncf.notary.signature", "application/vnd.dev.cosign.artifact.sig.v1+json"}
)
_ATTESTATION_TYPES: Final = frozenset({"application/vnd.in-toto+json"})
_SBOM_TYPES: Final = ("application/spdx", "text/spdx", "application/vnd.cyclonedx", "application/vnd.syft")
_SBOM_COSIGN: Final = "application/vnd.dev.cosign.artifact.sbom.v1+json"
_SBOM_PREDICATES: Final = ("https://spdx.dev/Document", "https://cyclonedx.org/bom")


class Traits(msgspec.Struct, frozen=True):
    """What patterns see of a referrer. `suffix`: of the tag that makes it one, for cosign's older forms."""

    artifact_type: str
    annotations: Mapping[str, str]
    suffix: str = ""

    @property
    def is_bundle(self) -> bool:
        """A sigstore bundle, which may be a signature or an attestation."""
        return self.artifact_type.startswith(_BUNDLE)


def traits(referrer: Referrer) -> Traits:
    """The traits of a referrer, from the manifest itself: listings may lack them."""
    known = described(referrer.manifest)
    suffix = next((each for each in LEGACY_SUFFIXES if (referrer.tag or "").endswith(each)), "")
    return Traits(known.artifact_type or "", known.annotations or {}, suffix)


def is_signature(one: Traits) -> bool:
    """Whether it is a signature of the image itself. It may be by anybody: nothing is verified."""
    if one.is_bundle:
        # Every other predicate says something about the image, which may be "do not run this".
        return (
            one.annotations.get(_PREDICATE) == _SIGNED or one.annotations.get(_CONTENT) == "message-signature"
        )
    return one.suffix == ".sig" or one.artifact_type in _SIGNATURE_TYPES


def is_signature_type(artifact_type: str | None) -> bool:
    """Whether an artifact type is one of signatures and signed statements, to which hardly anything refers."""
    kind = artifact_type or ""
    return kind.startswith(_BUNDLE) or kind in _SIGNATURE_TYPES


def _is_attestation(one: Traits) -> bool:
    if one.is_bundle:
        return not is_signature(one)
    return one.suffix == ".att" or one.artifact_type in _ATTESTATION_TYPES


def _is_sbom(one: Traits) -> bool:
    if one.is_bundle:
        return one.annotations.get(_PREDICATE, "").startswith(_SBOM_PREDICATES)
    known = one.artifact_type
    return one.suffix == ".sbom" or known == _SBOM_COSIGN or known.startswith(_SBOM_TYPES)


_KINDS: Final[Mapping[str, Callable[[Traits], bool]]] = {
    "signature": is_signature,
    "attestation": _is_attestation,
    "sbom": _is_sbom,
}


@dataclass(frozen=True, slots=True)
class ReferrerPattern:
    """A kind, or what the artifact type must be, or (`annotation`) what the value of that annotation must be."""

    text: str
    value: re.Pattern[str] | None = field(default=None, repr=False)
    annotation: str = ""

    def matches(self, one: Traits) -> bool:
        """Whether a referrer is one of these."""
        if self.value is None:
            return _KINDS[self.text](one)
        if self.annotation:
            value = one.annotations.get(self.annotation)
            return value is not None and self.value.fullmatch(value) is not None
        return self.value.fullmatch(one.artifact_type) is not None


def parse_referrer_pattern(text: str) -> ReferrerPattern:
    """The text as a pattern for referrers; raises ValueError that says what would be right."""
    if text in _KINDS:
        return ReferrerPattern(text)
    if text.startswith(ANNOTATION_PREFIX):
        name, equals, value = text.removeprefix(ANNOTATION_PREFIX).partition("=")
        if not name or not equals or not value:
            raise ValueError(f"invalid pattern {text[:80]!r}: write annotation:NAME=VALUE")
        return ReferrerPattern(text, _wildcards(value), name)
    if "/" not in text:
        kinds = ", ".join(_KINDS)
        raise ValueError(
            f"unknown kind {text[:80]!r}: write one of {kinds}, an artifact type such as application/spdx+json, or "
            "annotation:NAME=VALUE"
        )
    return ReferrerPattern(text, _wildcards(text))


def _wildcards(text: str) -> re.Pattern[str]:
    """`*` is any text. Media types have characters that the patterns of names do not allow."""
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)


class Objection(msgspec.Struct, frozen=True):
    """Why an image is held that lacks required referrers. `is_ours`: the rule's own filter alone keeps them away."""

    text: str
    is_ours: bool


class ReferrerFilter(msgspec.Struct, frozen=True):
    """Referrers that travel: any of `include` (empty: all), none of `exclude`. `require` must be among those of the root."""

    include: tuple[ReferrerPattern, ...] = ()
    exclude: tuple[ReferrerPattern, ...] = ()
    require: tuple[ReferrerPattern, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether everything travels."""
        return not self.include and not self.exclude

    def chooses(self, one: Traits) -> bool:
        """Whether a referrer travels."""
        if any(pattern.matches(one) for pattern in self.exclude):
            return False
        return not self.include or any(pattern.matches(one) for pattern in self.include)

    def objection(self, chosen: Collection[Traits], left_out: Collection[Traits]) -> Objection | None:
        """Why an image is held; None where it has all that is required.

        Args:
            chosen: what refers to the image's root and travels.
            left_out: what refers to it and does not.
        """
        missing = [pattern for pattern in self.require if not any(pattern.matches(one) for one in chosen)]
        if not missing:
            return None
        filtered = [each.text for each in missing if any(each.matches(one) for one in left_out)]
        lacking = [each.text for each in missing if each.text not in filtered]
        reasons = []
        if lacking:
            reasons.append(f"required, but the source has none: {', '.join(lacking)}")
        if filtered:
            reasons.append(f"required, but left out by the rule's own filter: {', '.join(filtered)}")
        return Objection("; ".join(reasons), is_ours=not lacking)


NOTHING: Final = ReferrerFilter(exclude=(ReferrerPattern("*", _wildcards("*")),))
"""Leaves out everything: what a plan reads where a rule's referrers do not travel."""
