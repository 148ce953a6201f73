"""Connections of large blobs: how they are kept, and servers that speak old HTTP or IPv6."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from replicator.flow.limits import SiteLimits
from replicator.flow.parallel import each
from replicator.flow.settings import LimitSettings
from replicator.model.descriptor import Descriptor
from replicator.model.digest import digest_of
from replicator.sites.registry.payload import idle
from replicator.sites.registry.site import RegistrySite
from tests.fakes.clients import registry_site
from tests.fakes.registry import FakeRegistry

DATA = random.Random(14).randbytes(700_000)
LARGE = Descriptor("text/plain", digest_of(DATA), len(DATA))
SMALL = Descriptor("text/plain", digest_of(b"little"), len(b"little"))


class Server:
    """Answers every request with the same bytes, once it has had `together` connections, which it counts."""

    def __init__(self, answer: bytes, *, closes: bool, together: int = 1) -> None:
        self._answer = answer
        self._closes = closes
        self._together = together
        self.opened = 0
        self.open = 0
        self.port = 0
        self.changed = asyncio.Condition()

    @asynccontextmanager
    async def serve(self, host: str) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._talk, host, 0)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self.changed:
            self.opened += 1
            self.open += 1
            self.changed.notify_all()
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b" /v2/ " in head:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
                    return
                async with self.changed:
                    await self.changed.wait_for(lambda: self.opened >= self._together)
                writer.write(self._answer)
                await writer.drain()
                if self._closes:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()
            async with self.changed:
                self.open -= 1
                self.changed.notify_all()


async def _read(site: RegistrySite, blob: Descriptor) -> bytes:
    async with site.repository("app").blob(blob).open() as chunks:
        return b"".join([bytes(chunk) async for chunk in chunks])


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("payload-")]


@pytest.mark.parametrize(
    ("head", "closes"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 700000\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 700000\r\nConnection: close\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 700000\r\n\r\n", False),
    ],
    ids=["1.0 until it closes", "1.0", "close", "keep-alive"],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_blob_is_whole_by_whichever_version_and_address(
    head: bytes, host: str, *, closes: bool
) -> None:
    async with Server(head + DATA, closes=closes).serve(host) as server:
        url = f"http://[{host}]:{server.port}" if ":" in host else f"http://{host}:{server.port}"
        async with registry_site(url) as site:
            for _ in range(3):
                assert await _read(site, LARGE) == DATA
            assert _threads()
        assert server.opened == 1 + (3 if closes else 1), "the ping's, and those of the blobs"
    assert not _threads()


@pytest.mark.parametrize(
    ("size", "known", "by_threads"),
    [(256 * 1024, True, True), (256 * 1024 - 1, True, False), (700_000, False, False)],
)
async def test_threads_move_blobs_of_256_kib_and_more_whose_size_is_known(
    size: int, *, known: bool, by_threads: bool
) -> None:
    data = DATA[:size]
    async with FakeRegistry() as source, FakeRegistry() as destination:
        source.store.put_blob("app", data)
        blob = Descriptor("text/plain", digest_of(data), size if known else None)
        async with registry_site(source.url) as origin, registry_site(destination.url) as target:
            assert await target.repository("app").write_blob(origin.repository("app").blob(blob)) == "copied"
            assert len(_threads()) == (2 if by_threads else 0)
        assert b"".join(destination.store.blob("app", blob.digest).read()) == data


async def test_few_idle_connections_are_kept_and_none_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "_MAX_IDLE", 2)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 700000\r\n\r\n"
    async with Server(head + DATA, closes=False, together=7).serve("127.0.0.1") as server:
        async with registry_site(f"http://127.0.0.1:{server.port}") as site, asyncio.timeout(20):
            for _ in range(2):
                assert await each([LARGE] * 6, partial(_read, site)) == [DATA] * 6
                async with server.changed:
                    await server.changed.wait_for(lambda: server.open <= 2)
                assert server.open == 2
        async with asyncio.timeout(20), server.changed:
            await server.changed.wait_for(lambda: server.open == 0)
    assert 1 + 6 < server.opened <= 1 + 6 + 4, (
        "the ping's, six at once, and four beside the two that were kept"
    )


async def test_the_bytes_of_threads_and_of_the_event_loop_wait_for_one_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paced: list[int] = []
    pace = SiteLimits.pace_bytes

    async def counted(limits: SiteLimits, count: int) -> None:
        paced.append(count)
        await pace(limits, count)

    monkeypatch.setattr(SiteLimits, "pace_bytes", counted)
    async with FakeRegistry() as fake:
        for data in (DATA, b"little"):
            fake.store.put_blob("app", data)
        async with registry_site(fake.url, limits=LimitSettings(bytes_per_second=1e9)) as site:
            assert await each([LARGE, SMALL], partial(_read, site)) == [DATA, b"little"]
    assert sum(paced) == LARGE.size + SMALL.size  # type: ignore[operator]
