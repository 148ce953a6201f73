"""A folder that no key leads out of. Everything here blocks and raises OSError; `store` runs it in threads.

Folders are opened one part at a time, each relative to the one before and never through a symbolic link, so
that somebody who swaps a folder for a link meanwhile changes nothing. A link that is found is resolved; where
it stays inside the root its target's own path is walked in the same way, otherwise it is refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from replicator.ports import ObjectInfo
from replicator.sites.objects.keys import PRIVATE
from replicator.sites.objects.local import lenient
from replicator.sites.objects.local.errormap import LeadsOutside, NotMounted, OtherCase

Parts = Sequence[str]

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a fifo must not hold us up


_NOT_CONTENT: Final = frozenset({PRIVATE, "lost+found"})


@dataclass(frozen=True, slots=True)
class Likeness:
    """Whose new files and folders are, and what may be done with them: as with the root."""

    uid: int
    gid: int
    mode: int

    def take(self, fd: int, *, folder: bool) -> None:
        """Gives a new file or folder the root's owner (only root can do that) and mode, as far as the file system can."""
        if os.geteuid() == 0:
            lenient.own(fd, self.uid, self.gid)
        lenient.set_mode(fd, self.mode if folder else self.mode & 0o666)


class Tree:
    """The files below one folder, by parts of their keys."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.may_expect = True
        self.is_expected = False
        self._seen: tuple[int, int] | None = None

    def create(self) -> None:
        """Makes the root where it is missing. Raises `NotMounted` if it was expected to have content."""
        if self.is_expected:
            os.close(self.open_root())
        self.path.mkdir(parents=True, exist_ok=True)

    def open_root(self) -> int:
        """The root's descriptor.

        Raises:
            NotMounted: content `is_expected` here but missing. Looked at once for each file system: a root
                that becomes empty while it stays the same folder was emptied by somebody.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if self.is_expected:
                raise NotMounted(str(self.path), "does not exist") from None
            raise
        try:
            self._require_content(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def expect(self) -> None:
        """Content was written to the root as it is now."""
        if self.may_expect and not self.is_expected:
            facts = self.path.stat()
            self._seen = (facts.st_dev, facts.st_ino)
            self.is_expected = True

    def _require_content(self, fd: int) -> None:
        facts = os.fstat(fd)
        if self.is_expected and self._seen != (facts.st_dev, facts.st_ino):
            if _NOT_CONTENT.issuperset(os.listdir(fd)):
                raise NotMounted(str(self.path), "is empty")
            self._seen = (facts.st_dev, facts.st_ino)

    @contextlib.contextmanager
    def folder(self, parts: Parts, *, create: bool = False) -> Iterator[int]:
        """A folder's descriptor. With `create` it is made where missing, durably."""
        try:
            fd = self._descend(parts, create=create)
        except OSError as error:
            if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
                raise
            fd = self._descend(self._resolved(parts, error), create=create)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def file(self, parts: Parts) -> Iterator[tuple[int, os.stat_result]]:
        """A regular file's descriptor, for reading, and its facts."""
        fd = self.open_file(parts)
        try:
            yield fd, os.fstat(fd)
        finally:
            os.close(fd)

    def open_file(self, parts: Parts) -> int:
        """As `file`; the caller closes it."""
        try:
            fd = self._open_file(parts)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            fd = self._open_file(self._resolved(parts, error))
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            os.close(fd)
            number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
            raise OSError(number, os.strerror(number), "/".join(parts))
        return fd

    def look(self, parts: Parts) -> os.stat_result:
        """A file's or folder's facts, a link's within the root being its target's."""
        found = self._look(parts)
        if stat.S_ISLNK(found.st_mode):
            error = OSError(errno.ELOOP, "symbolic link", "/".join(parts))
            found = self._look(self._resolved(parts, error))
        return found

    def is_alias(self, parts: Parts) -> bool:
        """Whether a link may be walked into: its own folder is behind no link, and it leads to none of those above it."""
        root = Path(os.path.realpath(self.path))
        above = root.joinpath(*parts[:-1])
        target = Path(os.path.realpath(root.joinpath(*parts)))
        return Path(os.path.realpath(above)) == above and not above.is_relative_to(target)

    def likeness(self) -> Likeness:
        """What new files and folders are to be like."""
        root = self.path.stat()
        return Likeness(root.st_uid, root.st_gid, stat.S_IMODE(root.st_mode))

    def prune(self, parts: Parts) -> None:
        """Removes the folder and those above it as long as they are empty; never the root.

        A bucket has no empty folders either, and a registry lists what is left of a deleted tag's folder as a
        tag.
        """
        for depth in range(len(parts), 0, -1):
            try:
                with self.folder(parts[: depth - 1]) as above:
                    os.rmdir(parts[depth - 1], dir_fd=above)
            except OSError:
                return  # not empty, or gone, or not ours to remove

    def _look(self, parts: Parts) -> os.stat_result:
        with self.folder(parts[:-1]) as above:
            return os.stat(_last(parts), dir_fd=above, follow_symlinks=False)

    def _open_file(self, parts: Parts) -> int:
        with self.folder(parts[:-1]) as above:
            try:
                return os.open(_last(parts), _FILE, dir_fd=above)
            except OSError as error:
                raise _named(error, parts) from None

    def _descend(self, parts: Parts, *, create: bool) -> int:
        fd = self.open_root()
        made: list[int] = []  # folders in which another was made, to be written out at the end
        try:
            for depth, part in enumerate(parts, 1):
                try:
                    below, is_new = self._step(fd, part, create=create)
                except OSError as error:
                    raise _named(error, parts[:depth]) from None
                if is_new:
                    made.append(fd)
                else:
                    os.close(fd)
                fd = below
            # Innermost last: the first fsync commits them all on a journaling file system, the others cost nothing.
            for above in made:
                lenient.sync_folder(above)
        except BaseException:
            os.close(fd)
            raise
        finally:
            for above in made:
                if above != fd:
                    os.close(above)
        return fd

    def _step(self, fd: int, part: str, *, create: bool) -> tuple[int, bool]:
        try:
            if create:
                require_case(fd, part)
            return os.open(part, _FOLDER, dir_fd=fd), False
        except FileNotFoundError:
            if not create:
                raise
        is_new = True
        try:
            os.mkdir(part, 0o700, dir_fd=fd)
        except FileExistsError:
            is_new = False  # somebody was faster
        below = os.open(part, _FOLDER, dir_fd=fd)
        if is_new:
            try:
                self.likeness().take(below, folder=True)
            except BaseException:
                os.close(below)
                raise
        return below, is_new

    def _resolved(self, parts: Parts, error: OSError) -> Parts:
        """The path of what the parts lead to, free of links. Raises `error` if the reason is not a link."""
        root = Path(os.path.realpath(self.path))  # not Path.resolve, which cannot take links in a circle
        here = root.joinpath(*parts)
        target = Path(os.path.realpath(here))
        if target == here:
            raise error
        if not target.is_relative_to(root):
            raise LeadsOutside("/".join(parts))
        return target.relative_to(root).parts


def require_case(fd: int, name: str) -> None:
    """Raises `OtherCase` where the folder has the name in other letters: tags `V1` and `v1` would be one file there."""
    other = name.swapcase()
    if other == name:
        return
    try:
        facts = os.stat(other, dir_fd=fd, follow_symlinks=False)
        same = os.path.samestat(facts, os.stat(name, dir_fd=fd, follow_symlinks=False))
    except FileNotFoundError:
        return  # only where both lead to one file does the file system not tell them apart
    if same and name not in (names := os.listdir(fd)):
        there = [one for one in names if one.casefold() == name.casefold()]
        raise OtherCase(name, there[0] if there else other)


def _last(parts: Parts) -> str:
    return parts[-1] if parts else "."  # a link may lead to the root itself


def _named(error: OSError, parts: Parts) -> OSError:
    if isinstance(error, OtherCase):
        return error
    return OSError(error.errno, error.strerror, "/".join(parts))


def version_of(facts: os.stat_result) -> str:
    """What a file has for an ETag. Time, size and inode: each writing of ours makes a new file."""
    return f"{facts.st_mtime_ns:x}-{facts.st_size:x}-{facts.st_ino:x}"


def info_of(key: str, facts: os.stat_result) -> ObjectInfo:
    """A file's facts as the port has them."""
    return ObjectInfo(key, facts.st_size, version_of(facts), facts.st_mtime_ns / 1e9)
