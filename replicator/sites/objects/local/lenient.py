"""System calls that some file systems refuse though the write itself succeeds. Blocks and raises OSError.

exFAT and FAT keep no owner and no mode, an NFS export that squashes root refuses chown, SMB and FUSE mounts refuse
fsync of a folder or a time stamp of our choice, and some have no `flock`. None of that is a reason to lose an image.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from typing import Final

REFUSED: Final = frozenset(
    {errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EROFS}
)
"""What a file system answers that does not know the call, or does not allow it to us."""
_NO_FOLDER_SYNC: Final = frozenset(
    {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EISDIR, errno.EACCES}
)
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class NoLocks(Exception):
    """This file system has no `flock`."""


def own(fd: int, uid: int, gid: int) -> None:
    """Gives a file or folder to somebody, if that is possible."""
    try:
        os.fchown(fd, uid, gid)
    except OSError as error:
        if error.errno not in REFUSED:
            raise


def set_mode(fd: int, mode: int) -> None:
    """Sets a file's or folder's mode, if that is possible."""
    try:
        os.fchmod(fd, mode)
    except OSError as error:
        if error.errno not in REFUSED:
            raise


def stamp(fd: int) -> None:
    """Sets a file's time to now, to the nanosecond if possible.

    The kernel's own time stamps stand still for milliseconds, in which an inode can come back: a version made of
    those could name two contents.
    """
    now = time.time_ns()
    try:
        os.utime(fd, ns=(now, now))
    except OSError as error:
        if error.errno not in REFUSED:
            raise


def sync_folder(fd: int) -> None:
    """Makes a folder's entries durable; where a file system refuses that, its own order of writing has to do."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def lock(fd: int) -> bool:
    """Takes the `flock` of a file or folder; False if another process has it. Raises `NoLocks`."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise NoLocks from None
        raise
    return True
