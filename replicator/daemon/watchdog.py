"""Finds runs that make no progress.

Every wait has a deadline of its own, so this is a safety net. A run makes progress when a request made for it is answered,
when bytes move between two of its sites (another run may move them for it), and when a tag is done.
"""

from __future__ import annotations

from collections.abc import Sequence

from replicator.events import BytesRead, BytesWritten, Event, RequestDone, RetryPlanned, TagDone
from replicator.ports import Clock
from replicator.runs.current import Run, current_run


class ProgressWatchdog:
    """A subscriber to `Events`. Bounded by the runs in progress and the sites.

    Args:
        clock: the time.
        seconds: a run without progress for longer is stuck.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.seconds = seconds
        self._clock = clock
        self._runs: dict[str, float] = {}
        self._sites: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Takes one event."""
        match event:
            case BytesRead():
                self._sites[event.source] = self._clock.monotonic()
            case BytesWritten():
                self._sites[event.destination] = self._clock.monotonic()
            case RequestDone() | RetryPlanned() | TagDone():
                run = current_run()
                if run is not None:
                    self._runs[run.id] = self._clock.monotonic()
            case _:
                pass

    def stuck(self, running: Sequence[Run]) -> list[Run]:
        """The runs that have made no progress for too long. A run is watched from the first call that names it."""
        now = self._clock.monotonic()
        self._runs = {run.id: self._runs.get(run.id, now) for run in running}
        return [run for run in running if now - self._last(run) > self.seconds]

    def _last(self, run: Run) -> float:
        """When a run last made progress. Bytes count if they may be for it: read at its source, or written to its destinations."""
        moved = (self._sites.get(site, 0.0) for site in (run.source, *run.left))
        return max(self._runs[run.id], *moved)
