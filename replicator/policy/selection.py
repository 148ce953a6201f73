"""What is selected: repositories by name, tags by name, version and age. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from replicator.policy.rule import Pin, RepositorySelection, TagSelection
from replicator.policy.semver import Version, parse_version


class _Matches(Protocol):
    def matches(self, name: str, /) -> bool: ...


class Selected(msgspec.Struct, frozen=True):
    """What of one source repository is wanted.

    `tags` is sorted and holds none that a pin names: there the pin decides what the tag is.
    `filters` tells, in the order of the filters, (name, tags removed, tags left). `left_out_non_versions`
    counts the tags that no table selected and that a table left out because they are not versions. `undated`
    are tags left out because their age matters and is not known. `short` are the tables with fewer tags than
    their `min_tags`, a sentence each.
    """

    tags: tuple[str, ...]
    pins: tuple[Pin, ...] = ()
    filters: tuple[tuple[str, int, int], ...] = ()
    left_out_non_versions: int = 0
    undated: tuple[str, ...] = ()
    short: tuple[str, ...] = ()


class Traced(msgspec.Struct, frozen=True):
    """What one table made of one tag: each filter that looked at it, in order, and whether it took it.

    `pin` is the table's pin that decides what the tag is. `is_selected`: the table takes it, by its filters or a pin.
    """

    number: int
    verdicts: tuple[tuple[str, bool], ...]
    pin: Pin | None
    is_selected: bool


def trace(
    selections: tuple[TagSelection, ...],
    tags: Iterable[str],
    created: Mapping[str, float] | None,
    now: float,
    tag: str,
) -> tuple[Traced, ...]:
    """What each table makes of one tag, by the same filters as `select`; arguments as there.

    `tags` without `tag` itself: it is judged as if it were among them.
    """
    distinct = frozenset((*tags, tag))
    is_pinned = tag in pinned_tags(selections)
    traced = []
    for number, selection in enumerate(selections, 1):
        sieve = _sift(selection, distinct, created or {}, now, watched=tag)
        pin = next((pin for pin in selection.pins if pin.tag == tag), None)
        taken = pin is not None or (tag in sieve.left and not is_pinned)
        traced.append(Traced(number, tuple(sieve.verdicts), pin, taken))
    return tuple(traced)


def select_repository(selection: RepositorySelection, name: str) -> bool:
    """Whether the repository is selected: by any of `include`, by none of `exclude`."""
    return _any(selection.include, name) and not _any(selection.exclude, name)


def exact_repositories(selection: RepositorySelection) -> tuple[str, ...] | None:
    """The repositories selected, if they are known without a listing; else None."""
    names = [glob.exact for glob in selection.include]
    if any(name is None for name in names):
        return None
    return certain_repositories(selection)


def certain_repositories(selection: RepositorySelection) -> tuple[str, ...]:
    """The repositories that are selected by their own name, whatever a listing says of others."""
    names = (glob.exact for glob in selection.include)
    return tuple(
        dict.fromkeys(name for name in names if name is not None and not _any(selection.exclude, name))
    )


def exact_tags(selections: tuple[TagSelection, ...]) -> tuple[str, ...] | None:
    """The tags to ask for, if they are known without a listing; else None.

    Not None where each table has exact names only, or pins only, and nothing that depends on what else is there
    or on ages. Tags that a pin names are not among them.
    """
    if all(_is_exact(selection) for selection in selections):
        return certain_tags(selections)
    return None


def judges_each_alone(selections: tuple[TagSelection, ...]) -> bool:
    """Whether a tag is selected or not whatever other tags there are, and whatever their age."""
    return not any(
        selection.latest is not None or selection.newer_than is not None or selection.min_tags
        for selection in selections
    )


def certain_tags(selections: tuple[TagSelection, ...]) -> tuple[str, ...]:
    """The tags that are selected by their own name if they exist, whatever a listing says of others."""
    pinned = pinned_tags(selections)
    names = {
        name: None
        for selection in selections
        if selection.latest is None and selection.newer_than is None
        for name in (pattern.exact for pattern in selection.include)
        if name is not None and name not in pinned and _passes(selection, name)
    }
    return tuple(names)


def may_select(selections: tuple[TagSelection, ...], tag: str) -> bool:
    """Whether a tag of this name can be selected, whatever its age and whatever other tags there are.

    What a pin names is not: the pin decides what that tag is.
    """
    return tag not in pinned_tags(selections) and any(_passes(selection, tag) for selection in selections)


def is_immutable(selections: tuple[TagSelection, ...], tag: str) -> bool:
    """Whether the tag, once present at a destination, is never asked for again."""
    return any(_any(selection.immutable, tag) for selection in selections)


def needs_created(selections: tuple[TagSelection, ...], tags: Iterable[str]) -> set[str]:
    """The tags whose creation times `select` needs: those that the cheap filters leave to a filter by age."""
    distinct = frozenset(tags)
    needed: set[str] = set()
    for selection in selections:
        by_age = selection.newer_than is not None
        if not by_age and (selection.sort != "created" or selection.latest is None):
            continue
        sieve = _Sieve(selection, distinct)
        sieve.by_name()
        if by_age or _must_choose(selection, sieve.left):
            needed |= sieve.left
    return needed


def select(
    selections: tuple[TagSelection, ...],
    tags: Iterable[str],
    created: Mapping[str, float] | None,
    now: float,
) -> Selected:
    """What is wanted of a repository: whatever any of the tables selects, and all pins.

    A table's keys are and-ed, in this order: include, exclude, semver, newer_than, latest (by sort), min_tags.
    Without a range, prereleases are versions like others to `latest`.

    Args:
        selections: the tables.
        tags: a complete listing, in any order, or the names that `exact_tags` gave.
        created: creation times (epoch seconds) of what `needs_created` named, as far as they could be had.
        now: the time, for ages.
    """
    distinct = frozenset(tags)
    wanted: set[str] = set()
    non_versions: set[str] = set()
    undated: set[str] = set()
    filters: list[tuple[str, int, int]] = []
    short: list[str] = []
    for number, selection in enumerate(selections, 1):
        sieve = _sift(selection, distinct, created or {}, now)
        wanted |= sieve.left
        non_versions |= sieve.non_versions
        undated |= sieve.undated
        which = f" of table {number}" if len(selections) > 1 else ""
        filters += [(name + which, removed, left) for name, removed, left in sieve.filters]
        found = len(sieve.left | {pin.tag or pin.digest for pin in selection.pins})
        if found < selection.min_tags:
            short.append(f"min_tags{which} is {selection.min_tags}, but {found} selected")
    pins = tuple(dict.fromkeys(pin for selection in selections for pin in selection.pins))
    return Selected(
        tags=tuple(sorted(wanted - pinned_tags(selections))),
        pins=pins,
        filters=tuple(filters),
        left_out_non_versions=len(non_versions - wanted),
        undated=tuple(sorted(undated - wanted)),
        short=tuple(short),
    )


def _sift(
    selection: TagSelection,
    tags: frozenset[str],
    created: Mapping[str, float],
    now: float,
    watched: str | None = None,
) -> _Sieve:
    """One table's filters, all applied, in order."""
    sieve = _Sieve(selection, tags, watched)
    sieve.by_name()
    sieve.by_age(created, now)
    sieve.latest(created)
    return sieve


