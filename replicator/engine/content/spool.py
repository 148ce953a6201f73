"""The spool: one read of a blob on disk, for several destinations that follow it at their own pace.

A follower reads the file while it grows. What is complete stays, least recently used first to go, until the
room is needed; so a destination that comes later still finds the one read that was done. The folder belongs to
one process: it is locked while that lives and removed afterwards, by the next process where this one was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import logging
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from replicator.engine.content.filling import fill
from replicator.errors import Advice, ReplicatorError, SiteError
from replicator.flow.splice import Splice, Stream, splice_file
from replicator.flow.thread import run_in_thread
from replicator.model.digest import Digest
from replicator.movers.file import reserve
from replicator.ports import BlobSource, Chunk

READ_BYTES: Final = 1 << 20
MAX_FILES: Final = 10_000
"""More than these are not kept for later: `max_bytes` of blobs of a few hundred bytes would be all inodes and memory."""
_LOCK: Final = "lock"

_log = logging.getLogger(__name__)


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
        self._scratch = 0
        self._entries: OrderedDict[Digest, _Entry] = OrderedDict()
        self._numbers = itertools.count()
        try:
            path.mkdir(parents=True, exist_ok=True)
            with _alone(path):
                _remove_stale(path)
                self._folder = Path(tempfile.mkdtemp(prefix="spool-", dir=path))
                self._lock = os.open(self._folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ReplicatorError(
                f"the cache folder {path} cannot be used: {error.strerror or error}"
            ) from error

    async def aclose(self) -> None:
        """Cancels the reads in progress and removes the files."""
        entries = list(self._entries.values())
        self._entries.clear()
        for entry in entries:
            await entry.abandon()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        os.close(self._lock)

    def follow(self, source: BlobSource) -> BlobSource:
        """The blob through the spool. The first follower that is opened starts the one read, from its `source`.

        Raises:
            SpoolFull: no space is left. Opening a follower may still raise it.
        """
        if not self.has(source.descriptor.digest):
            self._check_room(source.descriptor.size, source.descriptor.digest)
        return _Follower(self, source)

    @contextlib.contextmanager
    def scratch(self, size: int) -> Iterator[int]:
        """An empty file without a name, its descriptor, with room for `size` bytes. Raises `SpoolFull`."""
        self._make_room(size, "parts of a blob")
        try:
            descriptor = os.open(self._folder, os.O_TMPFILE | os.O_RDWR, 0o600)
        except OSError as error:
            raise SpoolFull(f"{self._folder}: {error.strerror or error}") from error
        self._used += size
        self._scratch += size
        try:
            yield descriptor
        finally:
            self._used -= size
            self._scratch -= size
            os.close(descriptor)

    def has(self, digest: Digest) -> bool:
        """Whether following the blob needs no new read of its source."""
        entry = self._entries.get(digest)
        return entry is not None and entry.failure is None

    def join(self, source: BlobSource) -> _Entry:
        """Counts a follower in; `_Entry.leave` counts it out. Raises `SpoolFull`."""
        digest = source.descriptor.digest
        entry = self._entries.get(digest)
        if entry is not None and entry.failure is None and entry.size != source.descriptor.size:
            # One of the two manifests is wrong, and the other must not fail with it.
            raise SpoolFull(f"{digest} is in the spool as {entry.size} bytes, not {source.descriptor.size}")
        if entry is None or entry.failure is not None:
            self._drop(digest)
            size = self._make_room(source.descriptor.size, digest)
            # Never the name of a file before: one that is being given up removes its own.
            entry = self._entries[digest] = _Entry(digest, size, self._folder / str(next(self._numbers)))
            entry.start(source)
            self._used += size
        self._entries.move_to_end(digest)
        entry.followers += 1
        return entry

    def _check_room(self, size: int | None, what: str) -> int:
        """The size, for which there is room once idle blobs have gone."""
        if size is None or size > self._max_bytes:
            raise SpoolFull(f"{what}: {size} bytes, more than the spool's {self._max_bytes}")
        busy = self._scratch + sum(entry.size for entry in self._entries.values() if entry.followers)
        if busy + size > self._max_bytes:
            raise SpoolFull(f"no room for {size} bytes: {busy} of {self._max_bytes} are in use")
        return size

    def _make_room(self, wanted: int | None, what: str) -> int:
        size = self._check_room(wanted, what)
        for digest in [digest for digest, entry in self._entries.items() if not entry.followers]:
            if self._used + size <= self._max_bytes and len(self._entries) < MAX_FILES:
                break
            self._drop(digest)
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            raise SpoolFull(f"{self._folder}: {error.strerror or error}") from error
        if free < size:
            raise SpoolFull(f"no room for {size} bytes on the disk of {self._folder}")
        return size

    def _drop(self, digest: Digest) -> None:
        entry = self._entries.pop(digest, None)
        if entry is not None:
            self._used -= entry.size
            entry.remove()


class _Entry:
    """One blob's file, how far it has grown, and the task that fills it."""

    def __init__(self, digest: Digest, size: int, path: Path) -> None:
        self.digest = digest
        self.size = size
        self.path = path
        self.followers = 0
        self.written = 0
        self.complete = False
        self.failure: SiteError | None = None
        self._grown = asyncio.Event()
        self._filling: asyncio.Task[None] | None = None

    def start(self, source: BlobSource) -> None:
        """Begins the one read. The source is not kept beyond it: a file may outlive the run that wanted it by far."""
        self._filling = asyncio.create_task(self._fill(source))

    async def leave(self) -> None:
        """Counts a follower out. With the last one an unfinished read ends: nobody wants it."""
        self.followers -= 1
        if self.followers == 0 and not self.complete:
            await self.abandon()

    async def abandon(self) -> None:
        """Ends an unfinished read."""
        if not self.complete and self.failure is None:
            # Before anything is waited for: whoever comes now must not follow what is about to die.
            self.failure = SpoolFull(f"{self.digest}: its read was ended")
        if self._filling is not None and not self._filling.done():
            self._filling.cancel()
            await asyncio.wait({self._filling})

    async def wait_beyond(self, position: int) -> None:
        """Returns when there is more than `position` bytes, or no more to come."""
        while self.written <= position and not self.complete and self.failure is None:
            await self._grown.wait()

    def remove(self) -> None:
        """Takes the file away; those who have it open keep it."""
        with contextlib.suppress(OSError):  # what cannot be removed now goes with the folder
            self.path.unlink(missing_ok=True)

    async def _fill(self, source: BlobSource) -> None:
        failure: SiteError | None = SpoolFull(f"{self.digest}: its read was ended")
        try:
            await self._read_to_file(source)
            failure = None
        except SiteError as error:
            failure = error
        except OSError as error:
            failure = SpoolFull(f"{self.path}: {error.strerror or error}")
        except Exception as error:  # noqa: BLE001 - followers must hear of it, or they wait for ever
            _log.exception("%s: spool blob: unexpected error", self.digest)
            failure = SpoolFull(f"{self.digest}: unexpected {type(error).__name__}: {error}")
        finally:
            self.failure = self.failure or failure
            self.complete = self.failure is None
            if not self.complete:
                self.remove()
            self._tell()

    async def _read_to_file(self, source: BlobSource) -> None:
        descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            await run_in_thread(partial(reserve, descriptor, self.size))
            async with source.open() as chunks:
                await fill(descriptor, 0, chunks, self._grew)
        finally:
            os.close(descriptor)

    def _grew(self, written: int) -> None:
        self.written = written
        self._tell()

    def _tell(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()


class _Follower:
    """A `BlobSource` on the spool."""

    def __init__(self, spool: Spool, source: BlobSource) -> None:
        self.descriptor = source.descriptor
        self.failure: SiteError | None = None
        self._spool = spool
        self._source = source

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncGenerator[AsyncIterator[Chunk], None]:
        self.failure = None
        try:
            entry = self._spool.join(self._source)
        except SpoolFull as error:
            self.failure = error
            raise
        following = _Following(self, entry, offset)
        try:
            async with contextlib.aclosing(following.chunks()) as chunks:
                yield Stream(chunks, following.splice)
        finally:
            await entry.leave()


class _Following:
    """One reading of an entry's file, from `position` on."""

    def __init__(self, follower: _Follower, entry: _Entry, position: int) -> None:
        self._follower = follower
        self._entry = entry
        self._position = position
        self._descriptor = -1

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """The bytes as they come. Raises what made the read fail, `SpoolFull` where the file does."""
        entry = self._entry
        try:
            while True:
                await entry.wait_beyond(self._position)
                if entry.failure is not None:
                    self._follower.failure = entry.failure
                    raise entry.failure
                if self._position >= entry.written:
                    return
                if self._descriptor < 0:
                    self._descriptor = os.open(entry.path, os.O_RDONLY)
                while self._position < entry.written:
                    want = min(READ_BYTES, entry.written - self._position)
                    chunk = await run_in_thread(partial(os.pread, self._descriptor, want, self._position))
                    if not chunk:
                        raise OSError(f"it has lost its bytes from {self._position} on")  # noqa: TRY301 - one mapping
                    self._position += len(chunk)
                    yield chunk
                    del chunk
        except OSError as error:
            self._follower.failure = SpoolFull(f"{entry.path}: {error.strerror or error}")
            raise self._follower.failure from error
        finally:
            if self._descriptor >= 0:
                os.close(self._descriptor)

    async def splice(self, splice: Splice) -> None:
        """See `flow.splice.Spliceable`: what is in the file already, by the kernel where nobody hashes it."""
        splice.narrow(self._entry.written - self._position)
        if self._descriptor >= 0 and self._entry.failure is None and splice.is_worth_it:
            splice.count_with(self._count)
            await splice_file(self._descriptor, self._position, splice)

    def _count(self, count: int) -> None:
        self._position += count


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time: a folder that another one has just made and not locked yet would look stale."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _remove_stale(path: Path) -> None:
    """Removes the folders of processes that have ended."""
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
