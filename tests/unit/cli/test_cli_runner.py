"""How a command's coroutine is run."""

from __future__ import annotations

import asyncio
import gc
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
        async with asyncio.timeout(10):
            while not gc.isenabled():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
        return gc.get_freeze_count() - frozen

    assert runner.run_async(command()) == 0
