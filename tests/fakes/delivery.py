"""How a fake sends its answers: counted, and damaged where a fault says so."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, Protocol

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

DRIP_SECONDS: Final = 0.05

Then = Literal["reset", "close", "hang"]


@dataclass(slots=True)
class Damage:
    """What is done to the bodies of one exchange. Offsets are in bytes of the body.

    `then` is what happens at `cut_at` (of the answer) or `cut_upload_at` (of the request): the connection is
    reset, closed in good order, or left without another byte. `drip` is how many bytes of the answer go out a second.
    """

    cut_at: int | None = None
    cut_upload_at: int | None = None
    corrupt_at: int | None = None
    then: Then = "reset"
    drip: int | None = None


class Counted(Protocol):
    """Where the bytes that went out are counted."""

    bytes_out: int


def abort(request: web.Request) -> NoReturn:
    """Resets the connection."""
    transport = request.transport
    if transport is not None:
        # Without lingering, closing sends RST instead of FIN.
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        transport.abort()
    raise ConnectionResetError("reset by a fault")


async def deliver(
    request: web.Request,
    response: web.StreamResponse,
    counted: Counted,
    damage: Damage,
    released: asyncio.Event,
) -> web.StreamResponse:
    """Sends the response, or what the damage leaves of it."""
    if response.prepared or not isinstance(response, web.Response):
        return response
    body = response.body
    if request.method == "HEAD" or body is None:
        if damage.cut_at is not None:
            await _end(request, damage, released)
        return response
    if isinstance(body, bytes | bytearray) and "Content-Length" not in response.headers:
        response.headers["Content-Length"] = str(len(body))
    stream = web.StreamResponse(status=response.status, reason=response.reason, headers=response.headers)
    await stream.prepare(request)
    writer = _Writer(request, stream, counted, damage, released)
    if isinstance(body, Payload):
        await body.write(writer)
    else:
        await writer.write(bytes(body))
    await stream.write_eof()
    return stream


async def _end(request: web.Request, damage: Damage, released: asyncio.Event) -> NoReturn:
    if damage.then == "hang":
        await released.wait()
    if damage.then == "close" and request.transport is not None:
        request.transport.close()
        raise ConnectionResetError("closed by a fault")
    abort(request)


def _parts(data: bytes, drip: int | None) -> Iterator[bytes]:
    step = max(1, len(data)) if drip is None else max(1, int(drip * DRIP_SECONDS))
    return (data[start : start + step] for start in range(0, len(data), step))


class _Writer(AbstractStreamWriter):
    """Passes a payload's chunks on, up to where the damage begins."""

    def __init__(
        self,
        request: web.Request,
        stream: web.StreamResponse,
        counted: Counted,
        damage: Damage,
        released: asyncio.Event,
    ) -> None:
        self._request = request
        self._stream = stream
        self._counted = counted
        self._damage = damage
        self._released = released

    async def write(self, chunk: bytes | bytearray | memoryview, *_: object, **__: object) -> None:
        data, start, cut = bytes(chunk), self._counted.bytes_out, self._damage.cut_at
        spoilt = self._damage.corrupt_at
        if spoilt is not None and start <= spoilt < start + len(data):
            at = spoilt - start
            data = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
        if cut is not None:
            data = data[: cut - start]
        for part in _parts(data, self._damage.drip):
            await self._stream.write(part)
            self._counted.bytes_out += len(part)
            if self._damage.drip is not None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._released.wait(), DRIP_SECONDS)
        if cut is not None and self._counted.bytes_out >= cut:
            await _end(self._request, self._damage, self._released)

    async def write_eof(self, chunk: bytes = b"") -> None:
        await self.write(chunk)

    async def drain(self) -> None:
        pass

    def enable_compression(self, *_: object, **__: object) -> None:
        raise NotImplementedError

    def enable_chunking(self) -> None:
        raise NotImplementedError

    async def write_headers(self, *_: object) -> None:
        raise NotImplementedError
