"""Blobs on their way to a client: by the kernel where the store has files, else chunk by chunk."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from io import FileIO
from typing import Final

from aiohttp import web

from replicator.errors import Corrupt
from replicator.ports import Chunk, OpensFiles
from replicator.serve.answered import current_transfer
from replicator.serve.content import Blob, Content
from replicator.serve.sendfile import STALL_SECONDS, FileSender

_READ_BYTES: Final = 1 << 20


class Body:
    """The body of one response: some bytes of a blob.

    Args:
        request: which is answered; its transfer is told of what went out.
        response: its status and headers; its length is that of the bytes.
        files: sends files.
    """

    def __init__(self, request: web.Request, response: web.StreamResponse, files: FileSender) -> None:
        self._request = request
        self._response = response
        self._files = files
        self._transfer = current_transfer()

    async def send(self, content: Content, blob: Blob, start: int, stop: int) -> None:
        """Sends the bytes from `start` up to `stop`.

        The response begins only when the blob is open: until then an error can still be answered.

        Raises:
            SiteError: the site failed.
            ConnectionError: the client left.
            TimeoutError: it took nothing for `STALL_SECONDS`.
        """
        if isinstance(blob.store, OpensFiles):
            with contextlib.ExitStack() as held:
                async with blob.store.opened(blob.key) as opened:
                    if opened.size != blob.size:
                        cause = f"{blob.digest} had {blob.size} bytes and now has {opened.size}"
                        raise Corrupt(content.site, "read blob", cause, repository=blob.repository)
                    # The store counts its open files: a slow client must not take others' turns.
                    file = held.enter_context(FileIO(os.dup(opened.fd), "rb"))
                await self._begin()
                await self._send_file(file, start, stop)
        else:
            async with content.read(blob, start) as chunks:
                await self._begin()
                await self._send_chunks(chunks, stop - start)
        await self._response.write_eof()

    async def _begin(self) -> None:
        self._transfer.status = self._response.status
        async with asyncio.timeout(STALL_SECONDS):
            await self._response.prepare(self._request)

    async def _send_file(self, file: FileIO, start: int, stop: int) -> None:
        transport = self._transport()
        if transport.get_extra_info("sslcontext") is None:
            await self._flush(transport)
            await self._files.send(transport, file.fileno(), start, stop, self._transfer.sent)
            return
        while start < stop:
            data = await asyncio.to_thread(os.pread, file.fileno(), min(stop - start, _READ_BYTES), start)
            if not data:
                raise ConnectionAbortedError("the file became shorter meanwhile")
            await self._write(data)
            start += len(data)

    async def _flush(self, transport: asyncio.Transport) -> None:
        """Returns when the response's head is with the kernel, so that the file comes after it."""
        transport.set_write_buffer_limits(high=0)
        try:
            async with asyncio.timeout(STALL_SECONDS):
                while transport.get_write_buffer_size():
                    await self._request.writer.drain()
                    await asyncio.sleep(0)
        finally:
            transport.set_write_buffer_limits()

    async def _send_chunks(self, chunks: AsyncIterator[Chunk], left: int) -> None:
        async for chunk in chunks:
            await self._write(chunk[:left])
            left -= len(chunk)
            if left <= 0:
                return

    async def _write(self, data: Chunk) -> None:
        async with asyncio.timeout(STALL_SECONDS):
            await self._response.write(data)
        self._transfer.sent(len(data))

    def _transport(self) -> asyncio.Transport:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client left")
        return transport
