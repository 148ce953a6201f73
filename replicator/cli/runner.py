"""Runs a command's coroutine, and what signals do meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, Final

from replicator.cli.logs import log
from replicator.engine import RunResult
from replicator.report import failed

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR: Final = "\x1b[?25h"
_STARTED_SECONDS: Final = 1.0
"""By then all that a command needs is imported."""


def run_async(main: Coroutine[Any, Any, int]) -> int:
    """Runs `main` to its exit code, on uvloop where that is installed.

    SIGINT (raised as KeyboardInterrupt) and SIGTERM (143) cancel it, so that everything is closed on the way out.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.get_loop().call_later(_STARTED_SECONDS, gc.enable)  # off since `cli.__main__.main`
        return runner.run(_cancelled_by_sigterm(main))


class Drain:
    """How a run is being ended: `code` is the exit code of the signal that came, None while none did."""

    code: int | None = None


@contextlib.contextmanager
def draining(drain: Callable[[], None], *, level: int = logging.WARNING) -> Iterator[Drain]:
    """While the context lasts, the first SIGINT or SIGTERM calls `drain`, and a second one ends the process at once.

    `level`: as what the first is logged.
    """
    loop = asyncio.get_running_loop()
    state = Drain()
    before = {each: signal.getsignal(each) for each in _SIGNALS}

    def begin(number: signal.Signals) -> None:
        state.code = 128 + number
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
            signal.signal(each, _end_at_once)
        log(
            level,
            f"{number.name}: no new work; what is under way may end, a second signal ends it at once",
        )
        drain()

    for each in _SIGNALS:
        loop.add_signal_handler(each, begin, each)
    try:
        yield state
    finally:
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
            signal.signal(each, before[each])


def exit_code(result: RunResult, drain: Drain) -> int:
    """A run's: the signal's where one came, also where all was done by then; the report tells which."""
    if drain.code is not None:
        return drain.code
    return 1 if failed(result) else 0


def _end_at_once(number: int, _frame: FrameType | None) -> None:
    """Nothing is tidied up: the state is safe against a kill, and so are destinations."""
    if sys.stderr.isatty():
        os.write(2, _SHOW_CURSOR.encode())
    os._exit(128 + number)


async def _cancelled_by_sigterm(main: Coroutine[Any, Any, int]) -> int:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        if task is not None:
            task.cancel()

    loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await main
    except asyncio.CancelledError:
        if terminated:
            return 128 + signal.SIGTERM
        raise


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - an extra, and only where a loop is run
    except ImportError:
        return None
    return uvloop.new_event_loop
