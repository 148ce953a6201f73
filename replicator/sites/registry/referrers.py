"""The referrers API: which manifests have a subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from replicator.errors import Corrupt, NotFound, Rejected, SiteError, Unsupported
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.manifest import MAX_MANIFEST_BYTES, Kind
from replicator.model.mediatypes import OCI_EMPTY, OCI_INDEX
from replicator.sites.bounds import MAX_NAMES
from replicator.sites.registry.call import Call, Reply
from replicator.sites.registry.context import Registry
from replicator.sites.registry.listing import next_page
from replicator.sites.registry.manifests import parsed

OPERATION: Final = "list referrers"
MAX_LISTING_BYTES: Final = 10 * 1024 * 1024
"""Of all pages of one listing: 5,000 referrers with long annotations."""
_SUBJECT_UNKNOWN: Final = frozenset({"MANIFEST_INVALID", "NAME_UNKNOWN"})
"""Codes that say that the repository or the subject does not exist: Quay (400), distribution's descendants (404)."""
_ACCEPT_INDEX: Final[Mapping[str, str]] = {"Accept": OCI_INDEX}


async def list_referrers(registry: Registry, repository: str, digest: Digest) -> Sequence[Descriptor]:
    """The manifests whose subject is `digest`, each once.

    Raises:
        NotFound: the registry does not know the subject, which says nothing about the API.
        Unsupported: whatever a registry without this API answers: an error, HTML, another JSON.
        Corrupt: the listing repeats or is too large; or a registry that has the API answers 404, as zot does where one
            manifest of the repository is broken.
    """
    asked: set[str] = set()
    size = 0
    found: dict[Digest, Descriptor] = {}
    url: str | None = f"/v2/{repository}/referrers/{digest}"
    while url is not None:
        if url in asked or len(found) > MAX_NAMES:
            raise _error(registry, repository, Corrupt, "the listing repeats")
        asked.add(url)
        call = Call(
            OPERATION,
            "GET",
            url,
            repository=repository,
            headers=_ACCEPT_INDEX,
            max_bytes=MAX_MANIFEST_BYTES,
        )
        try:
            reply = await registry.transport.request(call)
        except (Rejected, NotFound, Corrupt) as error:
            raise _refusal(registry, repository, error) from error
        size += len(reply.body)
        if size > MAX_LISTING_BYTES:
            raise _error(
                registry, repository, Corrupt, f"the listing has more than {MAX_LISTING_BYTES} bytes"
            )
        before = len(found)
        children = await _referrers_in(registry, repository, reply)
        found.update((child.digest, _without_empty_type(child)) for child in children)
        url = next_page(registry, OPERATION, repository, reply, url)
        if url is not None and len(found) == before:
            raise _error(registry, repository, Corrupt, "the listing repeats: a page had nothing new")
    return tuple(found.values())


def _refusal(registry: Registry, repository: str, error: Rejected | NotFound | Corrupt) -> SiteError:
    if not isinstance(error, Corrupt) and not _SUBJECT_UNKNOWN.isdisjoint(error.codes):
        return _error(registry, repository, NotFound, error.cause)
    if isinstance(error, NotFound) and registry.knowledge.record.has_referrers:
        return _error(registry, repository, Corrupt, f"cannot be listed, a manifest is broken: {error.cause}")
    if isinstance(error, Corrupt) and registry.knowledge.record.has_referrers:
        return error
    return _error(registry, repository, Unsupported, f"no referrers API: {error.cause}")


async def _referrers_in(registry: Registry, repository: str, reply: Reply) -> tuple[Descriptor, ...]:
    try:
        index = await parsed(reply.body, reply.headers.get("Content-Type", ""))
    except ValueError as error:
        raise _error(registry, repository, Unsupported, f"no referrers API: {error}") from error
    if index.kind is not Kind.INDEX:
        raise _error(registry, repository, Unsupported, "no referrers API: the answer is not an index")
    return index.children


def _without_empty_type(listed: Descriptor) -> Descriptor:
    """The entry without a type that none can have: zot 1.4 lists the config's, also where the manifest tells its own."""
    return (
        msgspec.structs.replace(listed, artifact_type=None) if listed.artifact_type == OCI_EMPTY else listed
    )


def _error(registry: Registry, repository: str, kind: type[SiteError], cause: str) -> SiteError:
    return kind(registry.site, OPERATION, cause, repository=repository)
