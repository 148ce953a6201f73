"""Verdicts: which signatures of an image count towards what a rule demands, and why others do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

from replicator.model.digest import Digest, algorithm, encoded
from replicator.scrub import one_line, scrub
from replicator.trust.bundle import Bundle, MessageSignature, read_bundle
from replicator.trust.policy import PublicKey, TrustPolicy
from replicator.trust.promise import Logged
from replicator.trust.shapes import Form
from replicator.trust.statement import (
    SIGNED,
    Claim,
    Envelope,
    read_envelope,
    read_payload,
    read_statement,
)
from replicator.trust.strict import as_bytes, read_strict

_SIGNATURE: Final = "dev.cosignproject.cosign/signature"
_PREHASHED: Final = (
    "; Ed25519ph, which cosign 3 makes with an Ed25519 key, is not supported: sign with another kind of key"
)
_CERTIFICATE: Final = "dev.sigstore.cosign/certificate"
_PROMISE: Final = "dev.sigstore.cosign/bundle"


@dataclass(frozen=True, slots=True)
class Subject:
    """The image that is judged: its root digest and manifest, and its repository at the source, without the host."""

    digest: Digest
    repository: str
    manifest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature as it was found. `annotations` are those of its layer. `where` names it for people."""

    where: str
    form: Form
    body: bytes = field(repr=False)
    annotations: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one signature is worth to one policy: it counts for `demand` if there is a `signer`. `text` is one line."""

    policy: str
    where: str
    text: str
    signer: str | None = None
    demand: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether all policies agree. `reason` says in one line what is missing; "" if nothing is."""

    trusted: bool
    reason: str = ""


class _Void(Exception):
    """A signature does not count, and why."""


def _void(text: str) -> NoReturn:
    raise _Void(text)


class Trial:
    """Takes the signatures of one image, one after another, until every policy has enough of them.

    Args:
        policies: must all agree; at least one.
        subject: the image.
        explains: all signatures are to be examined, also those that decide nothing any more.
    """

    def __init__(self, policies: Sequence[TrustPolicy], subject: Subject, *, explains: bool = False) -> None:
        self._explains = explains
        self._policies = policies
        self._subject = subject
        self._signers: dict[tuple[int, str], set[str]] = {}
        self._problems: dict[int, list[str]] = {}
        self._left = 0
        self.examined = 0

    @property
    def is_trusted(self) -> bool:
        """Whether every policy has enough."""
        return all(not self._missing(at) for at in range(len(self._policies)))

    @property
    def is_over(self) -> bool:
        """Whether no more signatures need be examined."""
        return self.is_trusted and not self._explains

    def examine(self, signature: Signature) -> Sequence[Finding]:
        """What the signature is worth to each policy."""
        self.examined += 1
        return [self._examine(at, signature) for at in range(len(self._policies))]

    def unusable(self, where: str, why: str) -> Sequence[Finding]:
        """Notes a signature that could not be examined."""
        self.examined += 1
        for at in range(len(self._policies)):
            self._problems.setdefault(at, []).append(f"{where}: {why}")
        return [Finding(policy.name, where, why) for policy in self._policies]

    def leave(self, count: int) -> None:
        """Notes that signatures are not examined because there are too many."""
        self._left += count

    def verdict(self) -> Verdict:
        """The verdict on what was examined."""
        reasons = [reason for at in range(len(self._policies)) if (reason := self._reason(at))]
        if not reasons:
            return Verdict(trusted=True)
        more = (
            f" (too many signatures: {self.examined} were examined, {self._left} more were not)"
            if self._left
            else ""
        )
        return Verdict(trusted=False, reason="; ".join(reasons) + more)

    def _demands(self, at: int) -> tuple[str, ...]:
        return self._policies[at].attestations or (SIGNED,)

    def _missing(self, at: int) -> list[str]:
        minimum = self._policies[at].minimum
        return [one for one in self._demands(at) if len(self._signers.get((at, one), ())) < minimum]

    def _reason(self, at: int) -> str:
        policy, missing = self._policies[at], self._missing(at)
        if not missing:
            return ""
        what = "signature" if missing == [SIGNED] else f"attestation of {', '.join(missing)}"
        enough = ""
        if policy.minimum > 1:
            have = min(len(self._signers.get((at, one), ())) for one in missing)
            enough = f" by {policy.minimum} signers, found {have}"
        if not self.examined:
            return f"{policy.name}: no {what}{enough}: no signatures found"
        problems = self._problems.get(at, [])
        why = f": {problems[0]}" if problems else ""
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return f"{policy.name}: no valid {what}{enough}{why}{others}"

    def _examine(self, at: int, signature: Signature) -> Finding:
        policy = self._policies[at]
        try:
            claim, signer, how = _verified(signature, policy, self._subject)
            demand = _demanded(claim, policy, self._demands(at), self._subject)
        except (_Void, ValueError) as problem:
            why = scrub(str(problem))
            self._problems.setdefault(at, []).append(f"{signature.where}: {why}")
            return Finding(policy.name, signature.where, why)
        known = self._signers.setdefault((at, demand), set())
        again = " (this signer is counted already)" if signer in known else ""
        known.add(signer)
        return Finding(policy.name, signature.where, one_line(f"{how}{again}"), signer, demand)


