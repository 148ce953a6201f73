"""Splicing: a thread moves bytes from one end of a copy to the other, past the event loop and all that stands between.

A copy is a chain: whoever writes asks the next in line for bytes, and so on down to whoever reads. A `Splice` goes down the
same chain. Each layer narrows it to what it can answer for, adds what it does with the bytes, and passes it on. A thread then
moves the bytes. It decides nothing: it ends before the last byte, and at the first thing that is out of the ordinary (silence,
an error, an answer). Whoever asks for the next bytes meets that as ever, so every rule of reading and writing is in one place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from typing import Final, Protocol, runtime_checkable

from replicator.flow.thread import run_in_thread
from replicator.movers.file import move_file
from replicator.movers.splice import Bounds
from replicator.movers.splice import Outlet as Taker
from replicator.ports import Chunk
from replicator.ports.power import Power

SPLICE_BYTES: Final = 16 * 1024 * 1024
"""Moved at most before the event loop is asked again."""
SPLICE_SECONDS: Final = 1.0
"""No splice takes much longer: limits and cancellations are looked at in between."""
PATIENCE_SECONDS: Final = 0.25
"""So long either side may be silent."""
LEAST_BYTES: Final = 256 * 1024
"""For less it is not worth while to leave the ordinary way."""
_BUFFER_BYTES: Final = 256 * 1024


class Outlet(Taker, Protocol):
    """Where a thread puts bytes. A failure is not raised but kept for who writes next."""

    def abort(self) -> None:
        """Ends `offer` at once, from any thread; nothing more can be written then."""
        ...


class Splice:
    """The next bytes of a stream on their way into `outlet`.

    Args:
        outlet: where they go.
        threads: of whoever writes, for a reader that has none of its own.
    """

    def __init__(self, outlet: Outlet, threads: Executor | None = None) -> None:
        self.outlet = outlet
        self.threads = threads
        self.most = SPLICE_BYTES
        """How many at most."""
        self.count = 0
        """Bytes that were moved."""
        self.waited = 0.0
        """Seconds that were spent waiting for bytes to come."""
        self.rest: memoryview = memoryview(b"")
        """The end of what was moved, where the outlet has not taken it: the next bytes to be written."""
        self._hashes: list[Callable[[memoryview], object]] = []
        self._counts: list[Callable[[int], object]] = []

    @property
    def is_worth_it(self) -> bool:
        """Whether enough may be moved."""
        return self.most >= LEAST_BYTES

    @property
    def is_hashed(self) -> bool:
        """Whether somebody has to see the bytes."""
        return bool(self._hashes)

    def narrow(self, most: int) -> None:
        """Allows no more than so many bytes."""
        self.most = min(self.most, most)

    def hash_with(self, update: Callable[[memoryview], object]) -> None:
        """Has the bytes shown to `update`, in the thread, in order, before they are written."""
        self._hashes.append(update)

    def count_with(self, count: Callable[[int], object]) -> None:
        """Has `count` told how many bytes were moved, in the event loop, about every MiB; all are told when it has ended."""
        self._counts.append(count)

    def show(self, data: memoryview) -> None:
        """Tells who hashes. For the thread."""
        for update in self._hashes:
            update(data)

    def moved(self, count: int) -> None:
        """Tells who counts. For the event loop."""
        self.count += count
        for tell in self._counts:
            tell(count)


@runtime_checkable
class Spliceable(Protocol, metaclass=Power):
    """A stream of chunks whose next bytes a thread may move. Not while a chunk is being asked for."""

    async def splice(self, splice: Splice) -> None:
        """Moves some of the next bytes, or none where that is not possible. Raises nothing of its own."""
        ...


@runtime_checkable
class Closeable(Protocol, metaclass=Power):
    """A stream that can be left before its end."""

    async def aclose(self) -> None:
        """Ends it."""
        ...


class Stream:
    """Chunks, with what a layer does to splice them.

    Args:
        chunks: the ordinary way.
        splice: see `Spliceable`.
    """

    def __init__(self, chunks: AsyncIterator[Chunk], splice: Callable[[Splice], Awaitable[None]]) -> None:
        self._chunks = chunks
        self._splice = splice

    def __aiter__(self) -> Stream:
        return self

    def __anext__(self) -> Awaitable[Chunk]:
        return self._chunks.__anext__()

    async def splice(self, splice: Splice) -> None:
        """See `Spliceable`."""
        await self._splice(splice)

    async def aclose(self) -> None:
        """Closes what the chunks come from."""
        await close(self._chunks)


async def pass_on(chunks: object, splice: Splice) -> None:
    """Has the next in line splice, if it can and enough is left to move."""
    if splice.is_worth_it and isinstance(chunks, Spliceable):
        await chunks.splice(splice)


async def splice_file(descriptor: int, position: int, splice: Splice) -> None:
    """Has a thread move bytes of an open file, whose offset is not used.

    The file has at least `splice.most` bytes from `position` on. Where nobody hashes them, the kernel copies them.
    """
    loop = asyncio.get_running_loop()

    def moved(count: int) -> None:
        loop.call_soon_threadsafe(splice.moved, count)

    call = partial(
        move_file,
        descriptor,
        position,
        splice.outlet,
        lambda: memoryview(bytearray(min(splice.most, _BUFFER_BYTES))),
        Bounds(splice.most, SPLICE_SECONDS, PATIENCE_SECONDS),
        show=splice.show if splice.is_hashed else None,
        moved=moved,
    )
    splice.rest = (await run_in_thread(call, splice.threads, splice.outlet.abort)).rest


async def close(chunks: AsyncIterator[Chunk]) -> None:
    """Closes a stream, where it can be closed."""
    if isinstance(chunks, Closeable):
        await chunks.aclose()
