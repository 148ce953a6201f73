"""The repositories of one destination as seen and believed: each read once, and locked while it is worked on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec

from replicator.engine.context import Context
from replicator.engine.faults import faults
from replicator.engine.observe.tags import Listing, list_tags
from replicator.errors import Advice, AuthFailed, Denied, NotFound, Rejected, SiteError, Unsupported
from replicator.model.digest import Digest, is_digest
from replicator.policy.rule import Rule
from replicator.ports import (
    GoneAtDestination,
    Pending,
    RefusesNames,
    Repository,
    State,
    TagBelief,
)

BATCHES_AT_ONCE: Final = 4
"""How many batches of one repository are compared at once. What is known of a tag while it is compared takes more memory
than the tag, and 100,000 requests in line would delay other repositories."""


class Catalog(msgspec.Struct, frozen=True):
    """A destination's repository.

    `tags` is its complete listing, empty if the repository does not exist, None if each tag is asked for instead:
    because they are few, or because the site does not list them. `digests` are what the listing told of them, None
    where it tells none; `fixed` the tags that may not be moved, and why; `archived` those whose content cannot be read
    for now; `is_hint`: the listing may lag. `notice` is for the report. `asked_at` (epoch seconds) is when it was asked.
    `fresh`: it has no tag, or does not exist, and nothing of ours is remembered there. `beliefs` and `pending` are what the
    state remembers.
    """

    repository: Repository
    tags: frozenset[str] | None
    digests: Mapping[str, Digest] | None
    asked_at: float
    fresh: bool
    beliefs: Mapping[str, TagBelief]
    pending: Mapping[str, Pending]
    fixed: Mapping[str, str] = msgspec.field(default_factory=dict)
    archived: frozenset[str] = frozenset()
    is_hint: bool = False
    notice: str = ""

    def lists(self, tag: str) -> bool | None:
        """Whether the listing has the tag; None where nothing was listed, or the listing may not have it yet."""
        if self.tags is None or (self.is_hint and tag not in self.tags):
            return None
        return tag in self.tags


async def read_catalog(
    repository: Repository,
    context: Context,
    rule: str,
    *,
    listing: bool,
    only: Collection[str] | None,
) -> Catalog:
    """Lists a destination's repository and recalls what is known of it.

    Beliefs in tags that a complete listing lacks end here.

    Args:
        repository: at the destination.
        context: the run.
        rule: whose pending tags are wanted.
        listing: False asks the destination nothing; each tag will be asked for.
        only: the tags that matter; None for all. The cost then does not depend on how many others there are.

    Raises:
        SiteError: the listing failed or broke off. No failure: a repository that does not exist, or one whose
            listing is refused, since some registries refuse to show what does not exist yet.
    """
    site, name, state = repository.site, repository.name, context.state
    record = not context.request.dry
    asked_at = context.clock.now()
    found, fresh = await _list(repository, state, record=record) if listing else (None, False)
    tags = None if found is None else frozenset(found.tags)
    beliefs = await state.beliefs(site, name, only)
    if tags is not None and found is not None and not found.is_hint:
        gone = [tag for tag in beliefs if tag not in tags and not is_digest(tag)]
        if gone:
            beliefs = {tag: belief for tag, belief in beliefs.items() if tag in tags or is_digest(tag)}
            if record:
                state.record(GoneAtDestination(site, name, gone, asked_at))
    pending = await state.pending(rule, site, name, only)
    found = found or Listing(())
    return Catalog(
        repository,
        tags,
        found.digests or None,
        asked_at,
        fresh,
        beliefs,
        pending,
        fixed=found.fixed,
        archived=found.archived,
        is_hint=found.is_hint,
        notice=found.notice,
    )


async def _list(repository: Repository, state: State, *, record: bool) -> tuple[Listing | None, bool]:
    """The listing, None where each tag is to be asked for; and whether the repository is new."""
    try:
        found = await list_tags(repository, state, record=record)
    except NotFound as error:
        if error.doubtful:
            return None, False
        return Listing(()), not await state.knows_repository(repository.site, repository.name)
    except (Denied, AuthFailed, Unsupported) as error:
        if error.advice is Advice.STOP_SITE:
            raise
        return None, False
    if found.error is not None:
        raise found.error
    # Some registries answer an empty list for what does not exist (olareg, Gitea).
    is_empty = not found.tags and not found.is_hint
    return found, is_empty and not await state.knows_repository(repository.site, repository.name)


class _Target:
    """One target repository. `users` are batches, source repositories and actions that are not done with it."""

    def __init__(self) -> None:
        self.users = 0
        self.is_locked = False
        self.is_waiting = False
        self.opening: asyncio.Future[Catalog | None] | None = None
        self.turn = asyncio.Semaphore(BATCHES_AT_ONCE)


class DestinationCatalogs:
    """Opens catalogs and keeps repositories locked, from the first use to the last.

    Args:
        rule: the rule.
        destination: the site's name.
        context: the run.
        listing: whether the destination's listing is wanted, or each tag will be asked for.
        only: tells of a target which tags matter there; None for all.
        on_failure: told why a catalog could not be had, once each.
    """

    def __init__(
        self,
        rule: Rule,
        destination: str,
        context: Context,
        *,
        listing: bool,
        only: Callable[[str], Collection[str] | None],
        on_failure: Callable[[SiteError], None],
    ) -> None:
        self._rule = rule
        self._destination = destination
        self._context = context
        self._listing = listing
        self._only = only
        self._on_failure = on_failure
        self._breaker = context.breaker(destination)
        self._targets: dict[str, _Target] = {}
        self._left: dict[str, bool] = {}

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
        """Frees whatever is still locked: the run is over."""
        for target, known in self._targets.items():
            self._free(target, known)
        self._targets.clear()

    def _free(self, target: str, known: _Target) -> None:
        if known.is_locked:
            known.is_locked = False
            self._context.locks.give_back((self._destination, target))

    def is_left(self, target: str) -> bool:
        """Whether the target is left to another run that works on it: decided once, for all of this run."""
        if target not in self._left:
            locks, request = self._context.locks, self._context.request
            self._left[target] = request.leaves_busy and locks.is_locked((self._destination, target))
        return self._left[target]

    def is_waiting(self, target: str) -> bool:
        """Whether the run waits for another one that works on the target."""
        known = self._targets.get(target)
        return known is not None and known.is_waiting

    def turn(self, target: str) -> asyncio.Semaphore:
        """Held while a batch of the repository is compared."""
        return self._targets[target].turn

    async def catalog(self, target: str) -> Catalog | None:
        """The catalog of a repository that the caller has entered; None where it could not be had, which was told."""
        known = self._targets[target]
        if known.opening is not None:
            return await asyncio.shield(known.opening)  # one that gives up must not end it for the others
        opening = known.opening = asyncio.get_running_loop().create_future()
        catalog = None
        try:
            if not self._context.request.dry:  # who only asks is in nobody's way
                known.is_waiting = True
                await self._context.locks.take((self._destination, target))
                known.is_waiting, known.is_locked = False, True
            self._breaker.check("list tags", target)
            with faults(self._destination, "list tags", target):
                catalog = await self._read(target)
            self._breaker.succeeded()
        except SiteError as error:
            self._breaker.failed(error)
            self._on_failure(error)
        finally:
            known.is_waiting = False
            opening.set_result(catalog)
        return catalog

    def opened(self, target: str) -> Catalog:
        """The catalog of a repository of which something was decided, so that it has been had."""
        opening = self._targets[target].opening
        catalog = None if opening is None else opening.result()
        if catalog is None:
            raise AssertionError(f"{target} was decided on without a catalog")
        return catalog

    async def _read(self, target: str) -> Catalog:
        site = self._context.sites[self._destination]
        if isinstance(site, RefusesNames) and (why := site.refuses_name(target)) is not None:
            cause = f"{why}; set `rename` in rule {self._rule.name}"
            raise Rejected(self._destination, "name repository", cause, repository=target)
        repository = site.repository(target)
        return await read_catalog(
            repository, self._context, self._rule.name, listing=self._listing, only=self._only(target)
        )
