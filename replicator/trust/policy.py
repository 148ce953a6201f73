"""What a rule demands before an image is trusted."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key.

    `der` is its SubjectPublicKeyInfo. Two keys are the same if `id`, its SHA-256, is, whatever their names.
    """

    name: str = field(compare=False)
    der: bytes = field(repr=False)
    kind: str

    @property
    def id(self) -> str:
        """`sha256:` and the hash of `der`, in hex."""
        return f"sha256:{hashlib.sha256(self.der).hexdigest()}"


class Identity(msgspec.Struct, frozen=True):
    """Who signed without a key: the issuer of the token, and the identity, exact or a pattern of the whole of it."""

    issuer: str
    identity: str | re.Pattern[str]

    def matches(self, issuer: str, identity: str) -> bool:
        """Whether a certificate's issuer and identity are meant."""
        if issuer != self.issuer:
            return False
        if isinstance(self.identity, str):
            return identity == self.identity
        return self.identity.fullmatch(identity) is not None

    def __str__(self) -> str:
        shown = self.identity if isinstance(self.identity, str) else f"re:{self.identity.pattern}"
        return f"{shown} of {self.issuer}"


@dataclass(frozen=True, slots=True)
class TrustedRoot:
    """The certificates, logs and timestamp authorities that keyless signatures are verified with, from a file.

    `modified`: when the file last was (epoch seconds).
    """

    path: str = field(compare=False)
    content: bytes = field(repr=False)
    modified: float = field(default=0.0, compare=False)


class TrustPolicy(msgspec.Struct, frozen=True):
    """One demand: enough of these signers have signed the image, or attested each of `attestations` for it.

    `minimum` distinct signers are needed, told apart by key or identity, not by signature. `annotations` must be in the
    signature. `same_repository`: the signature must name the repository, by its path without the host.
    """

    name: str
    keys: tuple[PublicKey, ...] = ()
    minimum: int = 1
    annotations: Mapping[str, str] = msgspec.field(default_factory=dict)
    same_repository: bool = False
    keyless: tuple[Identity, ...] = ()
    trusted_root: TrustedRoot | None = None
    attestations: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Different for every demand that could decide differently."""
        parts = (
            sorted(key.id for key in self.keys),
            self.minimum,
            sorted(self.annotations.items()),
            self.same_repository,
            [str(identity) for identity in self.keyless],
            self.trusted_root and hashlib.sha256(self.trusted_root.content).hexdigest(),
            self.attestations,
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()


class Signing(msgspec.Struct, frozen=True):
    """How copies are signed at their destination.

    `key` reads the PEM private key. `statement`: who copied what from where is attested, too. `hosts`: the sites that are
    registries, each with its host (and path).
    """

    key: Callable[[], str]
    agent: str
    statement: bool = True
    hosts: tuple[tuple[str, str], ...] = ()

    def reference(self, site: str, repository: str, tag: str | None) -> str:
        """An image at a site, by the host where there is one."""
        where = dict(self.hosts).get(site, site)
        return f"{where}/{repository}:{tag}" if tag else f"{where}/{repository}"


def pem_of(key: PublicKey) -> str:
    """The key as PEM."""
    return as_pem("PUBLIC KEY", base64.b64encode(key.der).decode())


def as_pem(kind: str, text: str) -> str:
    """What is DER in base64, as PEM. RFC 7468."""
    body = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n"


def fingerprint_of(policies: Sequence[TrustPolicy]) -> str:
    """Different for all demands together that could decide differently."""
    return hashlib.sha256("".join(policy.fingerprint for policy in policies).encode()).hexdigest()
