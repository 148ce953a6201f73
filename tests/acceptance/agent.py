"""A running agent: its config, its signals, what it tells systemd, what it says over HTTP."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.acceptance.program import Ended, Program, Running

PATIENCE_SECONDS = 60.0
TURN_SECONDS = 0.02


class NotifySocket:
    """The service manager's side of sd_notify."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{path[1:]}" if path.startswith("@") else path)
        self._socket.setblocking(False)
        self.path = path
        self.messages: list[dict[str, str]] = []
        """Everything told so far, each message as its assignments."""

    async def receives(self, **fields: str) -> dict[str, str]:
        """Returns the first message from now on that has all of these."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                text = (await loop.sock_recv(self._socket, 65536)).decode()
                message = dict(line.split("=", 1) for line in text.splitlines())
                self.messages.append(message)
                if fields.items() <= message.items():
                    return message

    def close(self) -> None:
        self._socket.close()


class Agent:
    """`replicator run` as a process."""

    def __init__(self, running: Running, url: str, session: aiohttp.ClientSession) -> None:
        self._running = running
        self.url = url
        self._session = session

    def signal(self, number: signal.Signals) -> None:
        self._running.signal(number)

    async def says(self, text: str) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._running.says(text)

    async def end(self) -> Ended:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._running.end()

    @property
    def pid(self) -> int:
        return self._running.process.pid

    async def metrics(self) -> dict[str, float]:
        """All samples, by name and labels as they are written."""
        async with self._session.get(f"{self.url}/metrics") as response:
            assert response.status == 200
            lines = (await response.text()).splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    async def metric(self, name: str, is_right: Callable[[float], bool]) -> float:
        """The sample, once it is right."""
        value: float | None = None
        for _ in range(int(PATIENCE_SECONDS / TURN_SECONDS)):
            value = (await self.metrics()).get(name)
            if value is not None and is_right(value):
                return value
            await asyncio.sleep(TURN_SECONDS)
        raise AssertionError(f"{name} stayed {value}")


@asynccontextmanager
async def running_agent(
    program: Program, *arguments: str, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Agent]:
    """An agent that listens; killed at the end where it still lives."""
    async with (
        program.started("run", "--log-format", "json", *arguments, environ=environ) as running,
        aiohttp.ClientSession() as session,
    ):
        async with asyncio.timeout(PATIENCE_SECONDS):
            line = await running.says('"message":"listening"')
        url = line.split('"url":"')[1].split('"')[0]
        yield Agent(running, url.rstrip("/"), session)


def write_agent(program: Program, sites: Mapping[str, str], rules: str, more: str = "") -> Path:
    """A config of an agent on a free port."""
    path = program.write_config(sites, rules + more)
    path.write_text(path.read_text().replace("[agent]\n", '[agent]\nlisten = "127.0.0.1:0"\n', 1))
    return path
