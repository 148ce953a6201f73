"""How a command's coroutine is run."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from replicator.cli import runner


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    """As `main` leaves it for the start."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_garbage_collection")
def test_garbage_is_collected_once_a_command_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """And all of it: what a run that is under way by then has made becomes garbage, too."""
    monkeypatch.setattr(runner, "_STARTED_SECONDS", 0.0)
    frozen = gc.get_freeze_count()

    async def command() -> int:
        async with asyncio.timeout(30):
            while not gc.isenabled():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
        return gc.get_freeze_count() - frozen

    assert runner.run_async(command()) == 0


HANGS = {
    "the loop": "time.sleep(300)",
    "a task": "await stubborn()",
    "a thread": "threading.Thread(target=time.sleep, args=(300,)).start()",
    "a thread of the loop": "asyncio.get_running_loop().run_in_executor(None, time.sleep, 300)",
}
PROGRAM = """
import asyncio, os, signal, threading, time
from replicator.cli import logs, runner

async def stubborn():
    while True:
        try:
            await asyncio.sleep(300)
        except asyncio.CancelledError:
            pass

async def command():
    stop = asyncio.Event()
    with runner.draining(stop.set, limit=0.1):
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
    {hang}
    return 0

raise SystemExit(runner.run_async(command()))
"""


@pytest.mark.parametrize("what", HANGS)
def test_a_process_that_hangs_while_it_stops_ends_in_time(what: str) -> None:
    program = PROGRAM.format(hang=HANGS[what])
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 128 + signal.SIGTERM, ended.stderr
    assert "not stopped within 0.1 s of the signal; stopping immediately" in ended.stderr


def test_a_process_that_stops_in_time_is_left_alone() -> None:
    program = PROGRAM.format(hang="pass").replace("limit=0.1", "limit=300")
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
