"""A large file being written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final, Protocol, TypeVar

from replicator.errors import SiteError
from replicator.flow.limits import SiteLimits
from replicator.flow.splice import Splice, pass_on
from replicator.model.digest import Digest
from replicator.movers.file import reserve
from replicator.ports import Chunk
from replicator.sites.objects.local import copying
from replicator.sites.objects.local.tree import Parts
from replicator.sites.objects.local.workspace import Temporary, Workspace

T = TypeVar("T")

BUFFER_BYTES: Final = 1 << 20
"""Collected before a thread writes it: chunks off the wire are small, and each trip to a thread costs."""


class Run(Protocol):
    """Runs a blocking call in a thread, its failure mapped."""

    async def __call__(self, call: Callable[[], T], /) -> T:
        """What the call returns."""
        ...


class LocalUpload:
    """`ports.ObjectUpload` on a file: out of sight until `commit`, removed by `close` otherwise.

    The file is made by the first thread that is needed anyway: a small blob costs one trip.
    """

    def __init__(
        self,
        workspace: Workspace,
        parts: Parts,
        size: int | None,
        *,
        run: Run,
        limits: SiteLimits,
        wrong: Callable[[str], SiteError],
        proven: Callable[[os.stat_result, Digest], None],
    ) -> None:
        self._workspace = workspace
        self._parts = parts
        self._size = size
        self._run = run
        self._limits = limits
        self._wrong = wrong
        self._proven = proven
        self._file: Temporary | None = None
        self._buffer: list[Chunk] = []
        self._buffered = 0
        self._written = 0

    async def write(self, chunk: Chunk) -> None:
        """Takes the next bytes; at most `BUFFER_BYTES` and one chunk are held."""
        await self._limits.pace_bytes(len(chunk))
        self._buffer.append(chunk)
        self._buffered += len(chunk)
        if self._buffered >= BUFFER_BYTES:
            await self._run(self._flush)

    async def splice(self, chunks: AsyncIterator[Chunk], narrow: Callable[[Splice], None]) -> None:
        """See `layouts.blobs.TakesSplices`. Not where bytes wait for their turn."""
        if self._limits.paces_bytes:
            return
        outlet = _FileEnd(self._append)
        splice = Splice(outlet)
        narrow(splice)
        await pass_on(chunks, splice)
        if outlet.failure is not None:
            await self._run(outlet.fail)

    async def commit(self, digest: Digest | None = None) -> None:
        """Makes the object visible, whole and durable; a digest of the bytes goes to `proven`.

        Raises:
            Corrupt: not the announced number of bytes came.
        """
        if self._size is not None and self._written + self._buffered != self._size:
            raise self._wrong(f"{self._written + self._buffered} bytes came instead of {self._size}")
        facts = await self._run(self._place)
        if digest is not None:
            self._proven(facts, digest)

    async def copy_from(self, source: int, hashed: copying.Hash | None = None) -> None:
        """Takes a whole file of the same file system, and hashes what arrives."""
        if await self._run(lambda: copying.clone(source, self._open())):
            self._written = self._size or 0
            at = 0
            while hashed:
                count = await self._run(partial(copying.hash_step, self._open().fd, at, hashed))
                if not count:
                    break
                at += count
            return

        def step() -> int:
            if hashed is None:
                return copying.copy_step(source, self._open())
            return copying.copy_hashed_step(source, self._open(), hashed)

        while count := await self._run(step):
            self._written += count

    @property
    def is_open(self) -> bool:
        """Whether there is a file to close."""
        return self._file is not None

    def close(self) -> None:
        """Removes what was not committed. Blocks."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _open(self) -> Temporary:
        if self._file is None:
            self._file = self._workspace.open()
            # Said now, not after minutes of copying. Some FUSE mounts do not know their size and say 0.
            room = shutil.disk_usage(self._file.fd)
            if self._size is not None and room.total and self._size > room.free:
                raise OSError(errno.ENOSPC, f"no room for {self._size} bytes")
            reserve(self._file.fd, self._size or 0)
        return self._file

    def _flush(self) -> None:
        file = self._open()
        chunks, self._buffer = self._buffer, []
        self._written += self._buffered
        self._buffered = 0
        file.write(*chunks)

    def _append(self, data: memoryview) -> None:
        self._flush()
        self._open().write(data)
        self._written += len(data)

    def _place(self) -> os.stat_result:
        self._flush()
        file = self._open()
        file.place(self._parts)
        facts = os.fstat(file.fd)
        self.close()
        return facts


class _FileEnd:
    """The end of the file as an outlet. What was taken before is written by the same thread."""

    def __init__(self, append: Callable[[memoryview], None]) -> None:
        self.failure: OSError | None = None
        self._append = append

    def offer(self, data: memoryview, seconds: float) -> memoryview:  # noqa: ARG002 - a file takes it or fails
        """All of it where it was not written; the upload has failed then."""
        try:
            self._append(data)
        except OSError as error:
            self.failure = error
            return data
        return data[:0]

    def abort(self) -> None:
        """Nothing to do: a write ends by itself."""

    def fail(self) -> None:
        """Raises what went wrong."""
        if self.failure is not None:
            raise self.failure
