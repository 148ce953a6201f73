"""What was recorded and is not in the database yet: the last word on each key, not a log of entries.

So a batch can be written kind by kind, can be put back under what came later, and can be laid over what a read
found, and it does not grow while the same things are said again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from replicator.model.digest import Digest
from replicator.ports import (
    Created,
    Entry,
    Listed,
    Missing,
    Noted,
    Pending,
    Placed,
    Seen,
    TagBelief,
    Unpending,
)

REPOSITORIES_KEPT: Final = 4
"""Repositories remembered per blob and site: enough to find one that still has it."""
_MAX_TEXT: Final = 1_000
"""Characters kept of an error."""


class Change(NamedTuple):
    """What became of one pending tag. `fresh`: what was pending before is over, its `since` with it."""

    fresh: bool
    pending: Pending | None


def latest(older: Change | None, newer: Change) -> Change:
    """Two changes as one."""
    if older is None or newer.fresh or newer.pending is None:
        return newer
    return Change(older.fresh, _since_first(older.pending, newer.pending))


def _since_first(older: Pending | None, newer: Pending) -> Pending:
    if older is None or older.since >= newer.since:
        return newer
    return msgspec.structs.replace(newer, since=older.since)


@dataclass(slots=True)
class Batch:
    """See the module. Keys are (destination or site, repository), (rule, destination, repository), (site, digest)."""

    beliefs: dict[tuple[str, str], dict[str, TagBelief]] = field(default_factory=dict)
    pending: dict[tuple[str, str, str], dict[str, Change]] = field(default_factory=dict)
    seen: dict[tuple[str, Digest], dict[str, float | None]] = field(default_factory=dict)
    created: dict[Digest, float] = field(default_factory=dict)
    listed: dict[tuple[str, str], dict[str, Listed]] = field(default_factory=dict)
    begun: dict[tuple[str, str], float] = field(default_factory=dict)
    repositories: set[tuple[str, str]] = field(default_factory=set)
    size: int = 0

    def add(self, entry: Entry, now: float) -> None:
        """Takes an entry; of two about one thing the later wins. An entry whose names are no text is left out."""
        if not all(_is_text(name) for name in _foreign_text(entry)):
            return
        match entry:
            case Seen(site, repository, digest):
                self.see(site, repository, digest, now)
            case Created(digest, at):
                self.create(digest, at)
            case Noted(site, repository, listed):
                self.note(site, repository, listed)
            case Placed(rule, destination, belief, repository, _):
                self.believe(destination, repository, belief)
                self.change((rule, destination, repository), belief.tag, Change(fresh=True, pending=None))
            case Missing(rule, destination, pending):
                key = (rule, destination, pending.repository)
                self.change(key, pending.tag, Change(fresh=False, pending=_clean(pending)))
            case Unpending(rule, destination, repository, tag, _):
                self.change((rule, destination, repository), tag, Change(fresh=True, pending=None))

    def believe(self, destination: str, repository: str, belief: TagBelief) -> None:
        """A tag is in step."""
        tags = self.beliefs.setdefault((destination, repository), {})
        self.size += belief.tag not in tags
        tags[belief.tag] = belief
        self.repositories.add((destination, repository))

    def change(self, key: tuple[str, str, str], tag: str, change: Change) -> None:
        """A tag is pending, or no longer."""
        tags = self.pending.setdefault(key, {})
        self.size += tag not in tags
        tags[tag] = latest(tags.get(tag), change)

    def see(self, site: str, repository: str, digest: Digest, at: float | None) -> None:
        """A blob was seen at `at`; None: it is not there after all."""
        places = self.seen.setdefault((site, digest), {})
        self.size += repository not in places
        places[repository] = at
        if at is not None:
            self.repositories.add((site, repository))

    def note(self, site: str, repository: str, listed: Listed) -> None:
        """A listing said what a tag names."""
        tags = self.listed.setdefault((site, repository), {})
        self.size += listed.tag not in tags
        tags[listed.tag] = listed
        self.repositories.add((site, repository))

    def begin(self, rule: str, destination: str, now: float) -> None:
        """A rule runs with a destination."""
        self.size += (rule, destination) not in self.begun
        self.begun.setdefault((rule, destination), now)

    def create(self, digest: Digest, at: float) -> None:
        """An image was created at `at`."""
        self.size += digest not in self.created
        self.created[digest] = at

    def absorb(self, newer: Batch) -> None:
        """Takes everything of a batch that came later."""
        self._absorb_tags(newer)
        for (site, digest), places in newer.seen.items():
            for repository, at in places.items():
                self.see(site, repository, digest, at)
        for digest, at in newer.created.items():
            self.create(digest, at)
        for (rule, destination), at in newer.begun.items():
            self.begin(rule, destination, at)
        self.repositories |= newer.repositories

    def _absorb_tags(self, newer: Batch) -> None:
        for (destination, repository), tags in newer.beliefs.items():
            for belief in tags.values():
                self.believe(destination, repository, belief)
        for key, changes in newer.pending.items():
            for tag, change in changes.items():
                self.change(key, tag, change)
        for (site, repository), listings in newer.listed.items():
            for listed in listings.values():
                self.note(site, repository, listed)

    def over_beliefs(
        self, found: dict[str, TagBelief], destination: str, repository: str
    ) -> dict[str, TagBelief]:
        """What was found in the database, brought up to date."""
        return found | self.beliefs.get((destination, repository), {})

    def over_pending(self, found: dict[str, Pending], key: tuple[str, str, str]) -> dict[str, Pending]:
        """As `over_beliefs`."""
        for tag, change in self.pending.get(key, {}).items():
            before = latest(Change(fresh=True, pending=found.pop(tag, None)), change).pending
            if before is not None:
                found[tag] = before
        return found

    def over_whereabouts(
        self, found: MutableMapping[Digest, dict[str, float]], site: str, digests: Iterable[Digest]
    ) -> Mapping[Digest, Sequence[str]]:
        """As `over_beliefs`; the latest first, no more than are kept, no digest without any."""
        result = {}
        for digest in digests:
            places: dict[str, float | None] = {**found.get(digest, {}), **self.seen.get((site, digest), {})}
            known = sorted(((at, place) for place, at in places.items() if at is not None), reverse=True)
            if known:
                result[digest] = [place for _, place in known[:REPOSITORIES_KEPT]]
        return result


def _foreign_text(entry: Entry) -> tuple[str, ...]:
    """What of an entry came from a registry as it is."""
    match entry:
        case Placed():
            return (entry.repository, entry.belief.tag)
        case Missing():
            return (entry.pending.repository, entry.pending.tag)
        case Unpending():
            return (entry.repository, entry.tag)
        case Noted():
            return (entry.repository, entry.listed.tag, entry.listed.version)
        case Seen():
            return (entry.repository,)
        case Created():
            return ()


def _is_text(name: str) -> bool:
    """Whether SQLite takes the name. JSON from a registry may carry lone surrogates, which would spoil a whole batch."""
    return name.isascii() or name.encode("utf-8", "ignore").decode() == name


def _clean(pending: Pending) -> Pending:
    if len(pending.error) <= _MAX_TEXT and pending.error.isascii():
        return pending
    return msgspec.structs.replace(pending, error=clean(pending.error))


def clean(text: str) -> str:
    """An error as it is kept: cut, and storable."""
    return text[:_MAX_TEXT].encode("utf-8", "replace").decode()
