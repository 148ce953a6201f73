"""Progress on stderr: a live display on a terminal, otherwise a plain line every ten seconds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from replicator.cli.logs import log
from replicator.events import BytesRead, BytesSaved, BytesWritten, Event, ImagePrepared, TagDone, TagPlanned
from replicator.report import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

_LINE_SECONDS: Final = 10.0
_WINDOW_SECONDS: Final = 10.0


@dataclass
class Row:
    """Tags of one rule at one destination."""

    planned: int = 0
    done: int = 0
    failed: int = 0


@dataclass
class Progress:
    """The progress of a run, as a subscriber to `Events`. Bytes are counted as they move."""

    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_saved: int = 0
    bytes_prepared: int = 0
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    def __call__(self, event: Event) -> None:
        """Counts one event."""
        match event:
            case BytesRead(count=count):
                self.bytes_read += count
            case BytesWritten(count=count):
                self.bytes_written += count
            case BytesSaved(count=count, reason="present" | "mounted"):
                self.bytes_saved += count  # "shared" saves only a read; the bytes are still written
            case ImagePrepared(count=count):
                self.bytes_prepared += count
            case TagPlanned():
                self._row(event.rule, event.destination).planned += 1
            case TagDone(action="copy"):
                row = self._row(event.rule, event.destination)
                row.done += 1
                row.failed += event.outcome == "failed"

    def rate(self, now: float) -> float:
        """Bytes written per second over the last ten seconds. `now` is monotonic; call it at every redraw."""
        self._samples.append((now, self.bytes_written))
        while now - self._samples[0][0] > _WINDOW_SECONDS and len(self._samples) > 2:
            self._samples.popleft()
        since, written = self._samples[0]
        return (self.bytes_written - written) / (now - since) if now > since else 0.0

    def left(self, rate: float) -> float | None:
        """Seconds left at this rate for the bytes known to remain; None if unknown."""
        bytes_left = self.bytes_prepared - self.bytes_written - self.bytes_saved
        if all(row.done >= row.planned for row in self.rows.values()) or bytes_left <= 0 or rate <= 0:
            return None
        return bytes_left / rate

    def tags(self) -> tuple[int, int]:
        """Tags done and tags planned, in total."""
        rows = self.rows.values()
        return sum(row.done for row in rows), sum(row.planned for row in rows)

    def _row(self, rule: str, destination: str) -> Row:
        return self.rows.setdefault((rule, destination), Row())


def has_display() -> bool:
    """Whether stderr is a terminal that can show a live display."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@contextlib.asynccontextmanager
async def shown(progress: Progress, *, display: bool) -> AsyncIterator[None]:
    """Shows the progress while the body runs."""
    if display:
        with _live(progress):
            yield
        return
    lines = asyncio.create_task(_lines(progress))
    try:
        yield
    finally:
        lines.cancel()


async def _lines(progress: Progress) -> None:
    """A line every ten seconds."""
    progress.rate(time.monotonic())  # the start of the first line's rate
    while True:
        await asyncio.sleep(_LINE_SECONDS)
        rate = progress.rate(time.monotonic())
        left = progress.left(rate)
        done, planned = progress.tags()
        log(
            logging.INFO,
            "progress",
            tags=f"{done}/{planned}",
            read=format_bytes(progress.bytes_read),
            written=format_bytes(progress.bytes_written),
            rate=f"{format_bytes(rate)}/s",
            left=None if left is None else format_seconds(left),
        )


def _live(progress: Progress) -> contextlib.AbstractContextManager[object]:
    # rich takes a tenth of a second to import and is needed only on terminals
    from rich.console import Console, Group  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415
    from rich.progress_bar import ProgressBar  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    def draw() -> RenderableType:
        rate = progress.rate(time.monotonic())
        grid = Table.grid(padding=(0, 1))
        for (rule, destination), row in list(progress.rows.items()):
            grid.add_row(
                Text(f"{rule}: {destination}" if rule else destination),
                ProgressBar(total=max(row.planned, 1), completed=row.done, width=30),
                Text(f"{row.done}/{row.planned} tags"),
                Text(f"{row.failed} failed" if row.failed else "", style="red"),
            )
        return Group(grid, Text(summary(progress, rate)))

    # transient: the display disappears at the end, and the report follows on stdout.
    return Live(get_renderable=draw, console=Console(stderr=True), refresh_per_second=5, transient=True)


def summary(progress: Progress, rate: float) -> str:
    """One line: bytes, rate, time left."""
    text = (
        f"{format_bytes(progress.bytes_read)} read, {format_bytes(progress.bytes_written)} written,"
        f" {format_bytes(progress.bytes_saved)} saved, {format_bytes(rate)}/s"
    )
    left = progress.left(rate)
    return text if left is None else f"{text}, {format_seconds(left)} left"
