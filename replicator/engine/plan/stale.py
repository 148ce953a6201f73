"""What is remembered of a destination's repositories and was not wanted in this run. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from replicator.engine.observe.destination import Catalog
from replicator.engine.plan.decision import Gone
from replicator.model.digest import Digest


class _Target:
    __slots__ = ("gone", "is_judged", "pending", "repository")

    def __init__(self, repository: str, gone: dict[str, Digest], pending: set[str]) -> None:
        self.repository = repository
        self.gone = gone
        self.pending = pending
        self.is_judged = True


class StaleTags:
    """Told what a scan finds, it knows at the end, if the scan was complete, what nobody wants any more.

    Several source repositories may share one target, so nothing is certain before the last of them; and nothing of a
    target is, where what any of them wants could not be compared.

    Args:
        rule: only what was put there for it is its to give up.
    """

    def __init__(self, rule: str) -> None:
        self._rule = rule
        self._targets: dict[str, _Target] = {}
        self._unseen: set[str] = set()

    def unseen(self, target: str) -> None:
        """Some of what is wanted in the target could not be compared."""
        self._unseen.add(target)

    def open(self, repository: str, target: str, catalog: Catalog) -> None:
        """Takes what is remembered of a target, the first time."""
        if target not in self._targets:
            mine = {
                tag: belief.digest
                for tag, belief in catalog.beliefs.items()
                if belief.rule == self._rule and catalog.tags is not None and tag in catalog.tags
            }
            self._targets[target] = _Target(repository, mine, set(catalog.pending))

    def wanted(self, target: str, key: str) -> None:
        """A tag, or a digest pinned without one, is wanted there."""
        self._targets[target].pending.discard(key)

    def present(self, target: str, tags: Iterable[str] | None) -> None:
        """What a source repository has, by the names it would have there; None where it was not listed whole."""
        known = self._targets[target]
        if tags is None:
            known.is_judged = False
        for tag in tags or ():
            known.gone.pop(tag, None)

    def gone(self) -> Iterator[Gone]:
        """The tags that their source no longer has."""
        for target, known in self._targets.items():
            if known.is_judged and target not in self._unseen:
                for tag, digest in known.gone.items():
                    yield Gone(known.repository, target, tag, digest)

    def pending(self) -> Iterator[tuple[str, str]]:
        """Target and tag of what was pending and is no longer wanted."""
        for target, known in self._targets.items():
            if target not in self._unseen:
                for tag in known.pending:
                    yield target, tag
