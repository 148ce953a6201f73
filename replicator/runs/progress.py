"""The progress of runs, by the bytes that must move to each destination. A subscriber to `Events`; asks nobody.

The bytes of a destination are those of the distinct blobs and manifests of its images, as far as these have been read:
what the destination has, mounts or gets once for many images leaves the sum as soon as that is known.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Final

import msgspec

from replicator.events import (
    BlobDone,
    BytesWritten,
    Event,
    ImagePrepared,
    RetryPlanned,
    RunEnded,
    RunStarted,
    ScanMoved,
    TagDone,
    TagPlanned,
    TagPostponed,
    TurnAwaited,
)
from replicator.runs.ledger import TRANSFERS_SHOWN, Ledger, TransferProgress

FOLLOWED: Final = frozenset(
    {
        BlobDone,
        BytesWritten,
        ImagePrepared,
        RetryPlanned,
        RunEnded,
        RunStarted,
        ScanMoved,
        TagDone,
        TagPlanned,
        TagPostponed,
        TurnAwaited,
    }
)
"""The events that `Progress` follows."""
_LONG_WAIT_SECONDS: Final = 1.0
_ASKED_TO_WAIT: Final = frozenset({"throttled", "quota"})


class WaitProgress(msgspec.Struct, frozen=True):
    """Requests that wait because a site asked for it, or limits us. `seconds`: how long yet, if it said so."""

    site: str
    requests: int
    seconds: float | None


class ScanProgress(msgspec.Struct, frozen=True):
    """A scan in progress: `scanned` of `found` repositories; more may be found unless `is_listed`.

    `unlisted`: how many of those scanned could not be listed, in whole or in part.
    """

    rule: str
    source: str
    scanned: int
    found: int
    is_listed: bool
    unlisted: int = 0


class DestinationProgress(msgspec.Struct, frozen=True):
    """One destination.

    `bytes_planned`: what must move for the images read so far; `bytes_moved` is how much of it has. `rate` in bytes per
    second. `seconds_left` None: not known, because the scan goes on or nothing moves. `tags_postponed`: failed before, and not
    tried again yet; they are in none of the other numbers.
    """

    destination: str
    tags_planned: int
    tags_done: int
    tags_failed: int
    bytes_planned: int
    bytes_moved: int
    rate: float
    seconds_left: float | None
    tags_postponed: int = 0

    @property
    def part(self) -> float:
        """How much is done, from 0 to 1: by bytes, or by tags where no bytes need to move."""
        if self.bytes_planned:
            return self.bytes_moved / self.bytes_planned
        return self.tags_done / self.tags_planned if self.tags_planned else 0.0


@dataclass
class TagCount:
    """Tags of one rule at one destination."""

    planned: int = 0
    done: int = 0
    failed: int = 0
    postponed: int = 0


@dataclass
class Progress:
    """The progress of all runs in this process. `clock` is monotonic, in seconds.

    Kept small: a destination starts anew with the first run that begins while none is in progress there.
    """

    clock: Callable[[], float]
    tags: dict[tuple[str, str], TagCount] = field(default_factory=dict)
    _ledgers: defaultdict[str, Ledger] = field(default_factory=lambda: defaultdict(Ledger))
    _scans: dict[str, ScanMoved] = field(default_factory=dict)
    _running: Counter[str] = field(default_factory=Counter)
    _awaited: Counter[str] = field(default_factory=Counter)
    _waits: dict[str, float] = field(default_factory=dict)
    """When the longest wait that a site asked for ends, by site."""

    def __call__(self, event: Event) -> None:
        """Takes one event."""
        match event:
            case BytesWritten():
                self._ledgers[event.destination].move(event, self.clock())
            case BlobDone():
                self._ledgers[event.destination].end_blob(event)
            case ImagePrepared():
                self._ledgers[event.destination].prepare(event)
            case TagPlanned():
                self.count(event.rule, event.destination).planned += 1
            case TagPostponed():
                self.count(event.rule, event.destination).postponed += 1
            case TagDone(action="copy" | "hold"):
                self._end_tag(event)
            case ScanMoved():
                self._scans[event.rule] = event
            case RunStarted() | RunEnded():
                self._follow(event)
            case TurnAwaited() | RetryPlanned():
                self._wait(event)

    def count(self, rule: str, destination: str) -> TagCount:
        """The tags of a rule at a destination, in its last run and those for events that began during it."""
        return self.tags.setdefault((rule, destination), TagCount())

    def _end_tag(self, event: TagDone) -> None:
        count = self.count(event.rule, event.destination)
        count.done += 1
        count.failed += event.outcome == "failed"
        self._ledgers[event.destination].end_image(event)

    def _follow(self, event: RunStarted | RunEnded) -> None:
        if isinstance(event, RunEnded):
            self._running[event.destination] -= 1
            if event.outcome == "interrupted":
                count = self.count(event.rule, event.destination)
                count.planned = count.done  # the rest belongs to another run
            return
        for destination in event.destinations:
            if self._running[destination] <= 0:
                self._ledgers[destination] = Ledger()
                for rule, at in [key for key in self.tags if key[1] == destination]:
                    del self.tags[rule, at]
            self._running[destination] += 1

    def _wait(self, event: TurnAwaited | RetryPlanned) -> None:
        if isinstance(event, TurnAwaited):
            self._awaited[event.site] += event.change
        elif event.reason in _ASKED_TO_WAIT:
            until = self.clock() + event.wait
            self._waits[event.site] = max(self._waits.get(event.site, 0.0), until)

    # --- facts ---

    def destinations(self) -> list[DestinationProgress]:
        """The destinations that tags are to be copied to, in the order in which that was found."""
        names = dict.fromkeys(destination for _, destination in self.tags)
        return [self.destination(name) for name in names]

    def destination(self, name: str) -> DestinationProgress:
        """One destination, all rules together."""
        counts = [count for (_, destination), count in self.tags.items() if destination == name]
        ledger = self._ledgers[name]
        planned, done = sum(each.planned for each in counts), sum(each.done for each in counts)
        return DestinationProgress(
            destination=name,
            tags_planned=planned,
            tags_done=done,
            tags_failed=sum(each.failed for each in counts),
            bytes_planned=ledger.moved + ledger.left,
            bytes_moved=ledger.moved,
            rate=round(ledger.rate.at(self.clock()), 1),
            seconds_left=self._seconds_left(ledger, planned, done),
            tags_postponed=sum(each.postponed for each in counts),
        )

    def seconds_left(self) -> float | None:
        """Until the last destination is through; None: not known for some of them."""
        unfinished = [each for each in self.destinations() if each.tags_done < each.tags_planned]
        seconds = [each.seconds_left for each in unfinished]
        known = [each for each in seconds if each is not None]
        return max(known) if known and len(known) == len(seconds) else None

    def transfers(self) -> list[TransferProgress]:
        """The largest transfers in progress, of all destinations."""
        now = self.clock()
        found = [each for name, ledger in self._ledgers.items() for each in ledger.transfers(name, now)]
        return nlargest(TRANSFERS_SHOWN, found, key=lambda each: each.size)

    def waits(self) -> list[WaitProgress]:
        """The sites that have requests wait."""
        now, found = self.clock(), []
        for site in sorted({*self._awaited, *self._waits}):
            seconds = self._waits.get(site, 0.0) - now
            if self._awaited[site] > 0 or seconds >= _LONG_WAIT_SECONDS:
                known = round(seconds, 1) if seconds > 0 else None
                found.append(WaitProgress(site, max(0, self._awaited[site]), known))
        return found

    def unlisted(self) -> dict[str, int]:
        """How many repositories of each source could not be listed by its scans in progress and the latest before."""
        found = Counter[str]()
        for each in self._scans.values():
            found[each.source] += each.unlisted
        return dict(+found)

    def scans(self) -> list[ScanProgress]:
        """The scans in progress."""
        return [
            ScanProgress(each.rule, each.source, each.scanned, each.found, each.is_listed, each.unlisted)
            for each in self._scans.values()
            if not each.is_over
        ]

    def _seconds_left(self, ledger: Ledger, planned: int, done: int) -> float | None:
        rate = ledger.rate.at(self.clock())
        if done >= planned or rate <= 0 or any(not each.is_over for each in self._scans.values()):
            return None
        unread = max(0, planned - ledger.known)
        return (ledger.left + unread * ledger.per_image) / rate


def total(destinations: Iterable[DestinationProgress]) -> DestinationProgress:
    """All destinations as one."""
    found: Sequence[DestinationProgress] = list(destinations)
    seconds = [each.seconds_left for each in found if each.seconds_left is not None]
    return DestinationProgress(
        destination="",
        tags_planned=sum(each.tags_planned for each in found),
        tags_done=sum(each.tags_done for each in found),
        tags_failed=sum(each.tags_failed for each in found),
        bytes_planned=sum(each.bytes_planned for each in found),
        bytes_moved=sum(each.bytes_moved for each in found),
        rate=sum(each.rate for each in found),
        seconds_left=max(seconds, default=None),
        tags_postponed=sum(each.tags_postponed for each in found),
    )
