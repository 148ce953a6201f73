"""The tags of a repository as its site lists them, with what they name where the listing tells."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from replicator.errors import SiteError
from replicator.model.companion import Attached
from replicator.model.digest import Digest
from replicator.ports import (
    Listed,
    ListsAttached,
    ListsDigests,
    Noted,
    RefusesListings,
    Repository,
    State,
    Unlisted,
)


class Listing(msgspec.Struct, frozen=True):
    """Tags, and the digests of those that the listing told.

    `fixed` are tags that may not be moved, and why; `archived` those whose content cannot be read for now. `is_hint`: the
    listing may lag behind the site, so that a difference is to be asked for again. `complete`: all tags of the repository
    are here. `strict`: each was asked for by its name. `error` is what broke a listing after it had told some tags; what
    it told is good, but it is not complete. `notice` is for the report. `attached`: what it told of what refers to manifests.
    """

    tags: Collection[str]
    digests: Mapping[str, Digest] = msgspec.field(default_factory=dict)
    fixed: Mapping[str, str] = msgspec.field(default_factory=dict)
    archived: frozenset[str] = frozenset()
    is_hint: bool = False
    complete: bool = True
    strict: bool = False
    error: SiteError | None = None
    notice: str = ""
    attached: Mapping[Digest, Attached] = msgspec.field(default_factory=dict)


async def list_tags(repository: Repository, state: State, *, record: bool) -> Listing:
    """Lists a repository, in bulk with digests where it can.

    Args:
        repository: at either side.
        state: knows what earlier listings told, so that it is not read again; gets what is new.
        record: False leaves the state alone.

    Raises:
        NotFound: the repository does not exist. Not raised once it has listed tags.
        SiteError: the listing failed before it told anything.
    """
    if isinstance(repository, ListsDigests):
        return await _list_digests(repository, repository, state, record=record)
    tags: list[str] = []
    try:
        async for page in repository.tags():
            tags.extend(page)
    except SiteError as error:
        if not tags:
            raise
        return Listing(tags, complete=False, error=error)
    return Listing(tags)


async def _list_digests(
    repository: Repository, lister: ListsDigests, state: State, *, record: bool
) -> Listing:
    site, name = repository.site, repository.name
    known = await state.listed(site, name)
    refuser = repository if isinstance(repository, RefusesListings) else None
    if refuser is not None:
        refuser.recall(await state.listing_refusals(site, name))
    found: dict[str, Listed] = {}
    error: SiteError | None = None
    try:
        async for page in lister.listed(known):
            for listed in page:
                found[listed.tag] = listed
                if record and listed.version and known.get(listed.tag) != listed:
                    state.record(Noted(site, name, listed))
    except SiteError as failure:
        if not found:
            raise
        error = failure
    if record and refuser is not None and (refused := refuser.listing_refused) is not None:
        state.record(refused)
    gone = known.keys() - found.keys()
    if record and gone and error is None:
        state.record(Unlisted(site, name, sorted(gone)))
    return Listing(
        tuple(found),  # not a view, which would keep all that was told in memory
        {tag: listed.digest for tag, listed in found.items() if listed.digest is not None},
        fixed={tag: listed.fixed for tag, listed in found.items() if listed.fixed},
        archived=frozenset(tag for tag, listed in found.items() if listed.archived),
        is_hint=any(listed.is_hint for listed in found.values()),
        complete=error is None,
        error=error,
        notice=lister.listing_notice,
        attached=repository.attached if isinstance(repository, ListsAttached) else {},
    )
