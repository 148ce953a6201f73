"""The tables `trust` of a rule."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import ValidationInfo, field_validator

from replicator.config.model.table import Table, setting
from replicator.config.secrets import Secret
from replicator.config.syntax import SECRET
from replicator.config.trust import IDENTITY, KEY, ROOT
from replicator.trust.policy import PublicKey, TrustedRoot
from replicator.trust.statement import SIGNED


class AttestationTable(Table):
    """One attestation that an image must have."""

    predicate: str = setting(
        "Predicate type, such as `https://slsa.dev/provenance/v1`, in full and exactly.", min_length=1
    )

    @field_validator("predicate")
    @classmethod
    def _is_uri(cls, predicate: str) -> str:
        if ":" not in predicate:
            known = _SHORT.get(predicate)
            hint = f"; write {known}" if known else ""
            raise ValueError(f"{predicate!r} is not a predicate type, which is a URI{hint}")
        if predicate == SIGNED:
            raise ValueError("is a plain signature, not an attestation; leave out attestations")
        return predicate


class KeylessTable(Table):
    """One signer without a key."""

    issuer: str = setting("Issuer of the signer's token, exactly.", min_length=1)
    identity: Annotated[str | re.Pattern[str], IDENTITY] = setting(
        "The signer: an address, the URI of a workflow, or `re:` and a regular expression that must match the whole of "
        "it."
    )


class TrustTable(Table):
    """Signatures that an image must have at its source before it is copied. All tables of a rule must be satisfied.

    An image that lacks them is held: nothing of it is copied. With `attestations`, each of them must exist, signed
    by these signers; without, a signature. See [trust](trust.md).
    """

    name: str = setting("Name in reports and messages.", "")
    keys: list[Annotated[PublicKey, KEY]] = setting(
        "PEM files with public keys, relative to the config file: ECDSA P-256, P-384 and P-521, RSA, Ed25519. A "
        "signature by any of them counts.",
        default_factory=list,
    )
    keyless: list[KeylessTable] = setting(
        "Signers without keys: bundles with a certificate of sigstore's, by any of them. Needs `replicator[sigstore]`.",
        default_factory=list,
    )
    trusted_root: Annotated[TrustedRoot | None, ROOT] = setting(
        "File with the trusted root for `keyless`, relative to the config file (`cosign trusted-root create`). Nothing "
        "is fetched; a warning is logged when the file is older than half a year.",
        None,
    )
    min: int = setting("Number of different signers that are required.", 1, ge=1)
    annotations: dict[str, str] = setting(
        "Annotations that the signature must contain (`cosign sign -a`).", default_factory=dict
    )
    identity: Literal["repository"] | None = setting(
        "`repository`: the signature must name the repository, by its path without the host. Only cosign's older "
        "signatures name one; with this setting no others count.",
        None,
    )
    attestations: list[AttestationTable] = setting(
        "Attestations that the image must have, instead of a signature.", default_factory=list
    )

    @field_validator("min")
    @classmethod
    def _are_enough(cls, minimum: int, info: ValidationInfo) -> int:
        keys = info.data.get("keys")
        if keys and not info.data.get("keyless") and len(signers := {key.id for key in keys}) < minimum:
            raise ValueError(
                f"{minimum} signers are needed, but there are only {len(signers)} different keys"
            )
        return minimum


class SignTable(Table):
    """Signs each image that is copied, at the destination, as `cosign sign --key` does. See [trust](trust.md)."""

    key: Annotated[Secret, SECRET] = setting(
        "PEM private key, not encrypted: ECDSA P-256, or RSA. `cosign verify --key` with its public key passes."
    )
    statement: bool = setting(
        "Also attach a signed statement about the copy: from where, to where, when, by which agent and rule.",
        True,
    )


_SHORT = {
    "slsaprovenance": "https://slsa.dev/provenance/v0.2",
    "slsaprovenance02": "https://slsa.dev/provenance/v0.2",
    "slsaprovenance1": "https://slsa.dev/provenance/v1",
    "spdx": "https://spdx.dev/Document",
    "spdxjson": "https://spdx.dev/Document",
    "cyclonedx": "https://cyclonedx.org/bom",
    "link": "https://in-toto.io/Link/v1",
    "vuln": "https://cosign.sigstore.dev/attestation/vuln/v1",
    "openvex": "https://openvex.dev/ns",
    "custom": "https://cosign.sigstore.dev/attestation/v1",
}
"""What cosign calls these on its command line."""
