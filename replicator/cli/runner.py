"""Runs the coroutine of a command and handles signals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, Final

from replicator.cli.logs import log
from replicator.engine.result import RunResult
from replicator.report import failed

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR: Final = "\x1b[?25h"
_STARTED_SECONDS: Final = 1.0
"""After this time, all imports of a command are done."""
_COLLECTED_OBJECTS: Final = 10_000
"""So many new objects start a garbage collection. Python's 700 start one for every other small image: an image in
progress has hundreds, nearly all of which go without the collector, and looking at them was 7 % of the CPU time.
"""
_LAST_WORDS_SECONDS: Final = 1.0


def run_async(main: Coroutine[Any, Any, int]) -> int:
    """Runs `main` and returns its exit code. Uses uvloop if it is installed.

    SIGINT (raised as KeyboardInterrupt) and SIGTERM (143) cancel `main`, so that everything is closed.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        gc.set_threshold(_COLLECTED_OBJECTS)
        runner.get_loop().call_later(_STARTED_SECONDS, gc.enable)  # off since `cli.__main__.main`
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # since then, too
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return runner.run(_cancelled_by_sigterm(main))


class Drain:
    """The state of a graceful stop: `code` is the exit code for the received signal, None if there was none."""

    code: int | None = None


@contextlib.contextmanager
def draining(
    drain: Callable[[], None], *, level: int = logging.WARNING, limit: float | None = None
) -> Iterator[Drain]:
    """In the context, the first SIGINT or SIGTERM calls `drain`, and the second stops the process immediately.

    `level`: the log level of the message for the first signal. `limit`: seconds from the first signal until the process
    is stopped as by a second one, whatever it does then, also after the context.
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
            f"{number.name}: finishing transfers in progress; send the signal again to stop immediately",
        )
        if limit is not None:
            _end_in_any_case(number, limit)
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
    """The exit code of a run. After a signal it is the signal's, even if the run was complete; the report says so."""
    if drain.code is not None:
        return drain.code
    return 1 if failed(result) else 0


def _end_at_once(number: int, _frame: FrameType | None) -> None:
    """Exits without cleaning up: the state and the destinations survive a kill."""
    if sys.stderr.isatty():
        os.write(2, _SHOW_CURSOR.encode())
    os._exit(128 + number)


def _end_in_any_case(number: int, seconds: float) -> None:
    """Ends the process after this time: by a thread, for the event loop may be what hangs."""

    def end() -> None:
        text = f"not stopped within {seconds:g} s of the signal; stopping immediately"
        words = threading.Thread(target=log, args=(logging.ERROR, text), daemon=True)
        words.start()
        words.join(_LAST_WORDS_SECONDS)  # whoever reads stderr may hang, too
        _end_at_once(number, None)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


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
