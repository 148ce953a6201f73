"""The questions that decisions need answered: what a destination has of a tag, and what its source names."""

from __future__ import annotations

from replicator.engine.content.referrers import WantedReferrers
from replicator.engine.content.source import SourceContent
from replicator.engine.context import Context
from replicator.engine.faults import faults, is_unreadable
from replicator.engine.observe.closure import ClosureCheck
from replicator.engine.observe.destination import Catalog
from replicator.engine.observe.platforms import chosen_root
from replicator.engine.observe.referrers import missing_referrers
from replicator.engine.observe.seen import Seen
from replicator.engine.observe.wanted import WantedTag, WantedTags
from replicator.engine.plan.decide import Closure, Facts
from replicator.engine.record import Recorder
from replicator.engine.roots import Root
from replicator.errors import NotFound, SiteError
from replicator.model.digest import Digest
from replicator.policy.rule import Rule


class Questions:
    """Asks both sites of one rule at one destination.

    Each question raises `SiteError` if the site could not be asked. A destination that does not let replicator read
    (`is_unreadable`) has answered: what cannot be read is told in the answer.

    Args:
        rule: the rule.
        destination: the destination's name.
        context: the run.
        content: the source's content.
        recorder: is told what cannot be read.
    """

    def __init__(
        self, rule: Rule, destination: str, context: Context, content: SourceContent, recorder: Recorder
    ) -> None:
        self._rule = rule
        self._destination = destination
        self._context = context
        self._content = content
        self._recorder = recorder
        self._closures = ClosureCheck(rule.part_of)
        self._breaker = context.breaker(destination)
        self._source_breaker = context.breaker(rule.source)

    async def tag(self, catalog: Catalog, wanted: WantedTag, facts: Facts) -> Seen:
        """What the destination's tag names; None in it where the tag does not exist."""
        repository = catalog.repository
        try:
            self._breaker.check("resolve tag", repository.name)
            with faults(self._destination, "resolve tag", repository.name):
                seen = (await repository.resolve(wanted.key)).digest
        except NotFound:
            return Seen(None)
        except SiteError as error:
            if not is_unreadable(error):
                raise
            if facts.belief is not None:  # else the repository may only not exist yet
                self._recorder.unreadable(error)
            return Seen(None, unreadable=True)
        self._breaker.succeeded()
        return Seen(seen)

    async def closure(self, catalog: Catalog, root: Digest) -> Closure:
        """What the destination lacks below a root."""
        repository = catalog.repository
        try:
            self._breaker.check("check image", repository.name)
            with faults(self._destination, "check image", repository.name):
                below = await self._closures.check(repository, root)
        except SiteError as error:
            if not is_unreadable(error):
                raise
            return Closure(unreadable=True)
        self._breaker.succeeded()
        return Closure(below.missing, children=below.children)

    async def referrers(
        self,
        batch: WantedTags,
        catalog: Catalog,
        root: Digest,
        closure: Closure | None,
        *,
        is_rewritten: bool,
        is_thorough: bool,
    ) -> tuple[Digest, ...]:
        """What refers to a root at the source and is missing at the destination."""
        self._source_breaker.check("list referrers", batch.repository)
        try:
            with faults(self._rule.source, "list referrers", batch.repository):
                return await missing_referrers(
                    self._content.referrers,
                    self._context.apis,
                    self._content.repository(batch.repository),
                    catalog.repository,
                    root,
                    None if closure is None or closure.unreadable else closure.children,
                    WantedReferrers(self._rule.referrers, self._rule.referrer_filter, batch.companions),
                    part_of=self._rule.part_of,
                    is_rewritten=is_rewritten,
                    is_thorough=is_thorough,
                )
        except SiteError as error:
            if not is_unreadable(error):
                raise
            return ()

    async def platforms(self, batch: WantedTags, root: Digest) -> Root:
        """The root that has the chosen platforms alone."""
        platforms = self._rule.platforms
        if platforms is None:
            return Root(root)
        self._source_breaker.check("read manifest", batch.repository)
        with faults(self._rule.source, "read manifest", batch.repository):
            return await chosen_root(
                self._context.roots, self._content, batch.repository, root, platforms, self._rule.mirrors
            )

    async def source(self, batch: WantedTags, wanted: WantedTag) -> Digest:
        """What an immutable tag is at the source that was believed to be settled."""
        source = self._rule.source
        self._source_breaker.check("resolve tag", batch.repository)
        with faults(source, "resolve tag", batch.repository):
            return (await self._content.repository(batch.repository).resolve(wanted.tag or "")).digest
