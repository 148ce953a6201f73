"""The tar format, as far as archives of images need it. What is read is taken for hostile.

Plain files and folders are all that such an archive has. Python's `tarfile` would follow every extension that a
header announces, whatever its size.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from replicator.sites.bounds import MAX_TAR_ENTRIES, MAX_TAR_HEADER_BYTES, MAX_TAR_NAME_BYTES

BLOCK: Final = 512

_FILES: Final = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE})
_LONG_NAME: Final = tarfile.GNUTYPE_LONGNAME
_PAX: Final = frozenset({tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE})
_OTHERS: Final = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
_COMPRESSIONS: Final = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
}


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a file's bytes lie in the archive."""

    offset: int
    size: int


def header(name: str, size: int) -> bytes:
    """The header of a file; the same for the same file, whoever writes it and when."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """What follows a file's bytes, up to the next header."""
    return bytes(-size % BLOCK)


def trailer() -> bytes:
    """What ends an archive."""
    return bytes(2 * BLOCK)


def scan(fd: int) -> dict[str, Extent]:
    """The plain files of an archive, by their name. Only headers are read.

    Raises:
        ValueError: cut short, no tar, or something in it that has no business in an archive of images.
        OSError: it cannot be read.
    """
    length = os.fstat(fd).st_size
    start = os.pread(fd, 6, 0)
    for magic, what in _COMPRESSIONS.items():
        if start.startswith(magic):
            raise ValueError(f"it is compressed with {what}; decompress it first")
    return _Scan(lambda size, at: os.pread(fd, size, at), length).run()


class _Scan:
    def __init__(self, read: Callable[[int, int], bytes], length: int) -> None:
        self._read = read
        self._length = length
        self._at = 0
        self._files: dict[str, Extent] = {}
        self._long_name: str | None = None
        self._long_size: int | None = None

    def run(self) -> dict[str, Extent]:
        for _ in range(MAX_TAR_ENTRIES):
            block = self._read(BLOCK, self._at)
            if len(block) < BLOCK:
                raise ValueError(f"it is cut short: it ends after {self._length} bytes without a tar's end")
            if not any(block):
                return self._files
            self._entry(block)
        raise ValueError(f"it has more than {MAX_TAR_ENTRIES} entries")

    def _entry(self, block: bytes) -> None:
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise ValueError(f"not a tar file, or modified: at byte {self._at}: {error}") from error
        self._at += BLOCK
        if info.type in _PAX or info.type in {_LONG_NAME, tarfile.XGLTYPE}:
            self._extension(info)
            return
        name, size = _checked(self._long_name or info.name), self._long_size or info.size
        self._long_name = self._long_size = None
        if info.type == tarfile.DIRTYPE:
            return
        if info.type not in _FILES:
            what = _OTHERS.get(info.type, f"an entry of the type {info.type!r}")
            raise ValueError(f"{name!r} is {what}; an archive of images has plain files only")
        if name in self._files:
            raise ValueError(f"{name!r} is in it twice")
        self._files[name] = Extent(self._at, size)
        self._skip(name, size)

    def _skip(self, name: str, size: int) -> None:
        if not 0 <= size <= self._length - self._at:
            left = self._length - self._at
            raise ValueError(f"it is cut short: {name!r} should have {size} bytes, and {left} are left")
        self._at += size + len(padding(size))

    def _extension(self, info: tarfile.TarInfo) -> None:
        if not 0 <= info.size <= MAX_TAR_HEADER_BYTES:
            raise ValueError(f"a header of {info.size} bytes at byte {self._at}")
        data = self._read(info.size, self._at)
        self._skip("a header", info.size)
        if info.type == _LONG_NAME:
            self._long_name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif info.type in _PAX:
            self._pax(data)

    def _pax(self, data: bytes) -> None:
        """Takes path and size; what else such a header may say changes nothing here."""
        for key, value in _records(data):
            if key == b"path":
                self._long_name = value.decode("utf-8", "surrogateescape")
            elif key == b"size":
                if not value.isdigit() or len(value) > 18:
                    raise ValueError(f"a header says the size {value[:40]!r}")
                self._long_size = int(value)
            elif key.startswith(b"GNU.sparse"):
                raise ValueError("it has a sparse file; an archive of images has plain files only")


def _records(data: bytes) -> list[tuple[bytes, bytes]]:
    """The `LENGTH KEY=VALUE` lines of a pax header."""
    found = []
    while data.strip(b"\0"):
        length, space, _ = data.partition(b" ")
        if not space or not length.isdigit() or len(length) > 6 or not 0 < int(length) <= len(data):
            raise ValueError("a pax header that cannot be understood")
        record, data = data[len(length) + 1 : int(length)], data[int(length) :]
        key, equals, value = record.removesuffix(b"\n").partition(b"=")
        if not equals:
            raise ValueError("a pax header that cannot be understood")
        found.append((key, value))
    return found


def _checked(name: str) -> str:
    """The name as a relative path. Nothing is ever unpacked; yet who names files so means no good."""
    plain = name.removeprefix("./").rstrip("/")
    parts = plain.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise ValueError(f"{name[:200]!r} is a name that leads out of the archive")
    if len(name.encode("utf-8", "surrogateescape")) > MAX_TAR_NAME_BYTES:
        raise ValueError(f"a name of more than {MAX_TAR_NAME_BYTES} bytes: {name[:80]!r}...")
    return plain
