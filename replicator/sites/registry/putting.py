"""Sending a manifest, and learning from its refusal what a registry does not take."""

from __future__ import annotations

from typing import Final

from replicator.errors import MissingReference, Rejected, SiteError, Throttled, Unavailable, Unsupported
from replicator.model.digest import Digest, algorithm, is_digest
from replicator.model.manifest import Kind, Manifest
from replicator.sites.registry.algorithms import learn, says_digest
from replicator.sites.registry.call import Call, Reply
from replicator.sites.registry.context import Registry
from replicator.sites.registry.refusals import (
    NO_FOREIGN_LAYERS,
    NO_SCHEMA1,
    has_foreign_layers,
    is_unknown_error,
    no_sha512,
    no_type,
    refuses_type,
)

_STORED: Final = frozenset({200, 201, 202, 204})


def put_call(repository: str, manifest: Manifest, reference: str) -> Call:
    """The request that puts a manifest: its exact bytes, with the media type it was served with."""
    return Call(
        "write manifest",
        "PUT",
        f"/v2/{repository}/manifests/{reference}",
        repository=repository,
        actions="pull,push",
        headers={"Content-Type": manifest.media_type},
        body=manifest.body,
        expected=_STORED,
    )


def told_digest(reply: Reply) -> Digest | None:
    """The digest that the registry says it has stored; None where it does not say."""
    told = reply.headers.get("Docker-Content-Digest", "")
    return Digest(told) if is_digest(told) else None


async def put_manifest(registry: Registry, call: Call, manifest: Manifest) -> Reply:
    """Sends a manifest. A refusal for what it is raises `Unsupported`, and `refuses` knows it from then on."""
    try:
        if has_foreign_layers(manifest):
            return await _put_foreign(registry, call)
        return await registry.transport.request(call)
    except Rejected as error:
        if algorithm(manifest.digest) != "sha256" and says_digest(error):
            learn(registry, "blobs")
            raise _unsupported(registry, call, no_sha512("blobs", manifest.digest)) from error
        if manifest.kind is Kind.SCHEMA1:
            raise _unsupported(registry, call, f"{NO_SCHEMA1} ({error.cause})") from error
        if refuses_type(error):
            registry.refused_types.add(manifest.media_type)
            raise _unsupported(registry, call, no_type(manifest.media_type)) from error
        raise


async def _put_foreign(registry: Registry, call: Call) -> Reply:
    """Where the URLs are not allowed, distribution answers 500 however often it is asked."""
    try:
        return await registry.transport.request(call, once=True)
    except (MissingReference, Rejected, Unavailable, Throttled) as error:
        if _refuses_foreign(error):
            registry.knowledge.learn(foreign_layers=False)
            raise _unsupported(registry, call, NO_FOREIGN_LAYERS) from error
        if isinstance(error, Rejected):
            raise
    return await registry.transport.request(call)


def _refuses_foreign(error: SiteError) -> bool:
    if isinstance(error, Rejected):
        return error.status in {400, 422} and not refuses_type(error)
    is_known = "MANIFEST_BLOB_UNKNOWN" in error.cause or is_unknown_error(error)
    return isinstance(error, MissingReference) or is_known


def _unsupported(registry: Registry, call: Call, cause: str) -> SiteError:
    return Unsupported(registry.site, call.operation, cause, repository=call.repository)
