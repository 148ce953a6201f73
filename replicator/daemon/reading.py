"""Reads the config again while the agent runs: in a thread of its own, within a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Final

from replicator.daemon.generation import Chosen
from replicator.errors import ConfigError

READING_SECONDS: Final = 30.0
"""A file that takes longer hangs: a FIFO without a writer, or a network mount whose server is gone."""


class ConfigReader:
    """Reads configs, one at a time.

    A thread that hangs in a file cannot be stopped. It is a daemon thread, so that the process can end without it, and
    no other is started while it hangs.
    """

    def __init__(self) -> None:
        self._done = threading.Event()
        self._done.set()

    async def read(self, read: Callable[[], Chosen]) -> Chosen:
        """What `read` returns.

        Raises:
            ConfigError: what `read` raised; or it took longer than `READING_SECONDS`, now or before.
        """
        if not self._done.is_set():
            raise ConfigError(["the previous reload is still reading its files; one of them hangs"])
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Chosen] = loop.create_future()

        def settle(chosen: Chosen | None, error: Exception | None) -> None:
            if result.done():
                return
            if error is not None:
                result.set_exception(error)
            elif chosen is not None:
                result.set_result(chosen)

        def work() -> None:
            chosen, problem = None, None
            try:
                chosen = read()
            except Exception as error:  # noqa: BLE001 - raised to whoever waits
                problem = error
            self._done.set()
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, chosen, problem)

        self._done.clear()
        threading.Thread(target=work, name="reload", daemon=True).start()
        try:
            async with asyncio.timeout(READING_SECONDS):
                return await result
        except TimeoutError:
            raise ConfigError(
                [f"the files could not be read within {READING_SECONDS:g} s; one of them hangs"]
            ) from None
