"""Checksums that S3 keeps beside an object, so that a copy which never passes through us can be verified.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html: an object has one if it was
uploaded with one (since 2024 AWS adds CRC64NVME by itself). A COMPOSITE checksum is one of the parts' checksums and
says nothing of the content as a whole; only FULL_OBJECT ones are used.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from replicator.model.digest import Digest, algorithm, encoded

_PREFIX: Final = "Checksum"
_OTHER: Final = frozenset({"ChecksumType", "ChecksumAlgorithm"})


def of_whole(reply: Mapping[str, Any]) -> dict[str, str]:
    """The checksums of a whole object in an answer of S3: algorithm ("SHA256", "CRC64NVME") -> Base64."""
    if reply.get("ChecksumType") == "COMPOSITE":
        return {}
    return {
        name.removeprefix(_PREFIX): value
        for name, value in reply.items()
        if name.startswith(_PREFIX) and name not in _OTHER and isinstance(value, str) and "-" not in value
    }


def contradicts(known: Mapping[str, str], digest: Digest | None) -> str | None:
    """Why an object with these checksums is not the blob of that digest; None if nothing says so."""
    if digest is None or algorithm(digest) != "sha256" or "SHA256" not in known:
        return None
    expected = base64.b64encode(bytes.fromhex(encoded(digest))).decode()
    if known["SHA256"] == expected:
        return None
    return f"damaged: the store's SHA256 checksum is {known['SHA256']}, not {expected} as for {digest}"


def differ(origin: Mapping[str, str], copied: Mapping[str, str]) -> str | None:
    """How a copy differs from its origin, by the checksums that both have; None if it does not."""
    for name in sorted(origin.keys() & copied.keys()):
        if origin[name] != copied[name]:
            return (
                f"the copy has the {name} checksum {copied[name]}, its origin {origin[name]}; it was removed"
            )
    return None
