"""Events of one site on their way to rules: when each tag is looked at, and when no longer. Pure: time is told.

distribution tells of a push by tag when the manifest is stored, which is before the tag is: who looks at once finds
the tag missing, or where it was. So a tag is looked at a moment after its event (which merges bursts as well), and
again, less and less often, until every rule that it concerns is through with it at every destination: has the digest that
the event named, or an answer that is newer than the last of `LOOKS_AFTER`. A source that is dark only delays that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

LOOKS_AFTER: Final = (0.1, 0.5, 3.0)
"""Seconds from the event; on a file system the tag is there after 10 to 20 ms, on an object store it takes longer."""
BURST_SECONDS: Final = 1.0
"""Events of one tag that come one upon the other put off its first look, but no longer than this."""
BURST_TAGS: Final = 64
"""With more tags on their way they wait for each other, until nothing came for `QUIET_SECONDS`; no longer either."""
QUIET_SECONDS: Final = 0.1
MAX_TAGS: Final = 1_000
"""With more on their way, whole repositories are looked at instead, and with too many of those the whole site."""
FLOOD_SECONDS: Final = 10.0
"""A whole is looked at when nothing came for the longest of `LOOKS_AFTER`, or after this many seconds."""
RETRY_SECONDS: Final = (3.0, 900.0)
"""What was not answered is looked at again after the first, then twice as long each time, up to the last."""
SEEN_SECONDS: Final = 10.0
"""Events that name what a look has seen so short a time ago are the tail of a burst, and cause no other look."""

RuleDestination = tuple[str, str]
"""A rule and one of its destinations."""
EventSubject = tuple[str | None, str | None]
"""Repository and tag; None for all there are."""
_EVERYTHING: Final[EventSubject] = (None, None)


@dataclass(slots=True)
class Waiting:
    """A tag that is going to be looked at, or a whole that is (`digest` None). Times in monotonic seconds.

    `digest` is what the last event named, `first` and `last` when events came, `at` the earliest event's own time
    (epoch seconds). `places`, rules and destinations, look; `seen` is what the tag was when a look of theirs asked, and
    `answered` those that the latest look is through with. `is_merged`: a whole that stands for many tags, which may all
    come too early. `id` names the event in the state, where `is_kept` says that it is.
    """

    digest: str | None
    at: float | None
    first: float
    last: float
    places: frozenset[RuleDestination]
    id: str = ""
    is_kept: bool = False
    looks: int = 0
    retries: int = 0
    looked_at: float = 0.0
    seen: dict[RuleDestination, str | None] = field(default_factory=dict)
    answered: set[RuleDestination] = field(default_factory=set)
    is_merged: bool = False

    @property
    def rules(self) -> frozenset[str]:
        """The rules that look."""
        return frozenset(rule for rule, _ in self.places)

    @property
    def due(self) -> float:
        """When it is looked at next."""
        if self.is_looked:
            first, longest = RETRY_SECONDS
            return self.looked_at + min(longest, first * 2.0 ** min(self.retries, 16))
        if self.is_merged:
            return min(self.last + LOOKS_AFTER[-1], self.first + FLOOD_SECONDS)
        if self.looks:
            return self.last + LOOKS_AFTER[self.looks]
        return min(self.last, self.first + BURST_SECONDS) + LOOKS_AFTER[0]

    @property
    def is_met(self) -> bool:
        """Whether each rule is through with what the event told; None is its word that it need not look."""
        met = (None, self.digest)
        if self.is_looked and self.places <= self.answered:
            return True
        return self.digest is not None and all(self.seen.get(place, "") in met for place in self.places)

    @property
    def is_looked(self) -> bool:
        """Whether the last of the looks that its time asks for has begun: from then on any answer will do."""
        if self.is_merged:
            return self.looks > 0
        return self.looks >= (len(LOOKS_AFTER) if self.digest is not None else 1)

    def join(self, other: Waiting) -> None:
        """A later event: what it names is what is waited for, the earliest time is what counts."""
        is_news = self.digest != other.digest and not self.is_merged
        times = [at for at in (self.at, other.at) if at is not None]
        self.at = min(times, default=None)
        if not self.looks:
            self.last = max(self.last, other.last)
        elif is_news or self.is_merged:
            self.first, self.last, self.looks, self.retries = other.first, other.last, 0, 0
        if not self.is_merged:
            self.digest = other.digest
        self.places = other.places
        if is_news or not self.is_kept:
            self.id, self.is_kept = other.id, other.is_kept

    def looked(self, now: float) -> None:
        """It is being looked at."""
        self.retries += self.is_looked
        self.looked_at = now
        self.answered.clear()
        if self.is_merged and self.last + LOOKS_AFTER[-1] > now:
            self.first = self.last  # more of it may still come
        else:
            self.looks += 1


class SiteEvents:
    """The events of one site, in bounded number."""

    def __init__(self) -> None:
        self._waiting: dict[EventSubject, Waiting] = {}
        self._seen: dict[EventSubject, tuple[str, float]] = {}
        """The digest that all rules have seen last, and until when that counts."""
        self._last = 0.0

        self.gone: list[str] = []
        """Ids of events that were merged into others."""

    def __len__(self) -> int:
        return len(self._waiting)

    def has(self, place: EventSubject) -> bool:
        """Whether an event of this waits."""
        return place in self._waiting

    def unkept(self) -> Sequence[tuple[EventSubject, Waiting]]:
        """What is not in the state yet."""
        return [(place, each) for place, each in self._waiting.items() if not each.is_kept]

    def add(self, repository: str, tag: str | None, event: Waiting) -> None:
        """An event."""
        place = self._place(repository, tag)
        if place not in self._waiting and self._is_tail(place, event):
            return
        self._forget(repository, tag)
        self._last = event.last
        self._put(place, event)
        if len(self._waiting) > MAX_TAGS:
            self._merge()

    def saw(
        self, repository: str, tag: str, by: RuleDestination, digest: str | None, *, is_absent: bool = False
    ) -> None:
        """A look is through with a tag; digest None: it had no need to ask, or the tag does not exist."""
        place = (repository, tag)
        if place in self._waiting:
            self._waiting[place].answered.add(by)
            if not is_absent:
                self._waiting[place].seen[by] = digest
        if place in self._seen and digest not in {None, self._seen[place][0]}:
            del self._seen[place]

    def scanned(self, place: EventSubject, by: RuleDestination) -> None:
        """A look is through with a whole."""
        if place in self._waiting:
            self._waiting[place].answered.add(by)

    def observed(self, rule: str) -> None:
        """A complete scan of the rule has ended."""
        waiting = self._waiting.get(_EVERYTHING)
        if waiting is not None:
            waiting.answered.update(place for place in waiting.places if place[0] == rule)

    def recall(self, place: EventSubject, event: Waiting) -> None:
        """An event that was accepted by an earlier process."""
        self._put(place, event)

    def settle(self, now: float) -> list[str]:
        """Drops what needs no further look; returns their ids."""
        ids = []
        self._seen = {place: seen for place, seen in self._seen.items() if seen[1] > now}
        for place in [place for place, each in self._waiting.items() if each.is_met]:
            waiting = self._waiting.pop(place)
            ids.append(waiting.id)
            digest = waiting.digest
            is_seen = all(waiting.seen.get(each, "") in {None, digest} for each in waiting.places)
            if digest is not None and is_seen and len(self._seen) < MAX_TAGS:
                self._seen[place] = (digest, now + SEEN_SECONDS)
        return ids

    def drop(self, place: EventSubject) -> str:
        """It is not looked at again. Returns its id."""
        waiting = self._waiting.pop(place, None)
        return "" if waiting is None else waiting.id

    def due(self, now: float) -> Sequence[tuple[EventSubject, Waiting]]:
        """What is to be looked at now; nothing while a burst is coming in."""
        if self._is_burst(now):
            return ()
        return [(place, each) for place, each in self._waiting.items() if each.due <= now]

    def seconds_left(self, now: float) -> float | None:
        """Until something is due; None where nothing waits."""
        return min((each.due - now for each in self._waiting.values()), default=None)

    def _place(self, repository: str, tag: str | None) -> EventSubject:
        """Where an event belongs: to what it was merged to, where that is so."""
        for wider in (_EVERYTHING, (repository, None)):
            if wider in self._waiting and self._waiting[wider].is_merged:
                return wider
        return (repository, tag)

    def _put(self, place: EventSubject, event: Waiting) -> None:
        known = self._waiting.get(place)
        if known is None:
            self._waiting[place] = event
        else:
            known.join(event)

    def _is_tail(self, place: EventSubject, event: Waiting) -> bool:
        digest, until = self._seen.get(place, ("", 0.0))
        return digest == event.digest and event.last < until

    def _forget(self, repository: str, tag: str | None) -> None:
        """Something else than what was seen is told of it."""
        for place in [(repository, tag)] if tag else [each for each in self._seen if each[0] == repository]:
            self._seen.pop(place, None)

    def _merge(self) -> None:
        for width in (1, 0):
            waiting, self._waiting = self._waiting, {}
            for (repository, _), each in waiting.items():
                if each.is_kept:
                    self.gone.append(each.id)
                each.digest, each.is_merged, each.looks, each.retries, each.is_kept = None, True, 0, 0, False
                self._put((repository, None) if width else _EVERYTHING, each)
            if len(self._waiting) <= MAX_TAGS // 2:
                return

    def _is_burst(self, now: float) -> bool:
        if now - self._last >= QUIET_SECONDS:
            return False
        new = [each.first for each in self._waiting.values() if not each.looks and not each.is_merged]
        return len(new) > BURST_TAGS and now - min(new) < BURST_SECONDS
