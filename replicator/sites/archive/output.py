"""Where an archive is written to: a file that appears whole or not at all, or a pipe. Blocks and raises OSError."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from replicator.sites.objects.local import lenient

_PIECE_BYTES: Final = 1 << 20


class Output:
    """Takes the archive's bytes in order.

    What fails in the middle of a file is taken back, so that the archive can go on; of a pipe nothing can be taken
    back, and every later write fails as well.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._failed: OSError | None = None

    def append(self, head: bytes, source: int | bytes, tail: bytes) -> None:
        """Appends a file: `source` is its bytes, or a descriptor to read them from."""
        if self._failed is not None:
            raise self._failed
        try:
            with self._undone():
                self._write(head)
                for piece in _pieces(source):
                    self._write(piece)
                self._write(tail)
        except OSError as error:
            error.filename = None
            raise

    @contextlib.contextmanager
    def _undone(self) -> Iterator[None]:
        try:
            before = os.lseek(self._fd, 0, os.SEEK_CUR)
        except OSError:
            before = -1
        try:
            yield
        except OSError as error:
            if before < 0:
                self._failed = error
            else:
                os.ftruncate(self._fd, before)
                os.lseek(self._fd, before, os.SEEK_SET)
            raise

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def finish(self) -> None:
        """Makes the archive visible, whole and durable. A pipe has it already."""

    def close(self) -> None:
        """Gives everything back; what was not finished is gone."""


class FileOutput(Output):
    """A file, written beside its place under a name of its own.

    The name is always the same, and locked while somebody writes: what a killed process left is written over.

    Args:
        path: the file's place; what is there is replaced at the end.

    Raises:
        OSError: it cannot be made there, or another process is writing it (EAGAIN).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        if path.is_dir():
            raise IsADirectoryError(21, os.strerror(21), str(path))
        while True:
            fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            try:
                _lock(fd)
                if os.fstat(fd).st_nlink:  # else its writer has just put it in its place
                    os.ftruncate(fd, 0)
                    break
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        super().__init__(fd)

    def finish(self) -> None:
        """See `Output`."""
        os.fsync(self._fd)
        self._part.rename(self._path)
        self._part = self._path  # nothing to remove any more
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            lenient.sync_folder(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """See `Output`."""
        if self._part != self._path:
            with contextlib.suppress(FileNotFoundError):
                self._part.unlink()
        os.close(self._fd)


def _lock(fd: int) -> None:
    """Raises BlockingIOError if another process has the lock; continues without a lock if the file system has none."""
    with contextlib.suppress(lenient.NoLocks):
        if not lenient.lock(fd):
            raise BlockingIOError(errno.EAGAIN, "another process is writing it")


def _pieces(source: int | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    os.lseek(source, 0, os.SEEK_SET)
    while piece := os.read(source, _PIECE_BYTES):
        yield piece
