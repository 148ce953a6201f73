"""A server that does what no server should, in front of an honest one that answers all else."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

PIECE_SECONDS = 0.05


@dataclass
class Asked:
    """One request in hand."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    writer: asyncio.StreamWriter = field(repr=False)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """An answer in good form."""
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status} X\r\n{lines}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        await self.send(head.encode("latin-1", "replace") + (b"" if self.method == "HEAD" else body))


Malice = Callable[[Asked], Awaitable[None]]
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def broken_framing(body: bytes) -> Malice:
    """Headers in good form, then, on its own, what is not; the connection stays open."""

    async def malice(asked: Asked) -> None:
        await asked.send(CHUNKED)
        await asyncio.sleep(PIECE_SECONDS)
        await asked.send(body)
        await asyncio.Event().wait()

    return malice


def dribble(head: bytes, piece: bytes) -> Malice:
    """The head, then a piece again and again, for ever."""

    async def malice(asked: Asked) -> None:
        await asked.send(head)
        while True:
            await asked.send(piece)
            await asyncio.sleep(PIECE_SECONDS)

    return malice


def endless(head: bytes, piece: bytes) -> Malice:
    """The head, then a piece as fast as it is taken, for ever."""

    async def malice(asked: Asked) -> None:
        await asked.send(head)
        while True:
            await asked.send(piece)

    return malice


async def silent(_: Asked) -> None:
    """Nothing, ever."""
    await asyncio.Event().wait()


async def reset(asked: Asked) -> None:
    """The connection ends at once."""
    transport = asked.writer.transport
    transport.abort()


def says(status: int, body: bytes, **headers: str) -> Malice:
    """Always the same."""

    async def malice(asked: Asked) -> None:
        await asked.answer(status, body, **headers)

    return malice


def quotes(status: int) -> Malice:
    """An error that quotes whatever secret the request carries, in several encodings."""

    async def malice(asked: Asked) -> None:
        sent = asked.headers.get("authorization", "")
        await asked.answer(status, f"you sent {sent} ({sent.encode().hex()}) {asked.body[:500]!r}".encode())

    return malice


def bomb(size: int) -> Malice:
    """A small gzip that is large."""
    body = gzip.compress(b" " * size)
    return says(200, body, Content_Encoding="gzip", Content_Type="application/json")


@dataclass
class Hostile:
    """A running server. Rules are looked at in order; what none matches goes to the honest server behind."""

    honest: str
    url: str = ""
    rules: list[tuple[re.Pattern[str], Malice]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def on(self, request: str, malice: Malice) -> None:
        """`request` is searched for in "METHOD /target"."""
        self.rules.append((re.compile(request), malice))

    def count(self, text: str) -> int:
        """How many requests had this in "METHOD /target"."""
        return sum(text in each for each in self.seen)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name
        }
        self.seen.append(f"{method} {target}")
        for pattern, malice in self.rules:
            if pattern.search(f"{method} {target}"):
                body = await self._some(reader, headers)
                await malice(Asked(method, target, headers, body, writer))
                return
        await self._relay(head, reader, writer)

    async def _some(self, reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
        """The body, or the beginning of it."""
        length = int(headers.get("content-length", "0"))
        with suppress(asyncio.IncompleteReadError):
            return await reader.readexactly(min(length, 65536))
        return b""

    async def _relay(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.honest.removeprefix("http://").partition(":")
        inward, outward = await asyncio.open_connection(host, int(port))
        # Host stays ours, so that Locations lead here again.
        outward.write(head[:-2] + b"Connection: close\r\n\r\n")
        feeding = asyncio.create_task(_pump(reader, outward))
        try:
            await _pump(inward, writer)
        finally:
            feeding.cancel()
            outward.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def hostile(honest: str = "") -> AsyncIterator[Hostile]:
    """The server on a free loopback port, in front of the honest one at that URL."""
    made = Hostile(honest)
    tasks: set[asyncio.Task[None]] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await made.talk(reader, writer)
        except (asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0, limit=1 << 20)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
