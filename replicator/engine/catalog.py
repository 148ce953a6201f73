"""What one destination is seen and believed to have of one repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from replicator.engine.listing import list_tags
from replicator.errors import Advice, AuthFailed, Denied, NotFound, Unsupported
from replicator.model.digest import Digest
from replicator.ports import Belief, Pending, Repository, State


@dataclass(frozen=True, slots=True)
class Catalog:
    """A destination's repository.

    `tags` is its complete listing, empty where there is no such repository, None where each tag is asked for instead:
    because they are few, or because the site does not list them. `digests` are what the listing told of them, None where it tells none.
    `fresh`: it did not exist, and nothing of ours is remembered there.
    """

    repository: Repository
    tags: frozenset[str] | None
    digests: Mapping[str, Digest] | None
    fresh: bool
    beliefs: Mapping[str, Belief]
    pending: Mapping[str, Pending]

    def lists(self, tag: str) -> bool:
        """Whether the tag may be there."""
        return self.tags is None or tag in self.tags


async def read_catalog(
    repository: Repository, state: State, rule: str, *, listing: bool, record: bool
) -> Catalog:
    """Lists a destination's repository and recalls what is known of it.

    Args:
        repository: at the destination.
        state: the memory.
        rule: whose pending tags are wanted.
        listing: False asks the destination nothing; each tag will be asked for.
        record: False leaves the state alone.

    Raises:
        SiteError: the listing failed or broke off. No failure: a repository that does not exist, or one whose
            listing is refused, since some registries refuse to show what does not exist yet.
    """
    site, name = repository.site, repository.name
    tags: frozenset[str] | None = None
    digests: Mapping[str, Digest] | None = None
    fresh = False
    if listing:
        try:
            found = await list_tags(repository, state, record=record)
        except NotFound as error:
            if not error.doubtful:
                tags = frozenset()
                fresh = not await state.knows_repository(site, name)
        except (Denied, AuthFailed, Unsupported) as error:
            if error.advice is Advice.STOP_SITE:
                raise
        else:
            if found.error is not None:
                raise found.error
            tags, digests = frozenset(found.tags), found.digests or None
    beliefs = await state.beliefs(site, name)
    return Catalog(repository, tags, digests, fresh, beliefs, await state.pending(rule, site, name))
