"""Progress on stderr: a live display on a terminal, otherwise a plain line every ten seconds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from replicator.cli.logs import log
from replicator.report import format_bytes, format_seconds
from replicator.runs.progress import Progress, total

if TYPE_CHECKING:
    from rich.console import RenderableType

_LINE_SECONDS: Final = 10.0


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
    while True:
        await asyncio.sleep(_LINE_SECONDS)
        log(logging.INFO, "progress", **fields(progress))


def fields(progress: Progress) -> dict[str, object]:
    """The fields of a line in the log; those that say nothing now are None."""
    at, waits, scans = total(progress.destinations()), progress.waits(), progress.scans()
    left = progress.seconds_left()
    return {
        "scanned": ",".join(f"{each.scanned}/{each.found}" for each in scans) or None,
        "tags": f"{at.tags_done}/{at.tags_planned}",
        "failed": at.tags_failed or None,
        "postponed": at.tags_postponed or None,
        "unlisted": sum(progress.unlisted().values()) or None,
        "moved": f"{format_bytes(at.bytes_moved)}/{format_bytes(at.bytes_planned)}",
        "rate": f"{format_bytes(at.rate)}/s",
        "left": None if left is None else format_seconds(left),
        "waits": ",".join(each.site for each in waits) or None,
    }


def _live(progress: Progress) -> contextlib.AbstractContextManager[object]:
    # rich takes a tenth of a second to import and is needed only on terminals
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from replicator.cli.drawing import draw  # noqa: PLC0415

    console = Console(stderr=True, highlight=False)
    is_unicode = console.encoding.lower().startswith("utf")

    def render() -> RenderableType:
        # One column is left free: terminals differ in what they do after the last one.
        lines = draw(progress, console.width - 1, console.height - 1, is_unicode=is_unicode)
        text = Text(no_wrap=True, overflow="crop", end="")
        for number, line in enumerate(lines):
            text.append("\n" if number else "")
            for part in line:
                text.append(part.text, style=part.style or None)
        return text

    # transient: the display disappears at the end, and the report follows on stdout.
    return Live(get_renderable=render, console=console, refresh_per_second=5, transient=True)
