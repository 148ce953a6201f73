"""Makes what refers to an image findable at a destination: by its referrers API, else by the fallback tag.

OCI distribution-spec, "Pushing Manifests with Subject" and "Referrers Tag Schema".
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from replicator.engine.faults import faults
from replicator.engine.referrers import ReferrersAPIs, read_fallback
from replicator.errors import (
    Denied,
    Immutable,
    NotFound,
    NotReplicated,
    OwnershipLostError,
    Rejected,
    SiteError,
)
from replicator.model.companion import fallback_tag
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.manifest import MAX_MANIFEST_BYTES, Kind, Manifest, described, parse_manifest
from replicator.model.mediatypes import OCI_INDEX
from replicator.ports import Clock, ListsReferrers, Ownership, Repository

ROUNDS: Final = 3
"""How often a fallback tag is written that other writers keep replacing."""
READ_BACK_SECONDS: Final = (0.2, 0.6)
"""When a list that was written is read back, at random between these. Another writer, who read the list before it was
written, has replaced it by then: six `cosign sign` at once leave five signatures."""

CLOSE_SECONDS: Final = 10.0
"""How long the end of a run waits for lists to be read back: a site that is down must not keep a program from ending."""


class ReferrersLists:
    """The lists of referrers at one destination site. One writer for each subject at a time.

    Args:
        apis: the referrers APIs of all sites.
        clock: the time.
        warn: told, in a sentence, what a person should know.
    """

    def __init__(self, apis: ReferrersAPIs, clock: Clock, warn: Callable[[str], None]) -> None:
        self._apis = apis
        self._clock = clock
        self._warn = warn
        self._checks: set[asyncio.Task[None]] = set()
        # A lock lasts as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[tuple[str, Digest], asyncio.Lock] = WeakValueDictionary()

    async def aclose(self) -> None:
        """Returns when all lists that were written have been read back, or the destination has taken too long for that."""
        if not self._checks:
            return
        _, late = await asyncio.wait(self._checks, timeout=CLOSE_SECONDS)
        if late:
            self._warn(
                f"lists of referrers that could not be read back within {CLOSE_SECONDS:.0f} s: {len(late)}"
            )
            for check in late:
                check.cancel()
            await asyncio.wait(late)

    async def ensure(
        self,
        repository: Repository,
        subject: Digest,
        referrers: Sequence[Manifest],
        put_subject: Callable[[], Awaitable[None]] | None = None,
        ownership: Ownership | None = None,
    ) -> int:
        """Returns when the repository lists all of them; how many bytes were written for that.

        A fallback tag that was written is read back a moment later, and written again where another writer has replaced
        it meanwhile: nobody waits for that but `aclose`.

        Args:
            repository: at the destination; the referrers are there.
            subject: what they refer to; need not be there yet.
            referrers: those that were put. Others in the list stay.
            put_subject: puts the subject, untagged, for registries that list nothing without it; None: it is there.
            ownership: confirmed before a fallback tag is written; None where no other agent may write it.

        Raises:
            NotReplicated: something else has the fallback tag, or it may not be changed.
            SiteError: the destination did not answer, or refuses the fallback tag.
            OwnershipLostError: another agent may have taken over; the fallback tag was not written.
        """
        wanted = {manifest.digest: described(manifest) for manifest in referrers}
        async with self._lock(repository, subject):
            by_api = await self._list_by_api(repository, subject, referrers, put_subject)
            if by_api is not None:
                return by_api
            written = await self._merge(repository, subject, wanted, ownership)
        if written:
            check = asyncio.create_task(self._read_back(repository, subject, wanted, ownership))
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)
        return written

    def _lock(self, repository: Repository, subject: Digest) -> asyncio.Lock:
        return self._locks.setdefault((repository.name, subject), asyncio.Lock())

    async def check(self, repository: Repository, subject: Digest) -> None:
        """Raises `NotReplicated` where `ensure` would, having asked only."""
        if isinstance(repository, ListsReferrers):
            has_api = repository.lists_referrers
        else:
            has_api = await self._listed(repository, subject) is not None
        if not has_api:
            await self._present(repository, subject)

    async def _list_by_api(
        self,
        repository: Repository,
        subject: Digest,
        referrers: Sequence[Manifest],
        put_subject: Callable[[], Awaitable[None]] | None,
    ) -> int | None:
        """Returns when the API lists all of them: how many bytes were written for that; None where it does not."""
        if isinstance(repository, ListsReferrers):
            return 0 if repository.lists_referrers else None
        # The header OCI-Subject proves nothing: Quay never sends it, and ECR sent it before it had the API.
        listed = await self._listed(repository, subject)
        if listed is None:
            return None
        lost = [manifest for manifest in referrers if manifest.digest not in listed]
        if lost and put_subject is not None:
            await put_subject()  # Quay lists nothing of a subject that does not exist
            listed = await self._listed(repository, subject) or set()
            lost = [manifest for manifest in referrers if manifest.digest not in listed]
        written = 0
        if 0 < len(lost) < len(referrers):
            # olareg loses entries of manifests that are put at once (docs/quirks.md#referrers-lost).
            for manifest in lost:
                await repository.write_manifest(manifest)
                written += len(manifest.body)
            listed = await self._listed(repository, subject) or set()
        return written if all(manifest.digest in listed for manifest in referrers) else None

    async def _listed(self, repository: Repository, subject: Digest) -> AbstractSet[Digest] | None:
        """What the API lists; None without an API that we may read."""
        try:
            listed = await self._apis.listed(repository, subject)
        except NotFound:
            return set()
        except Denied:
            return None
        return None if listed is None else {one.digest for one in listed}

    async def _merge(
        self,
        repository: Repository,
        subject: Digest,
        wanted: Mapping[Digest, Descriptor],
        ownership: Ownership | None,
    ) -> int:
        """Writes the fallback tag, unless it lists all of them; how many bytes were written."""
        present = await self._present(repository, subject)
        if wanted.keys() <= present.keys():
            return 0
        tag, entries = fallback_tag(subject), {**present, **wanted}
        index = _index(entries)
        if len(index.body) > MAX_MANIFEST_BYTES:
            cause = f"tag {tag}: a list of {len(entries)} referrers is larger than a manifest may be"
            raise Rejected(repository.site, "list referrers", cause, repository=repository.name)
        if ownership is not None:
            await ownership.confirm()
        try:
            await repository.write_manifest(index, tag)
        except (Rejected, Denied, Immutable) as error:
            cause = f"tag {tag}: {error.cause}; if tags are immutable there, exempt sha256-*"
            kind = NotReplicated if isinstance(error, Immutable) else type(error)
            raise kind(repository.site, "list referrers", cause, repository=repository.name) from error
        return len(index.body)

    async def _read_back(
        self,
        repository: Repository,
        subject: Digest,
        wanted: Mapping[Digest, Descriptor],
        ownership: Ownership | None,
    ) -> None:
        where = f"{repository.site}: {repository.name}: tag {fallback_tag(subject)}"
        try:
            with faults(repository.site, "list referrers", repository.name):
                for _ in range(ROUNDS - 1):
                    await self._clock.sleep(random.uniform(*READ_BACK_SECONDS))  # noqa: S311 - spreads writers
                    async with self._lock(repository, subject):
                        if not await self._merge(repository, subject, wanted, ownership):
                            return
                await self._clock.sleep(READ_BACK_SECONDS[0])
                if wanted.keys() <= (await self._present(repository, subject)).keys():
                    return
            self._warn(f"{where}: another writer replaced the list of referrers {ROUNDS} times")
        except OwnershipLostError:
            return  # whoever has taken over reads the list before he adds to it
        except SiteError as error:
            self._warn(f"{where}: the list of referrers could not be read back: {error.cause}")

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
