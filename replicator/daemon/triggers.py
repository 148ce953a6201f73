"""What is wanted and not begun yet: one queue for ticks, webhooks, API and commands, bounded by merging.

Nothing is ever refused for want of room: wants for one rule and destination merge, and where too many repositories
are named, the whole rule is wanted instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from replicator.model.companion import is_companion
from replicator.model.digest import is_digest
from replicator.policy.rule import Rule
from replicator.policy.selection import may_select, select_repository
from replicator.runs.current import Cause

REPOSITORIES_WANTED: Final = 1_000
"""Per rule and destination; with more, the whole rule is looked at."""
TAGS_WANTED: Final = 1_000
"""Per repository; with more, the whole repository is looked at."""

_WEIGHT: Final[Mapping[Cause, int]] = {
    "interval": 0,
    "cron": 0,
    "retry": 1,
    "webhook": 2,
    "start": 3,
    "api": 4,
}
"""An operator's order is never merged down to a timer's tick."""

Repositories = Mapping[str, frozenset[str] | None]
"""Source repositories, each with its tags or (None) whole."""


@dataclass(frozen=True, slots=True)
class Want:
    """What one destination of a rule is to be brought in step with; `at` dates the earliest event in it."""

    cause: Cause
    whole: bool = False
    recheck: bool = False
    repositories: Repositories = field(default_factory=dict)
    at: float | None = None

    def merge(self, other: Want) -> Want:
        """Both in one. The cause is the weightier one; what is wanted whole keeps what an event named beside it."""
        repositories = dict(self.repositories)
        for name, tags in other.repositories.items():
            known = repositories.get(name, frozenset())
            both = None if known is None or tags is None else known | tags
            repositories[name] = None if both is None or len(both) > TAGS_WANTED else both
        too_many = len(repositories) > REPOSITORIES_WANTED
        times = [at for at in (self.at, other.at) if at is not None]
        return replace(
            self,
            cause=max(self.cause, other.cause, key=_WEIGHT.__getitem__),
            whole=self.whole or other.whole or too_many,
            recheck=self.recheck or other.recheck,
            repositories={} if too_many else repositories,
            at=min(times) if times and not too_many else None,
        )


class Triggers:
    """The queue. `wake` is called when there is something new; `is_paused` tells whose wants are not taken."""

    def __init__(self, *, wake: Callable[[], None], is_paused: Callable[[str], bool]) -> None:
        self._wake = wake
        self._is_paused = is_paused
        self._rules: dict[str, Rule] = {}
        self._wants: dict[tuple[str, str], Want] = {}

    def set_rules(self, rules: Iterable[Rule]) -> None:
        """The rules there are from now on; wants of others are dropped."""
        self._rules = {rule.name: rule for rule in rules}
        self._wants = {
            (name, destination): want
            for (name, destination), want in self._wants.items()
            if name in self._rules and destination in self._rules[name].destinations
        }

    def submit(
        self,
        rule: str,
        *,
        cause: Cause,
        repositories: Repositories | None = None,
        destinations: Collection[str] | None = None,
        at: float | None = None,
        recheck: bool = False,
    ) -> bool:
        """Wants a rule run, as soon as may be.

        Args:
            rule: its name.
            cause: what wants it.
            repositories: only these source repositories, each with its tags or (None) whole; None is the whole rule.
            destinations: only to these; None is all.
            at: when the change happened (epoch seconds), where an event told.
            recheck: asks the destinations tag by tag.

        Returns:
            False if the rule or destination is unknown, selects none of the repositories, or is paused.
        """
        known = self._rules.get(rule)
        if known is None or self._is_paused(rule):
            return False
        named = None if repositories is None else self._selected(known, repositories)
        places = [each for each in known.destinations if destinations is None or each in destinations]
        if not places or (named is not None and not named):
            return False
        empty = Want(cause)
        want = Want(cause, named is None, recheck, named or {}, at if named else None)
        for destination in places:
            key = (rule, destination)
            self._wants[key] = self._wants.get(key, empty).merge(want)
        self._wake()
        return True

    def concerned(self, site: str, repository: str | None, tag: str | None = None) -> tuple[str, ...]:
        """The rules that look when something changed at a site, in this repository (None: in any), at this tag (None: any).

        They have the site as source, select the repository and, as far as its name tells, the tag, or copy what refers
        to images where the name is of such; none is paused.
        """
        return tuple(
            name
            for name, rule in self._rules.items()
            if rule.source == site
            and not self._is_paused(name)
            and (repository is None or select_repository(rule.repositories, repository))
            and (tag is None or _may_concern(rule, tag))
        )

    def concerned_places(
        self, site: str, repository: str | None, tag: str | None = None
    ) -> frozenset[tuple[str, str]]:
        """The rules that are `concerned`, each with each of its destinations."""
        return frozenset(
            (name, destination)
            for name in self.concerned(site, repository, tag)
            for destination in self._rules[name].destinations
        )

    def hint(
        self, site: str, repository: str | None, tag: str | None = None, *, at: float | None = None
    ) -> frozenset[tuple[str, str]]:
        """An event at a site: something changed in this repository (None: in any), at this tag (None: at any).

        Returns the rules that look again because of it, each with each of its destinations.
        """
        tags = None if tag is None else frozenset({tag})
        named = None if repository is None else {repository: tags}
        for name in self.concerned(site, repository, tag):
            self.submit(name, cause="webhook", repositories=named, at=at)
        return self.concerned_places(site, repository, tag)

    def take(self, rule: str, destination: str) -> Want | None:
        """Takes what is wanted there, all of it."""
        return self._wants.pop((rule, destination), None)

    def wanted(self) -> Iterator[tuple[str, Repositories]]:
        """The rules that wait, each with the repositories that events named; one entry for each destination."""
        return ((rule, want.repositories) for (rule, _), want in self._wants.items())

    def put_back(self, rule: str, destination: str, want: Want) -> None:
        """Wants again what was taken and cannot be begun yet."""
        later = self._wants.get((rule, destination))
        self._wants[rule, destination] = want if later is None else want.merge(later)

    def drop(self, rule: str) -> None:
        """Forgets what is wanted of a rule."""
        self._wants = {key: want for key, want in self._wants.items() if key[0] != rule}

    def __len__(self) -> int:
        return len(self._wants)

    def _selected(self, rule: Rule, repositories: Repositories) -> Repositories:
        return {
            name: tags for name, tags in repositories.items() if select_repository(rule.repositories, name)
        }


def _may_concern(rule: Rule, tag: str) -> bool:
    if is_companion(tag) or is_digest(tag):
        return rule.referrers != "none"
    return may_select(rule.tags, tag)
