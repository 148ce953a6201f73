"""The events of one command and their subscribers."""

from __future__ import annotations

import time

import msgspec

from replicator.cli.console import has_display
from replicator.cli.logs import configure, log_event, logs_requests
from replicator.cli.options import Invocation
from replicator.engine.accounting import count_request
from replicator.events import OF_EACH_REQUEST, Events, InFlight
from replicator.flow.clock import SystemClock
from replicator.report import RunCounts
from replicator.runs.progress import Progress


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
        watch.events.subscribe(log_event, but={InFlight} if logs_requests() else OF_EACH_REQUEST)
        watch.events.subscribe(watch.counts, but={InFlight})
        watch.events.subscribe(count_request, but={InFlight})
        watch.events.subscribe(watch.progress, but=OF_EACH_REQUEST)
        return watch
