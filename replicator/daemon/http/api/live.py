"""Throughput of each flow and progress of each run now, as a subscriber to `Events`."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from replicator.events import (
    BytesWritten,
    Event,
    ImagePrepared,
    QuotaSeen,
    RunEnded,
    RunStarted,
    TagDone,
    TagPlanned,
)
from replicator.ports import Clock

WINDOW_SECONDS: Final = 10


@dataclass(slots=True)
class Progress:
    """Progress of one rule's run at one destination. `bytes_planned` is an upper bound for the images known so far.

    `bytes_before`: bytes written from its source to the destination before it began.
    """

    tags_planned: int = 0
    tags_done: int = 0
    tags_failed: int = 0
    bytes_planned: int = 0
    bytes_before: int = 0


@dataclass(slots=True)
class _Flow:
    seconds: deque[tuple[int, int]] = field(default_factory=deque)
    """Bytes written in each of the last seconds that had any."""
    total: int = 0
    """Bytes written since the agent began."""

    def add(self, second: int, count: int) -> None:
        self.total += count
        if self.seconds and self.seconds[-1][0] == second:
            count += self.seconds.pop()[1]
        self.seconds.append((second, count))
        self.trim(second)

    def trim(self, second: int) -> None:
        while self.seconds and self.seconds[0][0] <= second - WINDOW_SECONDS:
            self.seconds.popleft()


class Live:
    """Bounded by the config: one entry per flow, per rule and destination, and per site."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._flows: dict[tuple[str, str], _Flow] = {}
        self._progress: dict[tuple[str, str], Progress] = {}
        self.quotas: dict[str, int] = {}
        """Pulls left in the quota of a site, if it says so."""

    def __call__(self, event: Event) -> None:
        """Takes one event."""
        match event:
            case BytesWritten():
                flow = self._flows.setdefault((event.source, event.destination), _Flow())
                flow.add(int(self._clock.monotonic()), event.count)
            case ImagePrepared():
                self.progress(event.rule, event.destination).bytes_planned += event.count
            case TagPlanned():
                self.progress(event.rule, event.destination).tags_planned += 1
            case TagDone(action="copy" | "hold"):
                progress = self.progress(event.rule, event.destination)
                progress.tags_done += 1
                progress.tags_failed += event.outcome == "failed"
            case RunStarted():
                for destination in event.destinations:
                    self._begin(event, destination)
            case RunEnded(outcome="interrupted"):
                progress = self.progress(event.rule, event.destination)
                progress.tags_planned = progress.tags_done  # the rest belongs to another run
            case QuotaSeen():
                self.quotas[event.site] = event.remaining

    def _begin(self, event: RunStarted, destination: str) -> None:
        """Resets the counts; but a run for an event is counted with the run during which it begins."""
        last = self.progress(event.rule, destination)
        if event.repositories is None or last.tags_done >= last.tags_planned:
            before = self._total(event.source, destination)
            self._progress[event.rule, destination] = Progress(bytes_before=before)

    def progress(self, rule: str, destination: str) -> Progress:
        """Progress of the rule's last run at the destination, with runs for events that began during it."""
        return self._progress.setdefault((rule, destination), Progress())

    def written(self, rule: str, source: str, destination: str) -> int:
        """Bytes written from the rule's source to the destination since the rule's last run there began.

        By all rules that copy between these sites: a blob that several rules need is copied once.
        """
        return self._total(source, destination) - self.progress(rule, destination).bytes_before

    def rate(self, source: str, destination: str) -> float:
        """Bytes per second written from one to the other, over the last ten seconds."""
        flow = self._flows.get((source, destination))
        if flow is None:
            return 0.0
        flow.trim(int(self._clock.monotonic()))
        return sum(count for _, count in flow.seconds) / WINDOW_SECONDS

    def _total(self, source: str, destination: str) -> int:
        flow = self._flows.get((source, destination))
        return 0 if flow is None else flow.total
