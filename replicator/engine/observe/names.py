"""Which repositories of a source a run looks at."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing

from replicator.engine.context import Context
from replicator.engine.faults import faults
from replicator.engine.observe.count import ScanCount
from replicator.engine.ticks import RepositoryListing
from replicator.errors import SiteError
from replicator.policy.mapping import target_repository
from replicator.policy.rule import ImageSet, Rule
from replicator.policy.selection import certain_repositories, exact_repositories, select_repository


class SourceNames:
    """The names of the repositories that the rule selects and the run's scope and shard leave.

    `all`, afterwards: those of every shard; None where the source could not be listed completely, or the scope is
    narrow. `listed_at`: when it was asked for them, epoch seconds; None: by this run.

    Args:
        rule: whose source.
        context: the run.
        count: is told how many are found.
        on_failure: told why the source could not be listed; what was found before is given out all the same.
    """

    def __init__(
        self, rule: Rule, context: Context, count: ScanCount, *, on_failure: Callable[[SiteError], None]
    ) -> None:
        self._rule = rule
        self._context = context
        self._count = count
        self._on_failure = on_failure
        self._scope = context.request.scope
        self._shard = context.request.shard
        self._named = frozenset(certain_repositories(rule.repositories))
        self.all: frozenset[str] | None = None
        self.listed_at: float | None = None

    async def find(self, images: ImageSet | None) -> AsyncGenerator[str, None]:
        """The names, as they come. `images`: what the rule's lists name; None where it has no lists."""
        selection = self._rule.repositories
        known = self._scope.repositories if self._scope is not None else exact_repositories(selection)
        listed = None if images is None else images.repositories
        if listed is not None and self._scope is None:
            known = tuple(listed)
        if known is not None:
            names = [
                name
                for name in known
                if select_repository(selection, name) and (listed is None or name in listed)
            ]
            mine = self._mine(names)
            self._count.find(len(mine), is_all=True)
            for name in mine:
                yield name
            self._know(names)
            return
        seen = set(self._named)
        mine = self._mine(self._named)
        self._count.find(len(mine))
        for name in mine:
            yield name
        try:
            with faults(self._rule.source, "list repositories"):
                async with aclosing(self._pages()) as pages:
                    async for page in pages:
                        fresh = [name for name in page if name not in seen]
                        seen.update(fresh)
                        mine = self._mine(fresh)
                        self._count.find(len(mine))
                        for name in mine:
                            yield name
        except SiteError as error:
            self._on_failure(error)
        else:
            self._count.find(0, is_all=True)
            self._know(seen)

    async def _pages(self) -> AsyncGenerator[Collection[str], None]:
        """The names that the source lists and the rule selects: for a tick, as listed once for all shards."""
        request = self._context.request
        tick = None if request.assignment is None else request.assignment.tick
        if tick is None:
            async for page in self._context.sites[self._rule.source].repositories():
                yield [name for name in page if select_repository(self._rule.repositories, name)]
            return
        listing = await self._context.ticks.listings.get(self._rule.name, tick, self._read_names)
        self.listed_at = listing.at
        yield listing.names

    async def _read_names(self) -> RepositoryListing:
        at, names = self._context.clock.now(), set[str]()
        with faults(self._rule.source, "list repositories"):
            async for page in self._context.sites[self._rule.source].repositories():
                names.update(name for name in page if select_repository(self._rule.repositories, name))
        return RepositoryListing(frozenset(names), at)

    def _mine(self, names: Collection[str]) -> Collection[str]:
        """Those of the run's shard, but what others have. What can have no target is told by the shard of its own name."""
        shard, splits = self._shard, self._context.request.splits
        if shard is None:
            return names
        return [
            name
            for name in names
            if shard.has(place := self._place(name))
            and (splits is None or not splits.is_left_everywhere(place))
        ]

    def _place(self, name: str) -> str:
        try:
            return target_repository(self._rule, name)
        except ValueError:
            return name

    def _know(self, names: Collection[str]) -> None:
        if self._scope is None:
            self.all = frozenset(names)
