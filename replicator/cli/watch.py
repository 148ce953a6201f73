"""The events of one command and their subscribers."""

from __future__ import annotations

import time

import msgspec

from replicator.cli.console import has_display
from replicator.cli.logs import configure, log_event, logged_events
from replicator.cli.options import Invocation
from replicator.engine.accounting import COUNTED_REQUESTS, count_request
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.report import COUNTED, RunCounts
from replicator.runs.progress import FOLLOWED, Progress


class Watch(msgspec.Struct, frozen=True):
    """The events of one command and their subscribers. `display`: whether live progress is shown."""

    display: bool
    clock: SystemClock = msgspec.field(default_factory=SystemClock)
    events: Events = msgspec.field(default_factory=Events)
    counts: RunCounts = msgspec.field(default_factory=RunCounts)
    progress: Progress = msgspec.field(default_factory=lambda: Progress(time.monotonic))

    @classmethod
    def start(cls, invocation: Invocation, *, quiet: bool = False) -> Watch:
        """Configures logging and subscribes log, totals and progress. `quiet`: no live progress, even on a terminal."""
        watch = cls(display=not quiet and has_display() and invocation.log_format == "text")
        configure(invocation.log_format, invocation.verbose, display=watch.display)
        watch.events.subscribe(log_event, to=logged_events())
        watch.events.subscribe(watch.counts, to=COUNTED)
        watch.events.subscribe(count_request, to=COUNTED_REQUESTS)
        watch.events.subscribe(watch.progress, to=FOLLOWED)
        return watch
