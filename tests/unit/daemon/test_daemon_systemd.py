"""What systemd is told, at the other end of its socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from replicator.daemon.systemd import AGAIN_SECONDS, Systemd
from tests.fakes.clock import FakeClock

WATCHDOG_SECONDS = 60.0


class Watched:
    """An agent that is well as long as the test says so, and the manager that watches it."""

    def __init__(self, manager: socket.socket) -> None:
        self._manager = manager
        self.clock = FakeClock()
        self.problem: str | None = None

    def health(self) -> str | None:
        return self.problem

    def told(self) -> int:
        """How often it was told that the agent is alive, since it was asked last."""
        count = 0
        while True:
            try:
                assert self._manager.recv(4096) == b"WATCHDOG=1"
            except BlockingIOError:
                return count
            count += 1


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        yield manager


@asynccontextmanager
async def watched(manager: socket.socket) -> AsyncIterator[Watched]:
    agent = Watched(manager)
    usec = str(int(WATCHDOG_SECONDS * 1_000_000))
    systemd = Systemd({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": usec})
    task = asyncio.create_task(systemd.keep_alive(agent.health, agent.clock))
    try:
        yield agent
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_watchdog_is_told_twice_as_often_as_it_asks_for(manager: socket.socket) -> None:
    async with watched(manager) as agent:
        await agent.clock.sleep(3.9 * WATCHDOG_SECONDS)  # the socket holds ten messages
        assert agent.told() == 8


async def test_watchdog_hears_nothing_of_an_agent_that_is_not_well(manager: socket.socket) -> None:
    async with watched(manager) as agent:
        await agent.clock.sleep(1)
        assert agent.told()
        agent.problem = "the scheduler has been stuck for 31 s"
        await agent.clock.sleep(4 * WATCHDOG_SECONDS)
        assert not agent.told()


async def test_agent_that_is_well_again_says_so_soon(manager: socket.socket) -> None:
    """After a stall of the whole process, the watchdog may look first: another half interval would be its end."""
    async with watched(manager) as agent:
        agent.problem = "the scheduler has been stuck for 31 s"
        await agent.clock.sleep(1)
        assert not agent.told()
        agent.problem = None
        await agent.clock.sleep(AGAIN_SECONDS)
        assert agent.told() == 1


def test_without_a_manager_nothing_is_told_and_nothing_breaks() -> None:
    for path in ("", "relative", "/nowhere/notify"):
        systemd = Systemd({"NOTIFY_SOCKET": path})
        systemd.ready("x")
        systemd.stopping("y")


def test_a_status_is_told_when_it_changes_and_is_one_line(manager: socket.socket) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": manager.getsockname()})
    for text in ("a\nREADY=0", "a\nREADY=0", "b"):
        systemd.status(text)
    assert manager.recv(100) == b"STATUS=a READY=0"
    assert manager.recv(100) == b"STATUS=b"
    with pytest.raises(BlockingIOError):
        manager.recv(100)


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_only_where_one_watches_us(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert Systemd(environ).watchdog_seconds == seconds


async def test_where_nobody_watches_nothing_is_told(manager: socket.socket) -> None:
    await Systemd({"NOTIFY_SOCKET": manager.getsockname()}).keep_alive(lambda: None, FakeClock())
    with pytest.raises(BlockingIOError):
        manager.recv(100)
