"""The spool: one read of a blob on disk, for several destinations that follow it at their own pace.

A follower reads the file while it grows. What is complete stays, least recently used first to go, until the
room is needed; so a destination that comes later still finds the one read that was done. The folder belongs to
one process: it is locked while that lives and removed afterwards, by the next process where this one was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from replicator.errors import Advice, ReplicatorError, SiteError
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.ports import BlobSource

READ_BYTES: Final = 1 << 20
WRITE_BYTES: Final = 1 << 20
_LOCK: Final = "lock"


class SpoolFull(SiteError):
    """The spool has no room, or its disk failed: read straight from the source instead.

    A `SiteError`, so that an uploader finds it as its source's failure; the engine never reports it as one. Not to be
    tried again, as the disk that failed once would be filled from the source once more.
    """

    reason = "spool"
    default_advice = Advice.LATER

    def __init__(self, cause: str) -> None:
        super().__init__("spool", "spool blob", cause)


class Spool:
    """Blobs on local disk, each read from its source once.

    Args:
        path: the folder below which this process makes its own; created where it is absent.
        max_bytes: how much may lie there at once, what is being read included.

    Raises:
        ReplicatorError: the folder cannot be made or locked; the message names it.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._used = 0
        self._entries: OrderedDict[Digest, _Entry] = OrderedDict()
        try:
            path.mkdir(parents=True, exist_ok=True)
            _remove_stale(path)
            self._folder = Path(tempfile.mkdtemp(prefix="spool-", dir=path))
            self._lock = os.open(self._folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ReplicatorError(
                f"the cache folder {path} cannot be used: {error.strerror or error}"
            ) from error

    async def aclose(self) -> None:
        """Ends readings under way and removes the files."""
        for entry in self._entries.values():
            await entry.abandon()
        self._entries.clear()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        os.close(self._lock)

    def follow(self, source: BlobSource) -> BlobSource:
        """The blob through the spool. The first follower that is opened starts the one read, from its `source`.

        Raises:
            SpoolFull: there is no room now. Opening a follower may still raise it.
        """
        if not self.has(source.descriptor.digest):
            self._make_room(source.descriptor)
        return _Follower(self, source)

    def has(self, digest: Digest) -> bool:
        """Whether following the blob needs no new read of its source."""
        entry = self._entries.get(digest)
        return entry is not None and entry.failure is None

    def join(self, source: BlobSource) -> _Entry:
        """Counts a follower in; `_Entry.leave` counts it out. Raises `SpoolFull`."""
        digest = source.descriptor.digest
        entry = self._entries.get(digest)
        if entry is None or entry.failure is not None:
            self._drop(digest)
            self._make_room(source.descriptor)
            entry = self._entries[digest] = _Entry(source, self._folder / digest.replace(":", "-"))
            self._used += source.descriptor.size or 0
        self._entries.move_to_end(digest)
        entry.join()
        return entry

    def _make_room(self, descriptor: Descriptor) -> None:
        size = descriptor.size
        if size is None or size > self._max_bytes:
            raise SpoolFull(f"{descriptor.digest} has {size} bytes, more than the spool's {self._max_bytes}")
        idle = [digest for digest, entry in self._entries.items() if entry.followers == 0]
        for digest in idle:
            if self._used + size <= self._max_bytes:
                break
            self._drop(digest)
        if self._used + size > self._max_bytes:
            raise SpoolFull(f"no room for {size} bytes: {self._used} of {self._max_bytes} are in use")
        if shutil.disk_usage(self._folder).free < size:
            raise SpoolFull(f"no room for {size} bytes on the disk of {self._folder}")

    def _drop(self, digest: Digest) -> None:
        entry = self._entries.pop(digest, None)
        if entry is not None:
            self._used -= entry.source.descriptor.size or 0
            entry.remove()


class _Entry:
    """One blob's file, how far it has grown, and the task that fills it."""

    def __init__(self, source: BlobSource, path: Path) -> None:
        self.source = source
        self.path = path
        self.followers = 0
        self.written = 0
        self.complete = False
        self.failure: SiteError | None = None
        self._grown = asyncio.Event()
        self._filling: asyncio.Task[None] | None = None

    def join(self) -> None:
        """Counts a follower; the first starts the read."""
        self.followers += 1
        if self._filling is None:
            self._filling = asyncio.create_task(self._fill())

    async def leave(self) -> None:
        """Counts a follower out. With the last one an unfinished read ends: nobody wants it."""
        self.followers -= 1
        if self.followers == 0 and not self.complete:
            await self.abandon()

    async def abandon(self) -> None:
        """Ends an unfinished read."""
        if self._filling is not None and not self._filling.done():
            self._filling.cancel()
            await asyncio.wait({self._filling})
        if not self.complete and self.failure is None:
            self.failure = SpoolFull(f"{self.source.descriptor.digest}: its read was ended")

    async def wait_beyond(self, position: int) -> None:
        """Returns when there is more than `position` bytes, or no more to come."""
        while self.written <= position and not self.complete and self.failure is None:
            await self._grown.wait()

    def remove(self) -> None:
        """Takes the file away; those who have it open keep it."""
        self.path.unlink(missing_ok=True)

    async def _fill(self) -> None:
        try:
            await self._read_to_file()
            self.complete = True
        except SiteError as error:
            self.failure = error
        except OSError as error:
            self.failure = SpoolFull(f"{self.path}: {error.strerror or error}")
        except asyncio.CancelledError:
            self.failure = SpoolFull(f"{self.source.descriptor.digest}: its read was ended")
            raise
        finally:
            if self.failure is not None:
                self.remove()
            self._tell()

    async def _read_to_file(self) -> None:
        descriptor = os.open(self.path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        try:
            buffer = bytearray()
            async with self.source.open() as chunks:
                async for chunk in chunks:
                    buffer += chunk
                    if len(buffer) >= WRITE_BYTES:
                        buffer = await self._append(descriptor, buffer)
            if buffer:
                await self._append(descriptor, buffer)
        finally:
            os.close(descriptor)

    async def _append(self, descriptor: int, buffer: bytearray) -> bytearray:
        # In a thread: a full page cache blocks a write for seconds, and the loop has other destinations to serve.
        await asyncio.to_thread(_write_all, descriptor, buffer)
        self.written += len(buffer)
        self._tell()
        return bytearray()

    def _tell(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()


class _Follower:
    """A `BlobSource` on the spool."""

    def __init__(self, spool: Spool, source: BlobSource) -> None:
        self._spool = spool
        self._source = source
        self._failure: SiteError | None = None

    @property
    def descriptor(self) -> Descriptor:
        return self._source.descriptor

    @property
    def failure(self) -> SiteError | None:
        return self._failure

    def open(self, offset: int = 0) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self._open(offset)

    @asynccontextmanager
    async def _open(self, offset: int) -> AsyncGenerator[AsyncIterator[bytes], None]:
        self._failure = None
        try:
            entry = self._spool.join(self._source)
        except SpoolFull as error:
            self._failure = error
            raise
        try:
            async with contextlib.aclosing(self._chunks(entry, offset)) as chunks:
                yield chunks
        finally:
            await entry.leave()

    async def _chunks(self, entry: _Entry, position: int) -> AsyncGenerator[bytes, None]:
        descriptor = -1
        try:
            while True:
                await entry.wait_beyond(position)
                if entry.failure is not None:
                    self._failure = entry.failure
                    raise entry.failure
                if position >= entry.written:
                    return
                if descriptor < 0:
                    descriptor = os.open(entry.path, os.O_RDONLY)
                while position < entry.written:
                    want = min(READ_BYTES, entry.written - position)
                    chunk = await asyncio.to_thread(os.pread, descriptor, want, position)
                    position += len(chunk)
                    yield chunk
        except OSError as error:
            self._failure = SpoolFull(f"{entry.path}: {error.strerror or error}")
            raise self._failure from error
        finally:
            if descriptor >= 0:
                os.close(descriptor)


def _write_all(descriptor: int, data: bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _remove_stale(path: Path) -> None:
    """Removes the folders of processes that are no more."""
    for folder in path.glob("spool-*"):
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            continue  # another's, or gone meanwhile
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # its process lives
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
