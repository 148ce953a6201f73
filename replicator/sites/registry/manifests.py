"""Manifests as they come in: which digest they have, and what they say."""

from __future__ import annotations

import asyncio

from replicator.model.digest import Digest, algorithm, digest_of
from replicator.model.manifest import Manifest, parse_manifest
from replicator.model.mediatypes import SCHEMA1
from replicator.model.schema1 import signed_digest
from replicator.sites.bounds import LARGE_JSON_BYTES


async def digest_in(body: bytes, media_type: str, expected: Digest | None) -> Digest:
    """The digest of a manifest: of its bytes, or (schema 1) of what its signatures sign; see `schema1`.

    The document is looked at only if the bytes are not those of `expected`.
    """
    kind = algorithm(expected) if expected else "sha256"
    digest = digest_of(body, kind)
    may_be_signed = expected is not None or media_type.partition(";")[0].strip() in SCHEMA1
    if digest == expected or not may_be_signed:
        return digest
    try:
        return await asyncio.to_thread(signed_digest, body, kind) or digest
    except ValueError:
        return digest


async def parsed(body: bytes, media_type: str, digest: Digest | None = None) -> Manifest:
    """As `parse_manifest`; a large one is parsed beside the loop, which it would hold for a second."""
    if len(body) < LARGE_JSON_BYTES:
        return parse_manifest(body, media_type, digest)
    return await asyncio.to_thread(parse_manifest, body, media_type, digest)
