"""Manifests that a registry was seen to refuse for what they are."""

from __future__ import annotations

import re
from collections.abc import Container
from http import HTTPStatus
from typing import Final

from replicator.errors import Rejected, SiteError
from replicator.model.digest import Digest, algorithm
from replicator.model.manifest import Kind, Manifest
from replicator.model.mediatypes import FOREIGN_LAYERS
from replicator.sites.registry.record import CapabilityRecord, Sha512

_OTHER_ALGORITHM: Final = re.compile(rb'"digest"\s*:\s*"(?!sha256:|sha512:)([a-z0-9]+(?:[+._-][a-z0-9]+)*):')
_FOREIGN: Final = tuple(f'"{media_type}"'.encode() for media_type in FOREIGN_LAYERS)

NO_FOREIGN_LAYERS: Final = (
    "the registry refuses layers that are only named by a URL (Windows base images); either allow such URLs there"
    " (distribution: validation.manifests.urls.allow) or push these layers to the source, so that they are copied"
)
"""Two remedies: distribution refuses such manifests unless its config allows the URLs."""


NO_SCHEMA1: Final = (
    "the registry does not take Docker schema 1, as most today (distribution 2: compatibility.schema1.enabled = true; 3 has"
    " no such setting); build the image anew, or exclude it"
)


def refuses_type(error: Rejected) -> bool:
    """Whether a manifest was refused for its media type: zot answers 415, distribution and olareg 400."""
    return error.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE or (
        "MANIFEST_INVALID" in error.codes
        and "media type" in error.cause
        and "unsupported" in error.cause.lower()
    )


def no_type(media_type: str) -> str:
    """The reason for manifests of a media type that the registry has refused."""
    return f"the registry does not take manifests of type {media_type}"


def is_unknown_error(error: SiteError) -> bool:
    """Whether distribution 2 failed in a way that it has no word for, as for manifests that it was not built to take."""
    return "UNKNOWN: unknown error" in error.cause


def has_foreign_layers(manifest: Manifest) -> bool:
    """Whether the manifest names layers that registries do not keep, with the URLs where they are."""
    body = manifest.body
    return b'"urls"' in body and any(media_type in body for media_type in _FOREIGN)


def why_not(
    record: CapabilityRecord, refused: Container[str], manifest: Manifest, *, tagged: bool
) -> str | None:
    """Why the registry would not take the manifest, as far as it is known to refuse such; None where it may.

    `refused`: media types of manifests that it has refused.
    """
    if manifest.media_type in refused:
        return no_type(manifest.media_type)
    if not record.foreign_layers and has_foreign_layers(manifest):
        return NO_FOREIGN_LAYERS
    if not record.schema1 and manifest.kind is Kind.SCHEMA1:
        return NO_SCHEMA1
    manifests = (manifest.digest, *(child.digest for child in manifest.children))
    blobs = tuple(blob.digest for blob in manifest.blobs)
    checked = {
        "none": (*manifests, *blobs),
        "blobs": manifests,
        "untagged": (manifest.digest,) if tagged else (),
        "all": (),
    }[record.sha512]
    odd = next((digest for digest in checked if algorithm(digest) != "sha256"), None)
    return no_sha512(record.sha512, odd) if odd else None


def no_sha512(level: Sha512, digest: Digest) -> str:
    """The reason for content by sha512, where the registry takes no more than `level`."""
    takes = {
        "none": "sha256 digests only",
        "blobs": "sha256 digests of manifests only",
        "untagged": "sha256 digests of manifests with a tag only",
    }.get(level, "other digests")
    return f"the registry takes {takes}, and this image needs {digest}"


def unknown_algorithm(body: bytes) -> str | None:
    """An algorithm of a digest in a manifest that cannot be computed here ("sha384"), None if all can."""
    found = _OTHER_ALGORITHM.search(body)
    return found[1].decode("ascii")[:32] if found else None
