"""Connections are opened before requests need them, and none that no request needs."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from replicator.flow.retry import Budget
from replicator.sites.registry.http import Call
from replicator.sites.timeouts import Timeouts
from tests.fakes.scripted import Rig, head_of, raw, rig

PATIENT = Timeouts(connect=20.0, first_byte=20.0, read=20.0, commit=20.0)
ONCE = Budget(attempts=1)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Server:
    """Answers the ping, and then everything else, once as many connections are open as it is told to wait for."""

    def __init__(self, *, at_ping: int = 1, at_request: int = 1) -> None:
        self.at_ping = at_ping
        self.at_request = at_request
        self.connections = 0
        self.requests = 0
        self._changed = asyncio.Condition()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        async with self._changed:
            self._changed.notify_all()
        while True:
            is_ping = (await head_of(reader)).startswith(b"GET /v2/ ")
            self.requests += not is_ping
            await self.opened(self.at_ping if is_ping else self.at_request)
            writer.write(HEAD)

    async def opened(self, count: int) -> None:
        """Returns when so many connections have been opened."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: self.connections >= count)


async def _heads(here: Rig, count: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            call = Call("resolve", "HEAD", f"/v2/a/manifests/v{number}", repository="a")
            tasks.create_task(here.transport.request(call))


@pytest.mark.parametrize(
    ("requests", "concurrency", "connections"),
    [(1, 64, 1), (8, 64, 8), (40, 64, 16), (40, 3, 3), (40, 1, 1)],
    ids=[
        "one request",
        "as many as wait",
        "as many as the gate lets through",
        "small limit",
        "one at a time",
    ],
)
async def test_connections_are_opened_while_the_ping_is_awaited(
    requests: int, concurrency: int, connections: int
) -> None:
    server = Server(at_ping=connections)  # the ping is not answered before they are open
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(raw(server.talk))
        here = await stack.enter_async_context(
            rig(url, concurrency=concurrency, timeouts=PATIENT, budget=ONCE)
        )
        await _heads(here, requests)
    assert server.requests == requests
    assert server.connections <= (connections if concurrency < 16 or requests < 16 else 40)


async def test_connections_are_opened_before_the_gate_widens() -> None:
    server = Server(
        at_request=32
    )  # nothing is answered before there are as many as the gate lets through next
    async with raw(server.talk) as url, rig(url, concurrency=64, timeouts=PATIENT, budget=ONCE) as here:
        await _heads(here, 48)
    assert server.requests == 48
    assert server.connections <= 48


async def test_no_connection_is_opened_beyond_the_requests_that_wait() -> None:
    server = Server(at_request=20)
    async with raw(server.talk) as url, rig(url, concurrency=64, timeouts=PATIENT, budget=ONCE) as here:
        await _heads(here, 20)
        await _heads(here, 20)
    assert (server.requests, server.connections) == (40, 20)


async def test_connection_that_is_being_opened_is_waited_for_rather_than_opened_twice() -> None:
    server = Server()
    async with raw(server.talk) as url, rig(url, timeouts=PATIENT, budget=ONCE) as here:
        here.transport.connect_ahead()
        await _heads(here, 1)
        assert server.connections == 1
        here.transport.connect_ahead()  # there is one
        await _heads(here, 1)
    assert (server.requests, server.connections) == (2, 1)


async def test_connections_to_a_server_that_is_gone_are_left_to_the_requests() -> None:
    async with raw(Server().talk) as url:
        pass
    async with rig(url, timeouts=PATIENT, budget=ONCE) as here:
        here.transport.connect_ahead()
        with pytest.raises(Exception, match="cannot connect"):
            await here.transport.request(Call("resolve", "HEAD", "/v2/a/manifests/v1", repository="a"))
