"""Manifests as objects: nothing beside the bytes says what they are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import msgspec

from replicator.errors import NotFound
from replicator.flow.parallel import each
from replicator.model.decoding import JSON_ERRORS
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, algorithm, digest_of
from replicator.model.manifest import MAX_MANIFEST_BYTES, Manifest, described, parse_manifest
from replicator.ports import ObjectStore
from replicator.sites.layouts.errors import RepositoryErrors

_READ: Final = "read manifest"


class _Head(msgspec.Struct, rename="camel"):
    """What tells a manifest from any other JSON."""

    schema_version: int | None = None
    media_type: str | None = None


async def read_stored(
    store: ObjectStore, key: str, digest: Digest, errors: RepositoryErrors, media_type: str = ""
) -> Manifest:
    """A manifest, its bytes verified.

    Args:
        store: where it lies.
        key: under which key.
        digest: what it must be.
        errors: makes those of the repository.
        media_type: what it is said to be; where nothing is said, its JSON decides, as distribution has it.

    Raises:
        NotFound: the object does not exist, or is not a manifest.
        Corrupt: other bytes than the digest's, or a manifest that cannot be used.
    """
    body, _ = await store.get(key, MAX_MANIFEST_BYTES)
    found = digest_of(body, algorithm(digest))
    if found != digest:
        raise errors.corrupt(_READ, f"the bytes of {digest} hash to {found}")
    if not media_type and not _is_manifest(body):
        raise errors.not_found(_READ, f"{digest} is not a manifest")
    try:
        return parse_manifest(body, media_type, digest)
    except ValueError as error:
        raise errors.corrupt(_READ, f"{digest}: {error}") from error


class Subjects:
    """Which manifests refer to which, learnt by reading each manifest once; what never changes needs no second look.

    Args:
        keep: how many manifests are remembered, the latest used.
    """

    def __init__(self, keep: int = 50_000) -> None:
        self._keep = keep
        self._known: OrderedDict[Digest, tuple[Digest, Descriptor] | None] = OrderedDict()

    def learn(self, manifest: Manifest) -> None:
        """Remembers a manifest's subject, or that it has none."""
        refers = (manifest.subject.digest, described(manifest)) if manifest.subject else None
        self._known[manifest.digest] = refers
        self._known.move_to_end(manifest.digest)
        if len(self._known) > self._keep:
            self._known.popitem(last=False)

    async def referrers(
        self,
        store: ObjectStore,
        candidates: Iterable[tuple[Digest, str, str]],
        subject: Digest,
        errors: RepositoryErrors,
    ) -> tuple[Descriptor, ...]:
        """Those of the candidates (digest, key, media type) whose subject it is, each once, in their order.

        Candidates that are not there are passed over: an index may name what its layout lacks.
        """

        async def refers(candidate: tuple[Digest, str, str]) -> tuple[Digest, Descriptor] | None:
            digest, key, media_type = candidate
            if digest not in self._known:
                try:
                    self.learn(await read_stored(store, key, digest, errors, media_type))
                except NotFound:
                    return None
            return self._known.get(digest)

        distinct = {candidate[0]: candidate for candidate in candidates}
        found = await each(distinct.values(), refers)
        return tuple(one for known in found if known for named, one in [known] if named == subject)


def _is_manifest(body: bytes) -> bool:
    try:
        head = msgspec.json.decode(body, type=_Head)
    except JSON_ERRORS:
        return False
    return bool(head.media_type) or head.schema_version in (1, 2)