class _Sieve(msgspec.Struct):
    """One table at work: the tags it has left so far, and what became of the others; of `watched`, at each filter."""

    selection: TagSelection
    left: frozenset[str]
    watched: str | None = None
    verdicts: list[tuple[str, bool]] = msgspec.field(default_factory=list)
    filters: list[tuple[str, int, int]] = msgspec.field(default_factory=list)
    non_versions: frozenset[str] = frozenset()
    undated: frozenset[str] = frozenset()
    versions: dict[str, Version] = msgspec.field(default_factory=dict)
    """Of what is left, once `_only_versions` ran."""

    def by_name(self) -> None:
        """What needs nothing but the names: include, exclude, semver."""
        selection = self.selection
        if not selection.include and selection.pins:
            self._watch("pins only", frozenset())
            self.left = frozenset()
        elif selection.include:
            self._keep("include", lambda tag: _any(selection.include, tag))
        if selection.exclude:
            self._keep("exclude", lambda tag: not _any(selection.exclude, tag))
        if selection.semver is not None:
            self._only_versions()
            wanted = selection.semver
            self._keep("semver", lambda tag: self.versions[tag] in wanted)

    def by_age(self, created: Mapping[str, float], now: float) -> None:
        """`newer_than`."""
        if self.selection.newer_than is None:
            return
        self._only_dated(created)
        oldest = now - self.selection.newer_than
        self._keep("newer_than", lambda tag: created[tag] >= oldest)

    def latest(self, created: Mapping[str, float]) -> None:
        """`latest`, by `sort`. Of tags that sort alike the later in plain string order is the newer."""
        selection = self.selection
        if selection.latest is None:
            return
        if selection.sort == "semver" and selection.semver is None:
            self._only_versions()
        if not _must_choose(selection, self.left):
            self._keep("latest", lambda _: True)
            return
        if selection.sort == "created":
            self._only_dated(created)
        newest = frozenset(sorted(self.left, key=self._order(created))[-selection.latest :])
        self._keep("latest", newest.__contains__)

    def _order(self, created: Mapping[str, float]) -> Callable[[str], tuple[object, ...]]:
        """What tags are sorted by, oldest first; all are versions or dated where that is what counts."""
        match self.selection.sort:
            case "alpha":
                return lambda tag: (tag,)
            case "created":
                return lambda tag: (created[tag], tag)
            case "semver":
                return lambda tag: (*self.versions[tag].precedence, tag)

    def _only_versions(self) -> None:
        self.versions = {tag: version for tag in self.left if (version := parse_version(tag)) is not None}
        versions = frozenset(self.versions)
        self.non_versions |= self.left - versions
        self._note("not a version", versions)

    def _only_dated(self, created: Mapping[str, float]) -> None:
        dated = self.left & created.keys()
        self.undated |= self.left - dated
        self._note("age unknown", dated)

    def _keep(self, name: str, wanted: Callable[[str], bool]) -> None:
        left = frozenset(tag for tag in self.left if wanted(tag))
        self.filters.append((name, len(self.left) - len(left), len(left)))
        self._watch(name, left)
        self.left = left

    def _watch(self, name: str, left: frozenset[str]) -> None:
        if self.watched in self.left:
            self.verdicts.append((name, self.watched in left))

    def _note(self, name: str, left: frozenset[str]) -> None:
        """As `_keep`, for what users did not ask for: told only where it took something."""
        if len(left) != len(self.left):
            self.filters.append((name, len(self.left) - len(left), len(left)))
            if self.watched not in left:
                self._watch(name, left)
            self.left = left


def _must_choose(selection: TagSelection, tags: frozenset[str]) -> bool:
    return selection.latest is not None and len(tags) > selection.latest


def _is_exact(selection: TagSelection) -> bool:
    if not judges_each_alone((selection,)):
        return False
    if not selection.include:
        return bool(selection.pins)
    return all(pattern.exact is not None for pattern in selection.include)


def _passes(selection: TagSelection, tag: str) -> bool:
    sieve = _Sieve(selection, frozenset((tag,)))
    sieve.by_name()
    return bool(sieve.left)


def pinned_tags(selections: Iterable[TagSelection]) -> set[str]:
    """The tags for which a pin decides what they are."""
    return {pin.tag for selection in selections for pin in selection.pins if pin.tag is not None}


def _any(patterns: Sequence[_Matches], name: str) -> bool:
    return any(pattern.matches(name) for pattern in patterns)
