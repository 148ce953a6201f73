"""Finds runs that make no progress.

Every wait has a deadline of its own, so this is a safety net. A run makes progress when a request made for it is answered,
when bytes move between two of its sites (another run may move them for it), and when a tag is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from replicator.daemon.runs import Runs
from replicator.events import BytesRead, BytesWritten, Event, Events, RequestDone, RetryPlanned, TagDone
from replicator.events.agent import RunStuck
from replicator.ports import Clock
from replicator.report import format_seconds
from replicator.runs.current import Run, current_run

_log = logging.getLogger(__name__)


PROGRESS: Final = frozenset({BytesRead, BytesWritten, RequestDone, RetryPlanned, TagDone})
"""The events that a watchdog uses."""


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


class StuckRuns:
    """Runs that are ended because they make no progress, and their rules.

    Args:
        events: tell of progress, and are told of runs that made none.
        clock: the time.
        runs: of this agent.
        seconds: a run without progress for longer is stuck.
    """

    def __init__(self, events: Events, clock: Clock, runs: Runs, seconds: float) -> None:
        self._events = events
        self._clock = clock
        self._runs = runs
        self._watchdog = ProgressWatchdog(clock, seconds)
        self._ended: dict[str, float] = {}
        """By rule, when (epoch seconds)."""
        events.subscribe(self._watchdog, to=PROGRESS)

    @property
    def seconds(self) -> float:
        """As the argument; may be set."""
        return self._watchdog.seconds

    @seconds.setter
    def seconds(self, seconds: float) -> None:
        self._watchdog.seconds = seconds

    @property
    def rules(self) -> Sequence[str]:
        """The rules with a run that was ended, until one that began later has ended otherwise."""
        return sorted(self._ended)

    def end(self, end: Callable[[Run, str], bool]) -> bool:
        """Ends runs without progress by `end`, which gets the reason. Returns whether there were any."""
        found = False
        for run in self._watchdog.stuck(self._runs.running):
            problem = f"no progress for {format_seconds(self.seconds)}; ended, will be retried later"
            if end(run, problem):
                found = True
                self._ended[run.rule] = self._clock.now()
                self._events.emit(RunStuck(run.rule))
                _log.error("rule %s: %s", run.rule, problem, extra={"fields": {"run": run.id}})
        for rule, at in list(self._ended.items()):
            if any(run.rule == rule and run.started_at >= at for run in self._runs.recent):
                del self._ended[rule]  # if that one was stuck as well, `at` would be later
        return found
