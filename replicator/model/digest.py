"""Digests: the names of content.

Grammar: OCI image-spec, descriptor.md, "Digests".
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final, NewType

if TYPE_CHECKING:
    from hashlib import _Hash

Digest = NewType("Digest", str)
"""`algorithm:encoded`, checked by `parse_digest`."""

_HASHES: Final = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}
_HEX_LENGTHS: Final = {"sha256": 64, "sha512": 128}
_KNOWN: Final = re.compile(r"(sha256|sha512):([0-9a-f]+)")


def parse_digest(text: str) -> Digest:
    """The text as a digest.

    Raises:
        ValueError: not the grammar, or an algorithm we cannot compute (anything but sha256 and sha512):
            content that cannot be verified is not content we handle.
    """
    match = _KNOWN.fullmatch(text)
    if match is None or len(match[2]) != _HEX_LENGTHS[match[1]]:
        raise ValueError(
            f"invalid digest {text[:150]!r}: expected sha256: and 64, or sha512: and 128 lower-case hex digits"
        )
    return Digest(text)


def is_digest(text: str) -> bool:
    """Whether `parse_digest` would accept the text."""
    match = _KNOWN.fullmatch(text)
    return match is not None and len(match[2]) == _HEX_LENGTHS[match[1]]


def algorithm(digest: Digest) -> str:
    """The part before the colon: `sha256` or `sha512`."""
    return digest.partition(":")[0]


def encoded(digest: Digest) -> str:
    """The part after the colon, lower-case hex."""
    return digest.partition(":")[2]


def new_hash(digest: Digest) -> _Hash:
    """A fresh hash of the digest's algorithm."""
    return _HASHES[algorithm(digest)](usedforsecurity=False)


def digest_of(data: bytes, algorithm: str = "sha256") -> Digest:
    """The digest of the bytes."""
    return Digest(f"{algorithm}:{_HASHES[algorithm](data, usedforsecurity=False).hexdigest()}")
