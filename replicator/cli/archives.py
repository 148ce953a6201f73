"""Archives: opened for reading, and written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from replicator.cli.watch import Watch
from replicator.errors import ConfigError
from replicator.model.digest import Digest
from replicator.sites.archive.output import FileOutput, Output
from replicator.sites.archive.reader import ArchiveReader
from replicator.sites.archive.site import WrittenArchive
from replicator.sites.archive.threads import in_thread
from replicator.sites.archive.writer import ArchiveWriter
from replicator.sites.layouts.oci.site import OciSite

_COPY_BYTES = 1 << 20


@contextlib.asynccontextmanager
async def open_archive(
    path: Path | None, name: str, watch: Watch, *, only: str | None = None
) -> AsyncIterator[tuple[ArchiveReader, OciSite]]:
    """An archive that is read, and the site of its repositories, or of `only` one that has all.

    None is stdin, which is kept in a file without a name meanwhile.

    Raises:
        ConfigError: there is no such file.
        Corrupt: it is cut short, altered, or no archive.
    """
    fd = _opened(path) if path else await in_thread(name, "read archive", _spooled)
    reader = await ArchiveReader.open(name, fd)
    site = OciSite(reader, events=watch.events, only=only)
    try:
        yield reader, site
    finally:
        await site.aclose()


@contextlib.asynccontextmanager
async def write_archive(
    path: Path | None,
    name: str,
    watch: Watch,
    *,
    only: str | None = None,
    have: Mapping[Digest, int] | None = None,
) -> AsyncIterator[tuple[ArchiveWriter, OciSite]]:
    """An archive that is written, and its site. It is there after `ArchiveWriter.finish`, else nothing is.

    None is stdout, where what came out of an unfinished one is refused by who reads it.

    Raises:
        ConfigError: it cannot be written there.
    """
    output = _output(path)
    writer = ArchiveWriter(name, output, spool=path.parent if path else None, have=have)
    site = WrittenArchive(writer, events=watch.events, only=only)
    try:
        yield writer, site
    finally:
        await site.aclose()


def _output(path: Path | None) -> Output:
    if path is None:
        return Output(sys.stdout.fileno())
    try:
        return FileOutput(path)
    except OSError as error:
        busy = error.errno in {errno.EAGAIN, errno.EWOULDBLOCK}
        cause = "another process is writing it" if busy else error.strerror
        raise ConfigError([f"{path}: {cause}"]) from None


def _opened(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise ConfigError([f"{path}: is no file; for a pipe write - and give it as stdin"])


def _spooled() -> int:
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(sys.stdin.buffer, file, _COPY_BYTES)
        file.flush()
        return os.dup(file.fileno())
