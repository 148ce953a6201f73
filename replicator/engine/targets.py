"""The target repositories of one run at one destination: each read once, and in hand while it is worked on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from replicator.engine.catalog import Catalog, read_catalog
from replicator.engine.context import Context
from replicator.engine.fault import faults
from replicator.errors import SiteError
from replicator.policy.rule import Rule


class _Target:
    """One target repository. `users` are batches, source repositories and actions that are not done with it."""

    def __init__(self) -> None:
        self.users = 0
        self.held = False
        self.opening: asyncio.Future[Catalog | None] | None = None


class Targets:
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
            self._context.in_hand.give_back((self._rule.name, self._destination, target))

    async def catalog(self, target: str) -> Catalog | None:
        """The catalog of a repository that the caller has entered; None where it could not be had, which was told."""
        known = self._targets[target]
        if known.opening is not None:
            return await asyncio.shield(known.opening)  # one that gives up must not end it for the others
        opening = known.opening = asyncio.get_running_loop().create_future()
        catalog = None
        try:
            if not self._context.dry:  # who only looks is in nobody's way
                await self._context.in_hand.take((self._rule.name, self._destination, target))
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
