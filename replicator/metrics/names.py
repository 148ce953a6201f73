"""Which rules and sites series are about: those of a config, and those that a reload took away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from replicator.events import Event
from replicator.policy.rule import Rule

_FIELDS: Final = ("rule", "source", "destination", "site")
"""Fields of events that name rules and sites."""


class Names:
    """Names of rules, sites, and pairs of rule and destination."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        rules = tuple(rules)
        self.rules = {rule.name for rule in rules}
        self.sites = {site for rule in rules for site in (rule.source, *rule.mirrors, *rule.destinations)}
        self.pairs = {(rule.name, destination) for rule in rules for destination in rule.destinations}

    def __or__(self, other: Names) -> Names:
        return self._made(self.rules | other.rules, self.sites | other.sites, self.pairs | other.pairs)

    def __sub__(self, other: Names) -> Names:
        return self._made(self.rules - other.rules, self.sites - other.sites, self.pairs - other.pairs)

    @classmethod
    def _made(cls, rules: set[str], sites: set[str], pairs: set[tuple[str, str]]) -> Names:
        made = cls(())
        made.rules, made.sites, made.pairs = rules, sites, pairs
        return made

    def has(self, event: Event) -> bool:
        """Whether an event is about one of these."""
        if not (self.rules or self.sites or self.pairs):
            return False
        return self.names({name: getattr(event, name, None) for name in _FIELDS})

    def names(self, labels: Mapping[str, str | None]) -> bool:
        """Whether any of the labels is one of these."""
        return (
            labels.get("rule") in self.rules
            or any(labels.get(name) in self.sites for name in ("source", "destination", "site"))
            or (labels.get("rule"), labels.get("destination")) in self.pairs
        )