def _verified(signature: Signature, policy: TrustPolicy, subject: Subject) -> tuple[Claim, str, str]:
    """What is claimed, by whom, and how that was verified. Raises ValueError or _Void."""
    if signature.form == "bundle":
        bundle = read_bundle(signature.body)
        return (
            _keyless(signature.body, policy, subject)
            if bundle.certificates
            else _verified_bundle(bundle, policy, subject)
        )
    if signature.form == "DSSE":
        envelope = read_envelope(read_strict(signature.body, "the envelope"))
        if signature.annotations.get(_CERTIFICATE):
            signer, how = _keyless_legacy(envelope.signature, signature, policy, envelope)
            return read_statement(envelope, subject.digest), signer, how
        return _by_envelope(envelope, policy, subject)
    made = as_bytes(signature.annotations.get(_SIGNATURE), "the layer's signature")
    if signature.annotations.get(_CERTIFICATE):
        signer, how = _keyless_legacy(made, signature, policy)
    else:
        key, how = _key_of(policy, made, signature.body)
        signer = key.id
    return read_payload(signature.body, subject.digest), signer, how


def _verified_bundle(bundle: Bundle, policy: TrustPolicy, subject: Subject) -> tuple[Claim, str, str]:
    if isinstance(bundle.content, MessageSignature):
        return _by_message(bundle.content, policy, subject)
    return _by_envelope(bundle.content, policy, subject)


def _keyless(body: bytes, policy: TrustPolicy, subject: Subject) -> tuple[Claim, str, str]:
    if not policy.keyless or policy.trusted_root is None:
        _void("is keyless, and the policy has no keyless identities")
    from replicator.trust.keyless import verify_keyless  # noqa: PLC0415  # an extra

    return verify_keyless(body, policy.trusted_root, policy.keyless, subject)


def _keyless_legacy(
    made: bytes, signature: Signature, policy: TrustPolicy, envelope: Envelope | None = None
) -> tuple[str, str]:
    if not policy.keyless or policy.trusted_root is None:
        _void("is keyless, and the policy has no keyless identities")
    from replicator.trust.keyless import verify_legacy  # noqa: PLC0415  # an extra

    pem = signature.annotations[_CERTIFICATE]
    logged = (
        Logged(pem, made, signature.body, signature.body)
        if envelope is None
        else Logged(pem, made, envelope.signed, envelope.payload, signature.body)
    )
    return verify_legacy(logged, signature.annotations.get(_PROMISE), policy.trusted_root, policy.keyless)


def _by_envelope(envelope: Envelope, policy: TrustPolicy, subject: Subject) -> tuple[Claim, str, str]:
    key, how = _key_of(policy, envelope.signature, envelope.signed)
    return read_statement(envelope, subject.digest), key.id, how


def _by_message(message: MessageSignature, policy: TrustPolicy, subject: Subject) -> tuple[Claim, str, str]:
    """The signature is over the manifest's bytes; what the bundle says of their hash is not needed."""
    if algorithm(subject.digest) == "sha256" and message.digest not in (
        b"",
        bytes.fromhex(encoded(subject.digest)),
    ):
        _void("the bundle is about another digest")
    key, how = _key_of(policy, message.signature, subject.manifest)
    return Claim(SIGNED, {}), key.id, how


def _key_of(policy: TrustPolicy, signature: bytes, signed: bytes) -> tuple[PublicKey, str]:
    """The policy's key that the signature is by, and how it holds."""
    if not policy.keys:
        _void("is signed by a key, and the policy has no keys")
    for key, how in _holding(policy.keys, signature, signed):
        return key, f"signed by {key.name} ({how})"
    names = ", ".join(key.name for key in policy.keys)
    more = _PREHASHED if any(key.kind == "Ed25519" for key in policy.keys) else ""
    return _void(f"not signed by {'any of ' if len(policy.keys) > 1 else ''}{names}{more}")


def _holding(keys: Sequence[PublicKey], signature: bytes, signed: bytes) -> Iterator[tuple[PublicKey, str]]:
    from replicator.trust.keys import verifies  # noqa: PLC0415  # cryptography takes time that only trust has to spend

    for key in keys:
        how = verifies(key, signature, signed)
        if how is not None:
            yield key, how


def _demanded(claim: Claim, policy: TrustPolicy, demands: Sequence[str], subject: Subject) -> str:
    """Which demand the claim meets. Raises _Void where it meets none."""
    if claim.predicate not in demands:
        wanted = "a signature" if demands == (SIGNED,) else " or ".join(demands)
        said = (
            "a plain signature" if claim.predicate == SIGNED else f"an attestation of {claim.predicate[:120]}"
        )
        _void(f"is {said}, not {wanted}")
    for name, value in policy.annotations.items():
        if claim.annotations.get(name) != value:
            _void(f"lacks the annotation {name}={value}")
    if policy.same_repository:
        if claim.repository is None:
            _void("does not say which repository it was made for")
        path = claim.repository.partition("/")[2]
        if path != subject.repository:
            _void(f"was made for another repository: {claim.repository[:120]}")
    return claim.predicate
