"""A state that is forgotten with its process, in plain dictionaries. It imports no database."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from replicator.model.digest import Digest
from replicator.policy.recheck import is_ahead
from replicator.ports import (
    AcceptedEvent,
    BehindRepository,
    CatalogSeen,
    Clock,
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
    RunRow,
    Seen,
    Standing,
    TagBelief,
    Unit,
    UnitSeen,
    Unlisted,
    Unpending,
)
from replicator.state import merge
from replicator.state.merge import Base, PendingSum, ShardLook, UnitSum

_K = TypeVar("_K")
_V = TypeVar("_V")

REPOSITORIES_KEPT: Final = 4
"""Repositories remembered per blob and site: enough to find one that still has it."""
RUNS_KEPT: Final = 100
"""Runs remembered per rule and destination."""

Hint = Callable[[str, Digest], str | None]
"""A repository of a site that has a blob, known from elsewhere; None where none is known."""


def _no_hint(site: str, digest: Digest) -> None:  # noqa: ARG001  the signature of a hint
    return None


class _Repository(msgspec.Struct):
    """What is believed of one repository of one destination. `roots` counts the beliefs of each digest."""

    beliefs: dict[str, TagBelief] = msgspec.field(default_factory=dict)
    placements: dict[Digest, Placement] = msgspec.field(default_factory=dict)
    roots: Counter[Digest] = msgspec.field(default_factory=Counter)

    def believe(self, belief: TagBelief) -> None:
        self.forget(belief.tag)
        self.beliefs[belief.tag] = belief
        self.roots[belief.digest] += 1

    def forget(self, tag: str) -> None:
        before = self.beliefs.pop(tag, None)
        if before is not None:
            self.roots[before.digest] -= 1
            if not self.roots[before.digest]:
                del self.roots[before.digest]

    def drop_unnamed(self, digests: Iterable[Digest]) -> None:
        for digest in digests:
            if digest not in self.roots:
                self.placements.pop(digest, None)


class MemoryState:
    """`ports.State`, with everything there at once, so that `flush` has nothing to do.

    Args:
        clock: tells the time.
        hint: knows where a site has blobs that this state has not seen yet.
    """

    def __init__(self, clock: Clock, *, hint: Hint = _no_hint) -> None:
        self._clock = clock
        self._hint = hint
        self._places: dict[tuple[str, str], _Repository] = {}
        self._pending: dict[tuple[str, str], dict[tuple[str, str], Pending]] = {}
        self._units: dict[tuple[str, str], dict[str, Unit]] = {}
        self._events: dict[tuple[str, str | None, str | None], AcceptedEvent] = {}
        self._repositories: set[tuple[str, str]] = set()
        self._whereabouts: dict[tuple[str, Digest], list[str]] = {}
        self._created: dict[Digest, float] = {}
        self._listed: dict[tuple[str, str], dict[str, Listed]] = {}
        self._refusals: dict[tuple[str, str], ListingRefused] = {}
        self._shards: dict[tuple[str, str, int], dict[int, ShardLook]] = {}
        self._bases: dict[tuple[str, str], Base] = {}
        self._runs: dict[tuple[str, str], deque[RunRow]] = {}

    # --- reading ---

    async def beliefs(
        self, destination: str, repository: str, tags: Collection[str] | None = None
    ) -> Mapping[str, TagBelief]:
        """See `ports.State`."""
        place = self._places.get((destination, repository))
        return {} if place is None else _only(place.beliefs, tags)

    async def placements(
        self, destination: str, repository: str, digests: Collection[Digest] | None = None
    ) -> Mapping[Digest, Placement]:
        """See `ports.State`."""
        place = self._places.get((destination, repository))
        return {} if place is None else _only(place.placements, digests)

    async def pending(
        self, rule: str, destination: str, repository: str, tags: Collection[str] | None = None
    ) -> Mapping[str, Pending]:
        """See `ports.State`."""
        known = self._pending.get((rule, destination), {})
        return _only({tag: each for (place, tag), each in known.items() if place == repository}, tags)

    async def units(
        self, rule: str, destination: str | None = None, repositories: Collection[str] | None = None
    ) -> Sequence[Unit]:
        """See `ports.State`."""
        return [
            unit
            for (owner, site), units in sorted(self._units.items())
            if owner == rule and destination in {None, site}
            for _, unit in sorted(_only(units, repositories).items())
        ]

    async def knows_repository(self, site: str, repository: str) -> bool:
        """See `ports.State`."""
        return (site, repository) in self._repositories

    async def whereabouts(self, site: str, digests: Iterable[Digest]) -> Mapping[Digest, Sequence[str]]:
        """See `ports.State`; what was seen here comes before the hint."""
        found = {}
        for digest in digests:
            places = list(self._whereabouts.get((site, digest), []))
            hint = self._hint(site, digest)
            if hint is not None and hint not in places:
                places.append(hint)
            if places:
                found[digest] = places
        return found

    async def forget(self, site: str, repository: str, digests: Iterable[Digest]) -> None:
        """See `ports.State`."""
        for digest in digests:
            places = self._whereabouts.get((site, digest), [])
            if repository in places:
                places.remove(repository)

    async def created(self, digests: Iterable[Digest]) -> Mapping[Digest, float]:
        """See `ports.State`."""
        return {digest: self._created[digest] for digest in digests if digest in self._created}

    async def listed(self, site: str, repository: str) -> Mapping[str, Listed]:
        """See `ports.State`."""
        return dict(self._listed.get((site, repository), {}))

    async def listing_refusals(self, site: str, repository: str) -> Sequence[ListingRefused]:
        """See `ports.State`."""
        return [one for name in ("", repository) if (one := self._refusals.get((site, name)))]

    async def standings(self, rules: Sequence[str] | None = None) -> Sequence[Standing]:
        """See `ports.State`."""
        return [self._standing(*key) for key in sorted(self._bases) if rules is None or key[0] in rules]

    async def behind(self) -> Sequence[BehindRepository]:
        """See `ports.State`."""
        found = []
        for (rule, destination), known in sorted(self._pending.items()):
            for repository in sorted({place for (place, _), each in known.items() if not each.hold}):
                total = _pending_sum(each for each in known.values() if each.repository == repository)
                found.append(
                    BehindRepository(
                        rule,
                        destination,
                        repository,
                        total.tags,
                        total.failed,
                        total.since or 0.0,
                        total.tag,
                    )
                )
        return found

    async def events(self) -> Sequence[AcceptedEvent]:
        """See `ports.State`."""
        return sorted(self._events.values(), key=lambda event: (event.accepted_at, event.id))

    async def runs(self, rule: str, destination: str) -> Sequence[RunRow]:
        """The last runs of a rule at a destination that are remembered, latest first."""
        return list(self._runs.get((rule, destination), ()))

    # --- recording ---

    async def accept_events(
        self, events: Iterable[AcceptedEvent], *, instead_of: Collection[str] = ()
    ) -> None:
        """See `ports.State`; durable it is not."""
        await self.answer_events(instead_of)
        for event in events:
            key = (event.site, event.repository, event.tag)
            self._events[key] = merge.accept(self._events.get(key), event)

    async def answer_events(self, ids: Collection[str]) -> None:
        """See `ports.State`."""
        wanted = frozenset(ids)
        self._events = {key: event for key, event in self._events.items() if event.id not in wanted}

    def begin(self, rule: str, destination: str) -> None:
        """See `ports.State`."""
        self._bases[rule, destination] = self._begun((rule, destination), self._clock.now())

    def record(self, entry: Entry) -> None:
        """See `ports.State`."""
        now = self._clock.now()
        if not isinstance(entry, ImageSeen):  # nobody searches what ends with the process
            self._record(entry, now)

    def _record(self, entry: Entry, now: float) -> None:
        match entry:
            case Placed() | GoneAtDestination():
                self._record_placement(entry, now)
            case Missing() | Unpending():
                self._record_pending(entry, now)
            case UnitSeen(unit):
                units = self._units.setdefault((unit.rule, unit.destination), {})
                units[unit.repository] = merge.scan(units.get(unit.repository), entry, now)
            case CatalogSeen():
                self._record_catalog(entry, now)
            case Seen(site, repository, digest):
                self._repositories.add((site, repository))
                others = [place for place in self._whereabouts.get((site, digest), []) if place != repository]
                self._whereabouts[site, digest] = [repository, *others][:REPOSITORIES_KEPT]
            case Created() | Noted() | Unlisted() | ListingRefused():
                self._record_hint(entry)

    def _record_hint(self, entry: Created | Noted | Unlisted | ListingRefused) -> None:
        match entry:
            case Created(digest, at):
                self._created[digest] = at
            case Noted(site, repository, listed):
                self._repositories.add((site, repository))
                self._listed.setdefault((site, repository), {})[listed.tag] = listed
            case Unlisted(site, repository, tags):
                for tag in tags:
                    self._listed.get((site, repository), {}).pop(tag, None)
            case ListingRefused(site, repository):
                self._refusals[site, repository] = entry

    async def flush(self) -> None:
        """See `ports.State`."""

    async def close_run(self, row: RunRow) -> Standing:
        """See `ports.State`."""
        key = row.rule, row.destination
        self._runs.setdefault(key, deque(maxlen=RUNS_KEPT)).appendleft(row)
        pending = sum(not each.hold for each in self._pending.get(key, {}).values())
        base, now = self._begun(key, row.started_at), self._clock.now()
        if row.shard is None or row.narrowed:
            self._bases[key] = merge.close(base, row, pending=pending, now=now)
        else:
            count = row.shard.count
            looks = self._shards.setdefault((*key, count), {})
            looks[row.shard.index] = merge.look(looks.get(row.shard.index), row, now)
            self._bases[key] = merge.close_shard(base, [*looks.values()], count, pending=pending, now=now)
        return self._standing(*key)

    async def aclose(self) -> None:
        """See `ports.State`."""

    # --- inside ---

    def _record_placement(self, entry: Placed | GoneAtDestination, now: float) -> None:
        place = self._places.setdefault((entry.destination, entry.repository), _Repository())
        match entry:
            case Placed(_, _, belief, _, placement):
                self._repositories.add((entry.destination, entry.repository))
                known = place.beliefs.get(belief.tag)
                if merge.believe(known, belief, now) is belief:
                    place.believe(belief)
                if placement is not None:
                    place.placements[placement.digest] = placement
                named = {belief.digest} if placement is None else {belief.digest, placement.digest}
                place.drop_unnamed(named if known is None else {*named, known.digest})
                self._end_pending(
                    entry.rule, entry.destination, entry.repository, belief.tag, belief.asked_at
                )
            case GoneAtDestination(_, _, tags, seen_at):
                ended = [place.beliefs[tag] for tag in tags if tag in place.beliefs]
                ended = [belief for belief in ended if merge.ends_belief(belief, seen_at, now)]
                for belief in ended:
                    place.forget(belief.tag)
                place.drop_unnamed({belief.digest for belief in ended})

    def _record_pending(self, entry: Missing | Unpending, now: float) -> None:
        match entry:
            case Missing(rule, destination, pending):
                known = self._pending.setdefault((rule, destination), {})
                key = pending.repository, pending.tag
                place = self._places.get((destination, pending.repository))
                belief = None if place is None else place.beliefs.get(pending.tag)
                merged = merge.pend(known.get(key), merge.clean_pending(pending), belief, now)
                if merged is not None:
                    known[key] = merged
            case Unpending(rule, destination, repository, tag, asked_at):
                self._end_pending(rule, destination, repository, tag, asked_at)

    def _end_pending(self, rule: str, destination: str, repository: str, tag: str, asked_at: float) -> None:
        known = self._pending.get((rule, destination), {})
        before = known.get((repository, tag))
        if before is not None and merge.ends_pending(before, asked_at, self._clock.now()):
            del known[repository, tag]

    def _record_catalog(self, entry: CatalogSeen, now: float) -> None:
        key = entry.rule, entry.destination
        base = self._begun(key, now)
        at = merge.past(base.catalog_at, now)
        if entry.is_looked_at:
            base = base._replace(catalog_at=entry.at if at is None else max(at, entry.at))
        self._bases[key] = base
        self._units[key] = {
            name: unit
            for name, unit in self._units.get(key, {}).items()
            if merge.outlives(name, unit.asked_at, entry, now)
        }
        self._pending[key] = {
            place: each
            for place, each in self._pending.get(key, {}).items()
            if not each.source or merge.outlives(each.source, each.asked_at, entry, now)
        }

    def _begun(self, key: tuple[str, str], first_seen: float) -> Base:
        base = self._bases.get(key, Base(first_seen))
        return base._replace(first_seen=first_seen) if is_ahead(self._clock.now(), base.first_seen) else base

    def _standing(self, rule: str, destination: str) -> Standing:
        now, key = self._clock.now(), (rule, destination)
        pending = _pending_sum(self._pending.get(key, {}).values())
        units = _unit_sum(self._units.get(key, {}).values(), now)
        return merge.standing(rule, destination, self._bases[key], pending, units, now)


def _only(known: Mapping[_K, _V], keys: Collection[_K] | None) -> dict[_K, _V]:
    return dict(known) if keys is None else {key: known[key] for key in keys if key in known}


def _pending_sum(pending: Iterable[Pending]) -> PendingSum:
    every = [each for each in pending if not each.hold]
    if not every:
        return PendingSum()
    oldest = min(every, key=lambda each: (each.since, each.repository, each.tag))
    failed = sum(each.attempts > 0 for each in every)
    return PendingSum(len(every), failed, oldest.since, oldest.repository, oldest.tag)


def _unit_sum(units: Iterable[Unit], now: float) -> UnitSum:
    every = list(units)
    if not every:
        return UnitSum()
    times = [(merge.complete_at(unit, now) or 0.0, unit.repository) for unit in every]
    oldest, repository = min(times)
    return UnitSum(
        len(every),
        sum(unit.in_step for unit in every),
        sum(unit.held for unit in every),
        sum(unit.unknown for unit in every),
        oldest or None,
        repository,
    )
