"""How long an upload waits for the other side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.flow.limits import SiteLimits
from replicator.flow.settings import LimitSettings
from replicator.sites.registry.body import UploadBody

STALL, COMMIT = 60.0, 900.0


class Time:
    """The event loop's time, which a test moves on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    async def passes(self, seconds: float) -> None:
        """Time passes in steps of a second; who waits for it is called."""
        for _ in range(int(seconds)):
            self.ahead += 1
            await asyncio.sleep(0)
            await asyncio.sleep(0)


@pytest.fixture
async def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    loop, time = asyncio.get_running_loop(), Time()
    system = loop.time
    monkeypatch.setattr(loop, "time", lambda: system() + time.ahead)
    return time


class Server:
    """Takes `rate` bytes of what is sent at each look."""

    def __init__(self) -> None:
        self.rate = 1
        self.left = 10_000

    def look(self) -> int:
        self.left -= self.rate
        return self.left


async def _chunks() -> AsyncIterator[bytes]:
    yield b"x" * 5
    yield b"x" * 5


def body(source: AsyncIterator[bytes]) -> UploadBody:
    """Of 10 bytes."""
    limits = SiteLimits("there", LimitSettings(), events=Events(), clock=SystemClock())
    return UploadBody(source, 10, limits=limits, stall_seconds=STALL, commit_seconds=lambda _: COMMIT)


async def send(feed: UploadBody, server: Server, chunks: Callable[[], Awaitable[object]]) -> None:
    """Sends these chunks, and waits for an answer that does not come. Raises TimeoutError when that has been too long."""
    async with asyncio.timeout(None) as deadline:
        feed.watch(deadline)
        feed.goes_over(server.look)
        await chunks()
        await asyncio.Event().wait()


@pytest.fixture
def feed() -> Iterator[UploadBody]:
    feed = body(_chunks())
    yield feed
    feed.watch(None)


async def test_a_server_that_takes_a_little_of_a_chunk_makes_progress(time: Time, feed: UploadBody) -> None:
    server = Server()
    sending = asyncio.create_task(send(feed, server, lambda: anext(feed)))
    await time.passes(10 * STALL)
    server.rate = 0
    await time.passes(STALL - 1)
    assert not sending.done()
    await time.passes(10)
    with pytest.raises(TimeoutError):
        await sending
    assert feed.late_text() == "no progress for 60 s after 5 bytes (timeouts.read)"


async def test_an_answer_is_waited_for_from_when_the_server_has_taken_all(
    time: Time, feed: UploadBody
) -> None:
    server = Server()

    async def all_of_it() -> None:
        assert [chunk async for chunk in feed] == [b"xxxxx"] * 2

    sending = asyncio.create_task(send(feed, server, all_of_it))
    await time.passes(2 * COMMIT)  # what the system keeps goes out
    server.rate = 0
    await time.passes(COMMIT - 1)
    assert not sending.done()
    await time.passes(10)
    with pytest.raises(TimeoutError):
        await sending
    assert feed.late_text() == "no answer within 900 s after all 10 bytes were sent (timeouts.commit)"


async def test_a_slow_source_is_waited_for_whatever_the_server_does(time: Time) -> None:
    source: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def slow() -> AsyncIterator[bytes]:
        yield await source

    feed = body(slow())
    async with asyncio.timeout(None) as deadline:
        feed.watch(deadline)
        feed.goes_over(Server().look)
        asking = asyncio.create_task(anext(feed))
        await time.passes(10 * STALL)
        source.set_result(b"x" * 5)
        assert await asking == b"xxxxx"
        feed.watch(None)
