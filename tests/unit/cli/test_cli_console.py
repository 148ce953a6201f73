"""Progress without a terminal: a line at intervals."""

import asyncio
import logging

import pytest

from replicator.cli import console
from replicator.events import ScanMoved
from replicator.runs.progress import Progress
from tests.fakes.clock import FakeClock


async def test_pipes_get_a_line_at_intervals_and_none_after_the_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waits: asyncio.Queue[float] = asyncio.Queue()
    turns = asyncio.Semaphore(0)

    async def sleep(seconds: float) -> None:
        waits.put_nowait(seconds)
        await turns.acquire()

    monkeypatch.setattr(asyncio, "sleep", sleep)
    caplog.set_level(logging.INFO)
    progress = Progress(FakeClock().monotonic)
    progress(ScanMoved("platform", "hub", 3, 10, is_listed=False))
    async with console.shown(progress, display=False):
        for _ in range(3):
            assert await waits.get() == 10.0
            turns.release()
        await waits.get()
    assert [each.getMessage() for each in caplog.records] == ["progress"] * 3
    assert vars(caplog.records[0])["fields"]["scanned"] == "3/10"
