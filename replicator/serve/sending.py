"""Blobs on their way to a client: by `sendfile` where the store has files, else chunk by chunk."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from io import FileIO
from typing import Final

from aiohttp import web

from replicator.errors import Corrupt
from replicator.ports import OpensFiles
from replicator.serve.answered import transfer_of
from replicator.serve.content import Blob, Content

SLICE_BYTES: Final = 2 * 1024 * 1024
STALL_SECONDS: Final = 60.0
"""How long a client may take for a slice; one that takes longer is let go."""

_READ_BYTES: Final = 1 << 20


class Body:
    """The body of one response: some bytes of a blob.

    Args:
        request: which is answered; its transfer is told of what went out.
        response: its status and headers; its length is that of the bytes.
    """

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._request = request
        self._response = response
        self._transfer = transfer_of(request)

    async def send(self, content: Content, blob: Blob, start: int, stop: int) -> None:
        """Sends the bytes from `start` up to `stop`.

        The response begins only when the blob is open: until then an error can still be answered.

        Raises:
            SiteError: the site failed.
            ConnectionError: the client left.
            TimeoutError: it took nothing for `STALL_SECONDS`.
        """
        if isinstance(blob.store, OpensFiles):
            async with blob.store.opened(blob.key) as opened:
                if opened.size != blob.size:
                    cause = f"{blob.digest} had {blob.size} bytes and now has {opened.size}"
                    raise Corrupt(content.site, "read blob", cause, repository=blob.repository)
                # The store counts its open files: a slow client must not take others' turns.
                file = FileIO(os.dup(opened.fd), "rb")
            with contextlib.closing(file):
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
        while start < stop:
            async with asyncio.timeout(STALL_SECONDS):
                sent = await self._send_slice(file, start, min(SLICE_BYTES, stop - start))
            if not sent:
                raise ConnectionAbortedError("the file became shorter meanwhile")
            start += sent
            self._transfer.sent(sent)

    async def _send_slice(self, file: FileIO, start: int, count: int) -> int:
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError("the client left")
        try:
            return await asyncio.get_running_loop().sendfile(transport, file, start, count)
        except NotImplementedError:  # uvloop has none
            data = await asyncio.to_thread(os.pread, file.fileno(), min(count, _READ_BYTES), start)
            await self._response.write(data)
            return len(data)

    async def _send_chunks(self, chunks: AsyncIterator[bytes], left: int) -> None:
        async for chunk in chunks:
            data = chunk[:left]
            async with asyncio.timeout(STALL_SECONDS):
                await self._response.write(data)
            self._transfer.sent(len(data))
            left -= len(data)
            if not left:
                return
