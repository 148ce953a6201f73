"""What a power cut would leave: every change of a file or folder, and whether an fsync came after it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class Disk:
    """Files and folders by their inode, as far as they were changed since their last fsync.

    Attributes:
        syncs: how many fsyncs there were.
        placed_early: names that were given to a file whose bytes were not durable.
    """

    def __init__(self, below: Path) -> None:
        self._below = below
        self._dirty_files: set[int] = set()
        self._dirty_folders: dict[int, str] = {}
        self.placed_early: list[str] = []
        self.syncs = 0

    def volatile(self) -> list[str]:
        """Folders whose entries a power cut could undo, but for our own temporary ones; those that were removed are no loss."""
        return sorted(path for path in self._dirty_folders.values() if Path(path).is_dir())

    def wrote(self, fd: int) -> None:
        self._dirty_files.add(os.fstat(fd).st_ino)

    def entry(self, name: Any, folder: int | None) -> None:
        """An entry of a folder was made, replaced or removed."""
        above = Path(f"/proc/self/fd/{folder}").readlink() if folder is not None else Path()
        path = (above / name).absolute()
        if path.is_relative_to(self._below) and ".replicator" not in path.parts:
            self._dirty_folders[path.parent.stat().st_ino] = str(path.parent)

    def placed(self, name: Any, folder: int | None) -> None:
        """A file got this name."""
        self.entry(name, folder)
        inode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino
        if inode in self._dirty_files:
            self.placed_early.append(os.fspath(name))

    def synced(self, fd: int) -> None:
        self.syncs += 1
        inode = os.fstat(fd).st_ino
        self._dirty_files.discard(inode)
        self._dirty_folders.pop(inode, None)


@contextmanager
def watched_disk(below: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Watches the calls of `os` that change files and folders below a path."""
    disk = Disk(below)
    real = {
        name: getattr(os, name) for name in ("write", "rename", "replace", "link", "mkdir", "unlink", "fsync")
    }
    copy = os.copy_file_range

    def write(fd: int, data: Any) -> int:
        disk.wrote(fd)
        return int(real["write"](fd, data))

    def copy_file_range(source: int, target: int, *rest: Any, **named: Any) -> int:
        disk.wrote(target)
        return copy(source, target, *rest, **named)

    def rename(old: Any, new: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        real["rename"](old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        disk.placed(new, dst_dir_fd)
        disk.entry(old, src_dir_fd)

    def link(
        old: Any, new: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None, **named: Any
    ) -> None:
        real["link"](old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, **named)
        disk.placed(new, dst_dir_fd)

    def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        real["mkdir"](path, mode, dir_fd=dir_fd)
        disk.entry(path, dir_fd)

    def unlink(path: Any, *, dir_fd: int | None = None) -> None:
        real["unlink"](path, dir_fd=dir_fd)
        disk.entry(path, dir_fd)

    def fsync(fd: int) -> None:
        real["fsync"](fd)
        disk.synced(fd)

    with monkeypatch.context() as patched:
        for replacement in (write, copy_file_range, rename, link, mkdir, unlink, fsync):
            patched.setattr(os, replacement.__name__, replacement)
        yield disk
