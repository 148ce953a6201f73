"""Files to sockets by the kernel, in threads: the loop waits neither for the disk nor for one client's bytes.

`loop.sendfile` does it on the loop itself, where one read from a slow disk holds all clients up and one processor is
all there is; and uvloop has none.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from replicator.flow.thread import run_in_thread

THREADS: Final = 8
SLICE_BYTES: Final = 4 * 1024 * 1024
"""What one turn in a thread sends at most, so that clients take turns."""
STALL_SECONDS: Final = 60.0
"""How long a client may take nothing; then it is let go."""


class FileSender:
    """Sends files on connections without TLS. Closed when nobody sends any more."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sendfile")

    def close(self) -> None:
        """Gives the threads back."""
        self._threads.shutdown()

    async def send(
        self, transport: asyncio.Transport, file: int, start: int, stop: int, sent: Callable[[int], None]
    ) -> None:
        """Sends a file's bytes from `start` up to `stop`.

        Args:
            transport: with nothing left to write, see `flush`.
            file: its descriptor; the caller's.
            start: first byte.
            stop: the one after the last.
            sent: is told of bytes as they go out.

        Raises:
            ConnectionError: the client left, or the file became shorter.
            TimeoutError: the client took nothing for `STALL_SECONDS`.
        """
        # A descriptor of our own: the transport may be closed, and its number used again, under a thread of ours.
        socket = os.dup(transport.get_extra_info("socket").fileno())
        try:
            while start < stop:
                push = functools.partial(_push, socket, file, start, min(SLICE_BYTES, stop - start))
                count = await run_in_thread(push, self._threads)
                if count:
                    start += count
                    sent(count)
                else:
                    async with asyncio.timeout(STALL_SECONDS):
                        await _writable(socket)
        finally:
            os.close(socket)


def _push(socket: int, file: int, start: int, count: int) -> int:
    """Sends until all is sent or the socket takes no more; returns how many bytes went out."""
    position = start
    while position < start + count:
        try:
            sent = os.sendfile(socket, file, position, start + count - position)
        except BlockingIOError:
            break
        if not sent:
            raise ConnectionAbortedError("the file became shorter meanwhile")
        position += sent
    return position - start


async def _writable(socket: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(socket, tell)
    try:
        await ready
    finally:
        loop.remove_writer(socket)
