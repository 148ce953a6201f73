"""The repositories of one destination as seen and believed: each read once, and locked while it is worked on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from replicator.engine.context import Context
from replicator.engine.faults import faults
from replicator.engine.observe.tags import list_tags
from replicator.errors import Advice, AuthFailed, Denied, NotFound, SiteError, Unsupported
from replicator.model.digest import Digest
from replicator.policy.rule import Rule
from replicator.ports import Pending, Repository, State, TagBelief


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
    beliefs: Mapping[str, TagBelief]
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


class _Target:
    """One target repository. `users` are batches, source repositories and actions that are not done with it."""

    def __init__(self) -> None:
        self.users = 0
        self.held = False
        self.opening: asyncio.Future[Catalog | None] | None = None


class DestinationCatalogs:
    """Opens catalogs and keeps repositories in hand, from the first use to the last.

    Args:
        rule: the rule.
        destination: the site's name.
        context: the run.
        listing: whether the destination's listing is wanted, or each tag will be asked for.
        on_failure: told why a catalog could not be had, once each.
    """

    def __init__(
        self,
        rule: Rule,
        destination: str,
        context: Context,
        *,
        listing: bool,
        on_failure: Callable[[SiteError], None],
    ) -> None:
        self._rule = rule
        self._destination = destination
        self._context = context
        self._listing = listing
        self._on_failure = on_failure
        self._breaker = context.breaker(destination)
        self._targets: dict[str, _Target] = {}

    def enter(self, target: str) -> None:
        """Counts a user in."""
        self._targets.setdefault(target, _Target()).users += 1

    def leave(self, target: str) -> None:
        """Counts a user out; with the last one the repository is free for another run."""
        known = self._targets[target]
        known.users -= 1
        if known.users == 0:
            self._free(target, self._targets.pop(target))

    def release(self) -> None:
        """Frees whatever is still in hand: the run is over."""
        for target, known in self._targets.items():
            self._free(target, known)
        self._targets.clear()

    def _free(self, target: str, known: _Target) -> None:
        if known.held:
            known.held = False
            self._context.locks.give_back((self._rule.name, self._destination, target))

    async def catalog(self, target: str) -> Catalog | None:
        """The catalog of a repository that the caller has entered; None where it could not be had, which was told."""
        known = self._targets[target]
        if known.opening is not None:
            return await asyncio.shield(known.opening)  # one that gives up must not end it for the others
        opening = known.opening = asyncio.get_running_loop().create_future()
        catalog = None
        try:
            if not self._context.dry:  # who only looks is in nobody's way
                await self._context.locks.take((self._rule.name, self._destination, target))
                known.held = True
            self._breaker.check("list tags", target)
            with faults(self._destination, "list tags", target):
                catalog = await self._read(target)
            self._breaker.succeeded()
        except SiteError as error:
            self._breaker.failed(error)
            self._on_failure(error)
        finally:
            opening.set_result(catalog)
        return catalog

    async def _read(self, target: str) -> Catalog:
        repository = self._context.sites[self._destination].repository(target)
        return await read_catalog(
            repository,
            self._context.state,
            self._rule.name,
            listing=self._listing,
            record=not self._context.dry,
        )
