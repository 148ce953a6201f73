"""Opens archives for reading and writing. An archive is written completely or not at all."""

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
    """Opens an archive for reading, as a reader and as a site.

    Args:
        path: the file; None is stdin, which is copied to an unnamed temporary file first.
        name: the name of the site.
        watch: receives the events of the site.
        only: the name of a single repository that has all images; None keeps the archive's repositories.

    Raises:
        ConfigError: the file cannot be opened.
        Corrupt: the archive is truncated, modified, or not an archive.
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
    """Opens an archive for writing, as a writer and as a site. Without `ArchiveWriter.finish`, no file is created.

    Args:
        path: the file; None is stdout, where readers reject an unfinished archive.
        name: the name of the site.
        watch: receives the events of the site.
        only: the name of a single repository that has all images.
        have: blobs to leave out, with their sizes.

    Raises:
        ConfigError: the file cannot be written.
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
        cause = "is being written by another process" if busy else error.strerror
        raise ConfigError([f"{path}: {cause}"]) from None


def _opened(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise ConfigError([f"{path}: not a regular file; to read from a pipe, use - and redirect stdin"])


def _spooled() -> int:
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(sys.stdin.buffer, file, _COPY_BYTES)
        file.flush()
        return os.dup(file.fileno())
