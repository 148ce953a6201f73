"""Docker's first image format: "Image Manifest Version 2, Schema 1" (distribution 2, docs/spec/manifest-v2-1.md).

The digest is of the payload, which the signatures are spliced into: a member of each says where the payload was cut and what
followed (libtrust, "JSON Web Signature, pretty"). distribution 2 signs anew whenever it is asked, so that the bytes change
and the digest does not.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import msgspec

from replicator.model.decoding import JSON_ERRORS
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, digest_of, parse_digest
from replicator.model.mediatypes import DOCKER_LAYER
from replicator.model.strictjson import check_names, read_object

_NAMES = {name.casefold(): name for name in ("schemaVersion", "fsLayers", "signatures")}
_LAYER = {"blobsum": "blobSum"}


class _Protected(msgspec.Struct, rename="camel"):
    """What a signature says of the payload that it signs."""

    format_length: int
    format_tail: str


def signed_digest(body: bytes, algorithm: str = "sha256") -> Digest | None:
    """The digest of a manifest of schema 1; None for any other document. Raises ValueError as `payload` does."""
    version = read_object(body).get("schemaVersion")
    return digest_of(payload(body), algorithm) if type(version) is int and version == 1 else None


def payload(body: bytes) -> bytes:
    """What the digest is of: the bytes without their signatures. Unsigned ones are their own payload.

    The signatures are not verified. Only the payload may be believed: the digest does not cover the rest of the body.

    Raises:
        ValueError: not JSON, or the signatures do not say what they sign, or not the same.
    """
    signatures = read_object(body).get("signatures")
    if signatures is None:
        return body
    if not isinstance(signatures, list) or not signatures:
        raise ValueError("its signatures are not a list")
    found = {_protected(each) for each in signatures}
    if len(found) != 1:
        raise ValueError("its signatures are of different payloads")
    length, tail = found.pop()
    if not 0 < length <= len(body):
        raise ValueError("its signatures are of a payload that is not here")
    return body[:length] + tail


def layers(payload: bytes) -> Sequence[Descriptor]:
    """The layers, each once; their sizes are not told. Raises ValueError."""
    document = read_object(payload)
    check_names(document, _NAMES, "the manifest")
    if document.get("schemaVersion") != 1:
        raise ValueError("what its signatures sign is not a manifest of schema 1")
    items = document.get("fsLayers")
    if not isinstance(items, list):
        raise ValueError("it has no fsLayers")  # noqa: TRY004 - foreign content
    digests = dict.fromkeys(_blob_sum(item, f"fsLayers[{at}]") for at, item in enumerate(items))
    return [Descriptor(DOCKER_LAYER, digest) for digest in digests]


def _blob_sum(item: Any, where: str) -> Digest:
    if not isinstance(item, dict):
        raise ValueError(f"{where} is not an object")  # noqa: TRY004 - foreign content
    check_names(item, _LAYER, where)
    digest = item.get("blobSum")
    if not isinstance(digest, str):
        raise ValueError(f"{where} has no blobSum")  # noqa: TRY004 - foreign content
    return parse_digest(digest)


def _protected(signature: Any) -> tuple[int, bytes]:
    try:
        text = signature["protected"]
        protected = msgspec.json.decode(_unpacked(text), type=_Protected)
        return protected.format_length, _unpacked(protected.format_tail)
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error, *JSON_ERRORS):
        raise ValueError("its signatures do not say what they sign") from None


def _unpacked(text: str) -> bytes:
    """base64url without padding."""
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
