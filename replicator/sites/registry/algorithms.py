"""Whether a registry takes content by sha512, found out with a few bytes before an image is sent in vain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Final

from msgspec.structs import replace

from replicator.errors import NotFound, Rejected, SiteError, Unsupported
from replicator.model.digest import algorithm, digest_of
from replicator.model.manifest import Manifest
from replicator.model.mediatypes import OCI_INDEX
from replicator.sites.registry.call import Call
from replicator.sites.registry.context import Registry
from replicator.sites.registry.location import with_digest
from replicator.sites.registry.record import Sha512
from replicator.sites.registry.sessions import cancel, opened, start_call

ORDER: Final[tuple[Sha512, ...]] = ("none", "blobs", "untagged", "all")

_BLOB: Final = b"{}"
"""The empty content of the spec itself, which many registries have anyway."""
_INDEX: Final = b'{"schemaVersion":2,"mediaType":"%b","manifests":[]}' % OCI_INDEX.encode()
_Attempt = Callable[[Registry, str], Awaitable[None]]
_STORED: Final = frozenset({200, 201, 202, 204})
_CODES: Final = frozenset({"DIGEST_INVALID", "UNSUPPORTED"})


async def try_sha512(registry: Registry, repository: str, manifests: Collection[Manifest]) -> None:
    """Notes in the registry's record which of these could not be there for their digests.

    At most once for blobs and once for manifests. What the registry answers beside a clear refusal decides nothing.
    """
    blobs = (blob.digest for manifest in manifests for blob in manifest.blobs)
    tries: tuple[tuple[Sha512, bool, _Attempt], ...] = (
        ("blobs", any(algorithm(digest) == "sha512" for digest in blobs), _try_blob),
        ("untagged", any(algorithm(manifest.digest) == "sha512" for manifest in manifests), _try_manifest),
    )
    for level, is_needed, attempt in tries:
        async with registry.trying:
            if not is_needed or level in registry.tried or not takes(registry, level):
                continue
            registry.tried.add(level)
            try:
                await attempt(registry, repository)
            except (Rejected, NotFound, Unsupported) as error:
                if isinstance(error, Unsupported) or says_digest(error):
                    learn(registry, ORDER[ORDER.index(level) - 1])
            except SiteError:
                continue  # the image itself will meet it


def takes(registry: Registry, level: Sha512) -> bool:
    """Whether the registry is believed to take this much."""
    return ORDER.index(registry.knowledge.record.sha512) >= ORDER.index(level)


def learn(registry: Registry, level: Sha512) -> None:
    """Notes that it takes no more than this."""
    if takes(registry, level):
        registry.knowledge.learn(sha512=level)


def says_digest(error: SiteError) -> bool:
    """Whether a refusal is about the digest, not about what has it: zot's code is MANIFEST_INVALID, its detail the digest."""
    return isinstance(error, Rejected) and (not _CODES.isdisjoint(error.codes) or "sha512:" in error.cause)


async def _try_blob(registry: Registry, repository: str) -> None:
    reply = await registry.transport.request(start_call(repository))
    if reply.status != 202:
        return
    session = opened(registry, repository, reply)
    put = Call(
        "upload blob",
        "PUT",
        with_digest(session.url, digest_of(_BLOB, "sha512")),
        repository=repository,
        actions="pull,push",
        headers={"Content-Type": "application/octet-stream"},
        body=_BLOB,
        expected=_STORED,
    )
    try:
        await registry.transport.request(put)
    except SiteError:
        await cancel(registry, repository, session)
        raise


async def _try_manifest(registry: Registry, repository: str) -> None:
    """An empty index, which is deleted again where the registry allows it."""
    put = Call(
        "write manifest",
        "PUT",
        f"/v2/{repository}/manifests/{digest_of(_INDEX, 'sha512')}",
        repository=repository,
        actions="pull,push",
        headers={"Content-Type": OCI_INDEX},
        body=_INDEX,
        expected=_STORED,
    )
    await registry.transport.request(put)
    delete = replace(put, operation="delete manifest", method="DELETE", headers={}, body=None)
    try:
        await registry.transport.request(replace(delete, actions="pull,push,delete"), once=True)
    except SiteError:
        return
