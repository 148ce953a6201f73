"""What was recorded and is not in the database yet: the last word on each key, not a log of entries.

So a batch can be written kind by kind, can be put back under what came later, and can be laid over what a read
found, and it does not grow while the same things are said again. What wins over what is in `merge`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence
from typing import NamedTuple

import msgspec

from replicator.model.digest import Digest
from replicator.policy.recheck import is_ahead
from replicator.ports import (
    CatalogSeen,
    Created,
    Entry,
    GoneAtDestination,
    ImageSeen,
    Listed,
    ListingRefused,
    Missing,
    Noted,
    Pending,
    Placed,
    Placement,
    Seen,
    TagBelief,
    UnitSeen,
    Unlisted,
    Unpending,
)
from replicator.ports.search import ImageFacts
from replicator.state import merge
from replicator.state.memory import REPOSITORIES_KEPT

RepositoryKey = tuple[str, str]
"""A destination or site, and a repository there."""
RuleRepositoryKey = tuple[str, str, str]
"""A rule, a destination and a repository there."""


class Change(NamedTuple):
    """What became of one pending tag: what was pending before ends with `ends_at`, if given; then this is pending."""

    ends_at: float | None = None
    pending: Pending | None = None


class Turn(NamedTuple):
    """What became of one belief: it ends, if not checked since `gone_at`; then this is believed."""

    gone_at: float | None = None
    belief: TagBelief | None = None


class Batch(msgspec.Struct):
    """See the module."""

    beliefs: dict[RepositoryKey, dict[str, Turn]] = msgspec.field(default_factory=dict)
    placements: dict[RepositoryKey, dict[Digest, Placement]] = msgspec.field(default_factory=dict)
    pending: dict[RuleRepositoryKey, dict[str, Change]] = msgspec.field(default_factory=dict)
    units: dict[RuleRepositoryKey, UnitSeen] = msgspec.field(default_factory=dict)
    catalogs: dict[tuple[str, str], CatalogSeen] = msgspec.field(default_factory=dict)
    seen: dict[tuple[str, Digest], dict[str, float | None]] = msgspec.field(default_factory=dict)
    created: dict[Digest, tuple[float, float]] = msgspec.field(default_factory=dict)
    listed: dict[RepositoryKey, dict[str, Listed | None]] = msgspec.field(default_factory=dict)
    refusals: dict[RepositoryKey, ListingRefused] = msgspec.field(default_factory=dict)
    begun: dict[tuple[str, str], float] = msgspec.field(default_factory=dict)
    repositories: set[RepositoryKey] = msgspec.field(default_factory=set)
    images: dict[Digest, ImageFacts] = msgspec.field(default_factory=dict)
    size: int = 0

    def add(self, entry: Entry, now: float) -> None:
        """Takes an entry. One whose names are not text is left out."""
        if not all(merge.is_text(name) for name in _foreign_text(entry)):
            return
        match entry:
            case Placed() | GoneAtDestination():
                self._add_placement(entry, now)
            case Missing(rule, destination, pending):
                self._pend((rule, destination, pending.repository), pending, now)
            case Unpending(rule, destination, repository, tag, asked_at):
                self._unpend((rule, destination, repository), tag, asked_at, now)
            case UnitSeen(unit):
                key = (unit.rule, unit.destination, unit.repository)
                self.size += key not in self.units
                self.units[key] = _later_scan(self.units.get(key), entry, now)
            case CatalogSeen():
                self._add_catalog(entry, now)
            case ImageSeen(facts):
                self.size += facts.digest not in self.images
                self.images[facts.digest] = facts
            case ListingRefused(site, repository, _, cause):
                self.size += (site, repository) not in self.refusals
                self.refusals[site, repository] = msgspec.structs.replace(entry, cause=merge.clean(cause))
            case Seen() | Created() | Noted() | Unlisted():
                self._add_hint(entry, now)

    def see(self, site: str, repository: str, digest: Digest, at: float | None) -> None:
        """A blob was seen at `at`; None: it does not exist after all."""
        places = self.seen.setdefault((site, digest), {})
        self.size += repository not in places
        places[repository] = at
        if at is not None:
            self.repositories.add((site, repository))

    def create(self, digest: Digest, at: float, now: float) -> None:
        """An image was created at `at`, and somebody wanted to know now."""
        self.size += digest not in self.created
        self.created[digest] = at, now

    def begin(self, rule: str, destination: str, now: float) -> None:
        """A rule runs with a destination."""
        self.size += (rule, destination) not in self.begun
        self.begun.setdefault((rule, destination), now)

    def absorb(self, newer: Batch, now: float) -> None:
        """Takes everything of a batch that came later."""
        self._absorb_beliefs(newer, now)
        self._absorb_placements(newer)
        self._absorb_pending(newer, now)
        for catalog in newer.catalogs.values():
            self._add_catalog(catalog, now)
        for seen in newer.units.values():
            self.add(seen, now)
        for (site, digest), places in newer.seen.items():
            for repository, at in places.items():
                self.see(site, repository, digest, at)
        for digest, (created_at, used_at) in newer.created.items():
            self.create(digest, created_at, used_at)
        for (rule, destination), began_at in newer.begun.items():
            self.begin(rule, destination, began_at)
        for place, tags in newer.listed.items():
            for tag, listed in tags.items():
                self._list(place, tag, listed)
        self.size += len(newer.refusals.keys() - self.refusals.keys())
        self.refusals |= newer.refusals
        self.repositories |= newer.repositories
        self.size += len(newer.images.keys() - self.images.keys())
        self.images |= newer.images

    # --- laid over what was found in the database ---

    def over_beliefs(
        self, found: dict[str, TagBelief], place: RepositoryKey, now: float, *, only_ends: bool = False
    ) -> dict[str, TagBelief]:
        """What was found, brought up to date; `only_ends`: without what is believed since."""
        for tag, (gone_at, belief) in self.beliefs.get(place, {}).items():
            known = found.pop(tag, None)
            if known is not None and gone_at is not None and merge.ends_belief(known, gone_at, now):
                known = None
            if belief is not None and not only_ends:
                known = merge.believe(known, belief, now)
            if known is not None:
                found[tag] = known
        return found

    def over_placements(
        self, found: dict[Digest, Placement], place: RepositoryKey, digests: Collection[Digest] | None
    ) -> dict[Digest, Placement]:
        """As `over_beliefs`; of the batch only `digests`, None for all."""
        recorded = self.placements.get(place, {})
        if digests is None:
            return found | recorded
        return found | {digest: recorded[digest] for digest in digests if digest in recorded}

    def over_pending(
        self, found: dict[str, Pending], key: RuleRepositoryKey, beliefs: Mapping[str, TagBelief], now: float
    ) -> dict[str, Pending]:
        """As `over_beliefs`. `beliefs` are those found for the tags in the batch, with `only_ends`."""
        for tag, (ends_at, pending) in self.pending.get(key, {}).items():
            known = found.pop(tag, None)
            if known is not None and ends_at is not None and merge.ends_pending(known, ends_at, now):
                known = None
            if pending is not None:
                known = merge.pend(known, pending, beliefs.get(tag), now)
            if known is not None:
                found[tag] = known
        return found

    def over_whereabouts(
        self,
        found: MutableMapping[Digest, dict[str, float]],
        site: str,
        digests: Iterable[Digest],
        now: float,
    ) -> Mapping[Digest, Sequence[str]]:
        """As `over_beliefs`; the latest first, no more than are kept, no digest without any."""
        result = {}
        for digest in digests:
            places: dict[str, float | None] = {**found.get(digest, {}), **self.seen.get((site, digest), {})}
            known = [
                (0.0 if is_ahead(now, at) else at, place) for place, at in places.items() if at is not None
            ]
            if known:
                result[digest] = [place for _, place in sorted(known, reverse=True)[:REPOSITORIES_KEPT]]
        return result

    def over_listed(self, found: dict[str, Listed], place: RepositoryKey) -> dict[str, Listed]:
        """As `over_beliefs`."""
        merged = found | self.listed.get(place, {})
        return {tag: listed for tag, listed in merged.items() if listed is not None}

    def over_refusals(self, found: dict[str, ListingRefused], place: RepositoryKey) -> list[ListingRefused]:
        """As `over_beliefs`."""
        site, repository = place
        newer = {name: one for name in ("", repository) if (one := self.refusals.get((site, name)))}
        return [one for _, one in sorted((found | newer).items())]

    # --- inside ---

    def _absorb_beliefs(self, newer: Batch, now: float) -> None:
        for place, turns in newer.beliefs.items():
            for tag, (gone_at, belief) in turns.items():
                if gone_at is not None:
                    self._end(place, tag, gone_at, now)
                if belief is not None:
                    self._turn(place, tag, belief, now)

    def _absorb_placements(self, newer: Batch) -> None:
        for place, roots in newer.placements.items():
            for placement in roots.values():
                self._root(place, placement)

    def _absorb_pending(self, newer: Batch, now: float) -> None:
        for key, changes in newer.pending.items():
            for tag, (ends_at, pending) in changes.items():
                if ends_at is not None:
                    self._unpend(key, tag, ends_at, now)
                if pending is not None:
                    self._pend(key, pending, now)

    def _add_placement(self, entry: Placed | GoneAtDestination, now: float) -> None:
        place = entry.destination, entry.repository
        match entry:
            case Placed(rule, destination, belief, repository, placement):
                self.repositories.add(place)
                self._turn(place, belief.tag, belief, now)
                if placement is not None:
                    self._root(place, placement)
                self._unpend((rule, destination, repository), belief.tag, belief.asked_at, now)
            case GoneAtDestination(_, _, tags, seen_at):
                for tag in tags:
                    self._end(place, tag, seen_at, now)

    def _turn(self, place: RepositoryKey, tag: str, belief: TagBelief, now: float) -> None:
        turns = self.beliefs.setdefault(place, {})
        self.size += tag not in turns
        before = turns.get(tag, Turn())
        turns[tag] = Turn(before.gone_at, merge.believe(before.belief, belief, now))

    def _end(self, place: RepositoryKey, tag: str, seen_at: float, now: float) -> None:
        turns = self.beliefs.setdefault(place, {})
        self.size += tag not in turns
        gone_at, belief = turns.get(tag, Turn())
        if belief is not None and merge.ends_belief(belief, seen_at, now):
            belief = None
        turns[tag] = Turn(_later(gone_at, seen_at, now), belief)

    def _root(self, place: RepositoryKey, placement: Placement) -> None:
        roots = self.placements.setdefault(place, {})
        self.size += placement.digest not in roots
        roots[placement.digest] = placement

    def _pend(self, key: RuleRepositoryKey, pending: Pending, now: float) -> None:
        belief = self.beliefs.get(key[1:], {}).get(pending.tag, Turn()).belief
        changes = self.pending.setdefault(key, {})
        ends_at, before = changes.get(pending.tag, Change())
        after = merge.pend(before, merge.clean_pending(pending), belief, now)
        if after is not before:
            self.size += pending.tag not in changes
            changes[pending.tag] = Change(ends_at, after)

    def _unpend(self, key: RuleRepositoryKey, tag: str, asked_at: float, now: float) -> None:
        changes = self.pending.setdefault(key, {})
        self.size += tag not in changes
        ends_at, before = changes.get(tag, Change())
        if before is not None and not merge.ends_pending(before, asked_at, now):
            return
        changes[tag] = Change(_later(ends_at, asked_at, now))

    def _add_catalog(self, entry: CatalogSeen, now: float) -> None:
        key = entry.rule, entry.destination
        before = self.catalogs.get(key)
        if before is not None and not merge.supersedes(entry.at, before.at, now):
            return
        self.size += before is None
        self.catalogs[key] = entry
        for place, seen in list(self.units.items()):
            if place[:2] == key and not merge.outlives(place[2], seen.unit.asked_at, entry, now):
                del self.units[place]
                self.size -= 1

    def _add_hint(self, entry: Seen | Created | Noted | Unlisted, now: float) -> None:
        match entry:
            case Seen(site, repository, digest):
                self.see(site, repository, digest, now)
            case Created(digest, at):
                self.create(digest, at, now)
            case Noted(site, repository, listed):
                self._list((site, repository), listed.tag, listed)
            case Unlisted(site, repository, tags):
                for tag in tags:
                    self._list((site, repository), tag, None)

    def _list(self, place: RepositoryKey, tag: str, listed: Listed | None) -> None:
        tags = self.listed.setdefault(place, {})
        self.size += tag not in tags
        tags[tag] = listed
        if listed is not None:
            self.repositories.add(place)


def _later(known: float | None, new: float, now: float) -> float:
    return new if known is None or merge.supersedes(new, known, now) else known


def _later_scan(known: UnitSeen | None, new: UnitSeen, now: float) -> UnitSeen:
    if known is None:
        return UnitSeen(msgspec.structs.replace(new.unit, error=merge.clean(new.unit.error)), new.counted)
    unit = merge.scan(known.unit, new, now)
    return known if unit is known.unit else UnitSeen(unit, known.counted or new.counted)


def _foreign_text(entry: Entry) -> tuple[str, ...]:
    """What of an entry came from a registry as it is."""
    names: tuple[str, ...] = ()
    match entry:
        case Placed():
            names = (entry.repository, entry.belief.tag)
        case Missing():
            names = (entry.pending.repository, entry.pending.tag, entry.pending.source)
        case Unpending():
            names = (entry.repository, entry.tag)
        case GoneAtDestination() | Unlisted():
            names = (entry.repository, *entry.tags)
        case UnitSeen():
            names = (entry.unit.repository, entry.unit.target)
        case Noted():
            names = (entry.repository, entry.listed.tag, entry.listed.version)
        case Seen() | ListingRefused():
            names = (entry.repository,)
    return names
