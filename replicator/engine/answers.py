"""What a run that events narrowed says about the tags they named, so that the events are answered."""

from __future__ import annotations

from replicator.engine.context import Context
from replicator.engine.observe.wanted import WantedTags
from replicator.engine.plan.action import Action
from replicator.events import RepositoryScanned, TagSeen
from replicator.model.digest import Digest
from replicator.policy.rule import Rule
from replicator.policy.selection import pinned_tags


class Answers:
    """Tells what was seen of tags and repositories that events named; nothing in a run of everything, or a plan."""

    def __init__(self, rule: Rule, destination: str, context: Context) -> None:
        self._rule = rule
        self._destination = destination
        self._events = context.events
        self._scope = context.request.scope
        self._dry = context.request.dry
        self._pinned = pinned_tags(rule.tags)

    def others(self, batch: WantedTags) -> None:
        """What became of tags that an event named and that are not wanted."""
        for other in batch.others:
            self._seen(batch.repository, other.tag, other.digest, is_absent=other.is_absent)

    def repository(self, batch: WantedTags) -> None:
        """A repository that an event named whole was scanned."""
        scope = self._scope
        if scope is None or not (batch.is_last and batch.is_complete):
            return
        if scope.repositories.get(batch.repository, frozenset()) is None:
            self._events.emit(
                RepositoryScanned(self._rule.name, self._rule.source, batch.repository, self._destination)
            )

    def through(self, action: Action) -> None:
        """The tag is in step, or nothing that passes by itself keeps it from being so."""
        if action.wanted.tag not in self._pinned:
            self._seen(action.repository, action.wanted.tag, action.wanted.digest)

    def _seen(
        self, repository: str, tag: str | None, digest: Digest | None, *, is_absent: bool = False
    ) -> None:
        scope = self._scope
        if scope is None or tag is None or self._dry:
            return
        named = scope.repositories.get(repository)
        if named is None or tag in named:
            self._events.emit(
                TagSeen(
                    self._rule.name,
                    self._rule.source,
                    repository,
                    tag,
                    digest,
                    destination=self._destination,
                    is_absent=is_absent,
                )
            )
