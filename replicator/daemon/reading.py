"""Reads the config again while the agent runs: in a thread of its own, within a time limit; and what then stays."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from replicator.config.settings import Loaded
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


def with_what_stays(start: Loaded, new: Loaded) -> Loaded:
    """The new config, as far as it can be applied without a restart."""
    agent = replace(
        new.agent,
        name=start.agent.name,
        listen=start.agent.listen,
        state=start.agent.state,
        cache_path=start.agent.cache_path,
        cache_max_bytes=start.agent.cache_max_bytes,
    )
    return dataclasses.replace(
        new, agent=agent, http=replace(new.http, tls=start.http.tls), fleet=start.fleet
    )


def takes_a_restart(start: Loaded, new: Loaded) -> list[str]:
    """A warning for each key that changed since the agent started and needs a restart."""
    keys = {
        "agent.name": (start.agent.name, new.agent.name),
        "agent.listen": (start.agent.listen, new.agent.listen),
        "agent.state": (start.agent.state, new.agent.state),
        "agent.cache": (
            (start.agent.cache_path, start.agent.cache_max_bytes),
            (new.agent.cache_path, new.agent.cache_max_bytes),
        ),
        "http.tls": (start.http.tls, new.http.tls),
        "fleet": (start.fleet, new.fleet),
    }
    if start.fleet.enabled:
        keys["agent.serves"] = (start.agent.serves, new.agent.serves)
    return [f"{key} changed; restart the agent to apply it" for key, (was, now) in keys.items() if was != now]
