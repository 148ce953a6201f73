"""Makes what refers to an image findable at a destination: by its referrers API, else by the fallback tag.

OCI distribution-spec, "Pushing Manifests with Subject" and "Referrers Tag Schema".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from replicator.engine.referrers import ReferrersAPIs, read_fallback
from replicator.errors import Corrupt, NotReplicated, Rejected
from replicator.model.companion import fallback_tag
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.manifest import MAX_MANIFEST_BYTES, Kind, Manifest, described, parse_manifest
from replicator.model.mediatypes import OCI_INDEX
from replicator.ports import ListsReferrers, Repository

ROUNDS: Final = 3
"""How often a fallback tag is written that other writers keep replacing."""


class ReferrersLists:
    """The lists of referrers at one destination site. One writer for each subject at a time.

    Args:
        apis: the referrers APIs of all sites.
    """

    def __init__(self, apis: ReferrersAPIs) -> None:
        self._apis = apis
        # A lock lasts as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[tuple[str, Digest], asyncio.Lock] = WeakValueDictionary()

    async def ensure(self, repository: Repository, subject: Digest, referrers: Sequence[Manifest]) -> int:
        """Returns when the repository lists all of them; how many bytes were written for that.

        Args:
            repository: at the destination; the referrers are there.
            subject: what they refer to; need not be there yet.
            referrers: those that were put. Others in the list stay.

        Raises:
            NotReplicated: something else has the fallback tag.
            Rejected: the fallback tag may not be changed.
            SiteError: the destination did not answer.
        """
        wanted = {manifest.digest: described(manifest) for manifest in referrers}
        lock = self._locks.setdefault((repository.name, subject), asyncio.Lock())
        async with lock:
            if await self._has_listed(repository, subject, wanted):
                return 0
            return await self._write_fallback(repository, subject, wanted)

    async def check(self, repository: Repository, subject: Digest) -> None:
        """Raises `NotReplicated` where `ensure` would, having asked only."""
        if isinstance(repository, ListsReferrers) and repository.lists_referrers:
            return
        if await self._apis.listed(repository, subject) is None:
            await self._present(repository, subject)

    async def _has_listed(
        self, repository: Repository, subject: Digest, wanted: Mapping[Digest, Descriptor]
    ) -> bool:
        if isinstance(repository, ListsReferrers):
            return repository.lists_referrers
        listed = await self._apis.listed(repository, subject)
        if listed is None:
            return False
        # The header OCI-Subject proves nothing: Quay never sends it, and ECR sent it before it had the API.
        return wanted.keys() <= {one.digest for one in listed}

    async def _write_fallback(
        self, repository: Repository, subject: Digest, wanted: Mapping[Digest, Descriptor]
    ) -> int:
        tag, written = fallback_tag(subject), 0
        for _ in range(ROUNDS):
            present = await self._present(repository, subject)
            if wanted.keys() <= present.keys():
                return written
            index = _index({**present, **wanted})
            if len(index.body) > MAX_MANIFEST_BYTES:
                cause = f"tag {tag}: a list of {len({**present, **wanted})} referrers is larger than a manifest may be"
                raise Rejected(repository.site, "list referrers", cause, repository=repository.name)
            try:
                await repository.write_manifest(index, tag)
            except Rejected as error:
                cause = f"tag {tag}: {error.cause}; if tags are immutable there, exempt sha256-*"
                raise Rejected(
                    repository.site, "list referrers", cause, repository=repository.name, status=error.status
                ) from error
            written += len(index.body)
        if wanted.keys() <= (await self._present(repository, subject)).keys():
            return written
        cause = f"tag {tag}: another writer replaced the list of referrers {ROUNDS} times"
        raise Corrupt(repository.site, "list referrers", cause, repository=repository.name)

    @staticmethod
    async def _present(repository: Repository, subject: Digest) -> dict[Digest, Descriptor]:
        manifest = await read_fallback(repository, subject)
        if manifest is None:
            return {}
        if manifest.kind is not Kind.INDEX:  # `cosign copy` puts the image itself there
            cause = f"tag {fallback_tag(subject)} is not a list of referrers and is not overwritten; delete it there"
            raise NotReplicated(repository.site, "list referrers", cause, repository=repository.name)
        return {child.digest: child for child in manifest.children}


def _index(entries: Mapping[Digest, Descriptor]) -> Manifest:
    """The same bytes for the same entries, so that an unchanged list is not written again."""
    ordered = [entries[digest] for digest in sorted(entries)]
    body = msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": ordered})
    return parse_manifest(body, OCI_INDEX)
