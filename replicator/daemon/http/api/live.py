"""Throughput of each flow and progress of each run now, as a subscriber to `Events`."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from replicator.events import BytesWritten, Event, QuotaSeen
from replicator.ports import Clock
from replicator.runs.progress import FOLLOWED, Progress

WINDOW_SECONDS: Final = 10
WATCHED: Final = FOLLOWED | {BytesWritten, QuotaSeen}
"""The events that `Live` uses."""


@dataclass(slots=True)
class _Flow:
    seconds: deque[tuple[int, int]] = field(default_factory=deque)
    """Bytes written in each of the last seconds that had any."""

    def add(self, second: int, count: int) -> None:
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
        self.progress = Progress(clock.monotonic)
        self.quotas: dict[str, int] = {}
        """Pulls left in the quota of a site, if it says so."""

    def __call__(self, event: Event) -> None:
        """Takes one event."""
        self.progress(event)
        match event:
            case BytesWritten():
                flow = self._flows.setdefault((event.source, event.destination), _Flow())
                flow.add(int(self._clock.monotonic()), event.count)
            case QuotaSeen():
                self.quotas[event.site] = event.remaining

    def rate(self, source: str, destination: str) -> float:
        """Bytes per second written from one to the other, over the last ten seconds."""
        flow = self._flows.get((source, destination))
        if flow is None:
            return 0.0
        flow.trim(int(self._clock.monotonic()))
        return sum(count for _, count in flow.seconds) / WINDOW_SECONDS
