"""Temporary files and locks, in a folder of their own at the root. Blocks and raises OSError.

Temporary files lie in another tree than the objects (a registry lists what it finds there) of the same file
system (so that renaming is atomic). Each process has a folder for its own and holds a `flock` on it, which the
kernel gives back on any kind of death: what nobody holds is left over.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from typing import Final

from replicator.sites.objects.keys import PRIVATE
from replicator.sites.objects.local import lenient
from replicator.sites.objects.local.tree import Parts, Tree, require_case

_TMP: Final = (PRIVATE, "tmp")
_LOCKS: Final = (PRIVATE, "locks")
_NO_LINKS: Final = lenient.REFUSED | {errno.EMLINK, errno.EXDEV}
_TRIES: Final = 8
"""How often a folder may vanish under us (another process prunes what is empty)."""


class Busy(Exception):
    """Another process holds the lock now."""


class Temporary:
    """A file being written, out of sight. `close` removes it unless it was put in its place."""

    def __init__(self, workspace: Workspace, folder: int, name: str, fd: int) -> None:
        self._workspace = workspace
        self._folder = folder
        self._name = name
        self.fd = fd

    def write(self, *chunks: bytes | memoryview) -> None:
        """Appends all of it."""
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(self.fd, rest) :]

    def place(self, parts: Parts, *, replace: bool = True) -> os.stat_result | None:
        """Puts the file in its place, whole and durable, and returns its facts.

        Without `replace`, None where there is something already; nothing was done then.
        """
        lenient.stamp(self.fd)
        self._workspace.tree.likeness().take(self.fd, folder=False)
        os.fsync(self.fd)
        if not move(self._workspace.tree, self._folder, self._name, parts, replace=replace):
            return None
        return os.fstat(self.fd)

    def close(self) -> None:
        """Gives the file back."""
        os.close(self.fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._folder)


class Workspace:
    """This process's own temporary files in one tree. Safe for threads."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._lock = threading.Lock()
        self._name = ""
        self._folder: int | None = None
        self.has_locks = True

    @contextlib.contextmanager
    def temporary(self) -> Iterator[Temporary]:
        """A new file, removed at the end unless it was placed."""
        file = self.open()
        try:
            yield file
        finally:
            file.close()

    def open(self) -> Temporary:
        """As `temporary`; the caller closes it."""
        name = secrets.token_hex(8)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._lock:
            folder = self._ready()
            return Temporary(self, folder, name, os.open(name, flags, 0o600, dir_fd=folder))

    def link(self, origin: Parts, parts: Parts) -> bool:
        """Gives a file a second name, durably, in the place of what has that name. False: not by a hard link."""
        with self.tree.folder(origin[:-1]) as source:
            if not stat.S_ISREG(os.stat(origin[-1], dir_fd=source, follow_symlinks=False).st_mode):
                return False
            name = secrets.token_hex(8)
            with self._lock:
                folder = self._ready()
            try:
                os.link(origin[-1], name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
                move(self.tree, folder, name, parts)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return False
            finally:
                # Renaming one name of a file over another one does nothing and leaves both.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
        return True

    def close(self) -> None:
        """Removes this process's folder, and those above it if nobody else needs them."""
        with self._lock:
            name = self._name
            self._leave()
        if name:
            self.tree.prune(_LOCKS)
            self.tree.prune((*_TMP, name))

    def _ready(self) -> int:
        if self._folder is None or os.fstat(self._folder).st_nlink == 0:  # somebody tidied up too well
            self._leave()
            self._folder, self._name = self._own_folder()
        return self._folder

    def _leave(self) -> None:
        if self._folder is not None:
            os.close(self._folder)
        self._folder, self._name = None, ""

    def _own_folder(self) -> tuple[int, str]:
        self.tree.create()
        for _ in range(_TRIES):
            name = f"{os.getpid()}-{secrets.token_hex(6)}"  # the pid is for people
            with (
                contextlib.suppress(FileNotFoundError),
                self.tree.folder((*_TMP, name), create=True) as folder,
            ):
                if (
                    self._lock_of(folder) and os.fstat(folder).st_nlink
                ):  # else a sweep took it before it was locked
                    return os.dup(folder), name
        raise OSError(errno.EBUSY, "cannot keep a folder for temporary files")

    @contextlib.contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Holds the key's lock, among all processes on this tree.

        Raises:
            Busy: somebody has it; nothing waits here, as waiting would hold a thread.
        """
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self.tree.create()
        with contextlib.ExitStack() as held:
            try:
                folder = held.enter_context(self.tree.folder(_LOCKS, create=True))
                fd = self._lock_file(folder, name)
            except FileNotFoundError:
                raise Busy from None  # another process that has no more use for the folder removed it meanwhile
            try:
                yield
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(
                        name, dir_fd=folder
                    )  # while it is held: who waits for it sees that and starts over
                os.close(fd)

    def _lock_of(self, fd: int) -> bool:
        """Takes a lock, or does without on a file system that has none: then one process only may write."""
        try:
            return lenient.lock(fd)
        except lenient.NoLocks:
            self.has_locks = False
            return True

    def _lock_file(self, folder: int, name: str) -> int:
        for _ in range(_TRIES):
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
            try:
                if not self._lock_of(fd):
                    raise Busy
                if os.fstat(fd).st_nlink:
                    self.tree.likeness().take(fd, folder=False)
                    return os.dup(fd)
            finally:
                os.close(fd)
        raise Busy


def move(tree: Tree, folder: int, name: str, parts: Parts, *, replace: bool = True) -> bool:
    """Renames a file of `folder` to its place, durably, making the folders it needs.

    Without `replace`, False where there is something already; nothing was done then.
    """
    for attempt in range(_TRIES):
        try:
            with tree.folder(parts[:-1], create=True) as target:
                require_case(target, parts[-1])
                if not replace and not _move_new(folder, name, target, parts[-1]):
                    return False
                if replace:
                    _move_over(folder, name, target, parts[-1])
                lenient.sync_folder(target)
            tree.expect()
            return True  # noqa: TRY300 - the loop's way out
        except FileNotFoundError:
            if attempt == _TRIES - 1:
                raise
        except OSError as error:
            if error.errno in {errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST}:
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), "/".join(parts)) from None
            raise
    raise AssertionError("unreachable: the last try returns or raises")


def _move_over(folder: int, name: str, target: int, new_name: str) -> None:
    try:
        os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=target)
    except (FileExistsError, PermissionError) as error:
        # Some file systems do not rename over a file. Then the old one steps aside, and comes back if that fails.
        try:
            is_file = stat.S_ISREG(os.stat(new_name, dir_fd=target, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            is_file = False
        if not is_file:
            raise
        aside = f"{name}.old"
        try:
            os.rename(new_name, aside, src_dir_fd=target, dst_dir_fd=folder)
        except OSError:
            raise error from None
        try:
            os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=target)
        except BaseException:
            os.rename(aside, new_name, src_dir_fd=folder, dst_dir_fd=target)
            raise
        os.unlink(aside, dir_fd=folder)


def _move_new(folder: int, name: str, target: int, new_name: str) -> bool:
    try:
        os.link(name, new_name, src_dir_fd=folder, dst_dir_fd=target, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        return True
    # No hard links here. The caller holds the key's lock, so this is good among ourselves.
    try:
        os.stat(new_name, dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=target)
        return True
    return False


def sweep(tree: Tree) -> None:
    """Removes the temporary files and locks that no process holds."""
    for name in _names(tree, _TMP):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            with tree.folder((*_TMP, name)) as folder:
                if not _is_left(folder):
                    continue
                for file in os.listdir(folder):  # noqa: PTH208 - of a descriptor
                    os.unlink(file, dir_fd=folder)
            tree.prune((*_TMP, name))
    for name in _names(tree, _LOCKS):
        with (
            contextlib.suppress(FileNotFoundError),
            tree.file((*_LOCKS, name)) as (fd, _),
            tree.folder(_LOCKS) as folder,
        ):
            if _is_left(fd):
                os.unlink(name, dir_fd=folder)
    tree.prune(_LOCKS)


def _names(tree: Tree, parts: Parts) -> list[str]:
    try:
        with tree.folder(parts) as folder:
            return os.listdir(folder)  # noqa: PTH208 - of a descriptor
    except FileNotFoundError:
        return []


def _is_left(fd: int) -> bool:
    """Whether no process holds the lock; False where that cannot be told."""
    try:
        return lenient.lock(fd)
    except lenient.NoLocks:
        return False
