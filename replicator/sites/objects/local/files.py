"""What is done to single files. Blocks and raises OSError."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Sequence
from typing import Final

from replicator.ports import ObjectInfo
from replicator.sites.objects.local.lenient import sync_folder
from replicator.sites.objects.local.tree import Parts, Tree, info_of, version_of
from replicator.sites.objects.local.workspace import Workspace

CHUNK_BYTES: Final = 256 * 1024
"""As a piece from a registry: the first of a large file passes through the event loop, a thread moves the others."""


class OpenFile:
    """A file being read, the next byte at `at`; its methods block. Its descriptor's own offset stays where it was opened."""

    def __init__(self, tree: Tree, parts: Parts, offset: int) -> None:
        self._tree = tree
        self._parts = parts
        self.at = offset
        self.fd = -1
        self.size = 0

    def open(self) -> int:
        """Opens it and returns its size."""
        self.fd = self._tree.open_file(self._parts)
        self.size = os.fstat(self.fd).st_size
        if self.at:
            os.lseek(self.fd, self.at, os.SEEK_SET)
        return self.size

    def next(self) -> bytes:
        """The next chunk, empty at the end."""
        data = os.pread(self.fd, CHUNK_BYTES, self.at)
        self.at += len(data)
        return data

    @property
    def is_over(self) -> bool:
        """Whether all is read that the file had when it was opened."""
        return self.at >= self.size

    def skip(self, count: int) -> None:
        """Passes bytes that somebody else has read."""
        self.at += count

    def close(self) -> None:
        """Gives the descriptor back, where there is one."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def look_at(tree: Tree, key: str, parts: Parts) -> ObjectInfo | None:
    """A file's facts; None if it does not exist or is a folder."""
    try:
        facts = tree.look(parts)
    except FileNotFoundError:
        return None
    return info_of(key, facts) if stat.S_ISREG(facts.st_mode) else None


def look_at_all(tree: Tree, objects: Sequence[tuple[str, Parts]]) -> list[ObjectInfo | None]:
    """As `look_at` of each key and its parts."""
    found: list[ObjectInfo | None] = []
    for above, group in itertools.groupby(objects, lambda one: one[1][:-1]):
        neighbours = list(group)
        try:
            with tree.folder(above) as folder:
                found += [_look_in(tree, folder, key, parts) for key, parts in neighbours]
        except FileNotFoundError:
            found += [None for _ in neighbours]
    return found


def _look_in(tree: Tree, folder: int, key: str, parts: Parts) -> ObjectInfo | None:
    """As `look_at`, of a file in an open folder."""
    try:
        facts = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(facts.st_mode):
        return look_at(tree, key, parts)
    return info_of(key, facts) if stat.S_ISREG(facts.st_mode) else None


def read_small(tree: Tree, parts: Parts, max_bytes: int) -> tuple[bytes, str, int]:
    """A file's bytes, version and size; of one larger than `max_bytes` no bytes, or just more than that."""
    with tree.file(parts) as (fd, facts):
        if facts.st_size > max_bytes:
            return b"", "", facts.st_size
        data, size = b"", facts.st_size
        while len(data) <= max_bytes and (chunk := os.read(fd, min(size, max_bytes) + 1 - len(data) or 1)):
            data = data + chunk if data else chunk  # one read has it all, unless it grows meanwhile
            size = max(size, len(data))
        return data, version_of(facts), size


def write(workspace: Workspace, parts: Parts, data: bytes, *, replace: bool = True) -> str | None:
    """Writes a file and returns its version; without `replace`, None where there is something already."""
    with workspace.temporary() as file:
        file.write(data)
        facts = file.place(parts, replace=replace)
    return None if facts is None else version_of(facts)


def write_if(workspace: Workspace, key: str, parts: Parts, data: bytes, version: str | None) -> str | None:
    """Writes a file that has this version now (None: does not exist); returns None if it does not.

    Raises:
        Busy: another process is doing the same to this key.
    """
    with workspace.locked(key):
        try:
            found = version_of(workspace.tree.look(parts))
        except FileNotFoundError:
            found = None
        if found != version:
            return None
        return write(workspace, parts, data, replace=version is not None)


def delete(tree: Tree, parts: Parts) -> None:
    """Removes a file, durably, and the folders that it leaves empty."""
    with contextlib.suppress(FileNotFoundError):
        with tree.folder(parts[:-1]) as folder:
            os.unlink(parts[-1], dir_fd=folder)
            sync_folder(folder)
        tree.prune(parts[:-1])
