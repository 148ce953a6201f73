"""Keyless signers in policy.json: one signer, by the e-mail address in the certificate. Pure.

containers-policy.json(5), "sigstoreSigned", `fulcio`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from replicator.trust.policy import TrustPolicy, as_pem

_ECDSA: Final = "PKIX_ECDSA_"


class _Raw(msgspec.Struct, rename="camel"):
    raw_bytes: str


class _Key(msgspec.Struct, rename="camel"):
    raw_bytes: str
    key_details: str = ""


class _Log(msgspec.Struct, rename="camel"):
    public_key: _Key


class _Chain(msgspec.Struct):
    certificates: list[_Raw]


class _Authority(msgspec.Struct, rename="camel"):
    cert_chain: _Chain


class _Root(msgspec.Struct, rename="camel"):
    tlogs: list[_Log] = []
    certificate_authorities: list[_Authority] = []


def by_email(policy: TrustPolicy) -> Mapping[str, Any] | None:
    """The requirement of policy.json for a policy with one signer, known by an e-mail address; None for any other.

    There, one requirement has one signer, and only e-mail addresses are compared. The logs must have ECDSA keys. None, too, for a
    trusted root whose members are in snake case, which protobuf's JSON allows and no program is known to write.
    """
    root = policy.trusted_root
    if root is None or policy.keys or policy.minimum > 1 or len(policy.keyless) != 1:
        return None
    signer = policy.keyless[0]
    if not isinstance(signer.identity, str) or "@" not in signer.identity or "/" in signer.identity:
        return None
    try:
        known = msgspec.json.decode(root.content, type=_Root)
    except msgspec.ValidationError:
        return None
    logs = [log.public_key for log in known.tlogs if log.public_key.key_details.startswith(_ECDSA)]
    authorities = [each.cert_chain.certificates[-1] for each in known.certificate_authorities]
    if not logs or not authorities:
        return None
    certificates = "".join(as_pem("CERTIFICATE", each.raw_bytes) for each in authorities)
    keys = [_encoded(as_pem("PUBLIC KEY", log.raw_bytes)) for log in logs]
    return {
        "type": "sigstoreSigned",
        "fulcio": {
            "caData": _encoded(certificates),
            "oidcIssuer": signer.issuer,
            "subjectEmail": signer.identity,
        },
        **({"rekorPublicKeyData": keys[0]} if len(keys) == 1 else {"rekorPublicKeyDatas": keys}),
    }


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
