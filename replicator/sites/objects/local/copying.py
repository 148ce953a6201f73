"""Copies within one file system. Blocks and raises OSError."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final, Protocol

from replicator.sites.objects.local.lenient import REFUSED
from replicator.sites.objects.local.workspace import Temporary

STEP_BYTES: Final = 64 << 20
"""Copied between two looks at whether it is still wanted."""
_PIECE_BYTES: Final = 1 << 20
_FICLONE: Final = 0x40049409
_NOT_HERE: Final = REFUSED | {errno.EXDEV, errno.EBADF}


class Hash(Protocol):
    """One of `hashlib`'s."""

    def update(self, data: bytes, /) -> None:
        """Takes the next bytes."""
        ...


def clone(source: int, target: Temporary) -> bool:
    """Makes the target share the source's blocks (Btrfs, XFS, bcachefs). False where that cannot be done."""
    try:
        fcntl.ioctl(target.fd, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return False
    return True


def hash_step(fd: int, offset: int, hashed: Hash) -> int:
    """Hashes the next `STEP_BYTES` at most from the offset on and returns how many; 0 at the end."""
    count = 0
    while count < STEP_BYTES and (data := os.pread(fd, _PIECE_BYTES, offset + count)):
        hashed.update(data)
        count += len(data)
    return count


def copy_hashed_step(source: int, target: Temporary, hashed: Hash) -> int:
    """As `copy_step`, through our hands, to hash it on the way."""
    count = 0
    while count < STEP_BYTES and (data := os.read(source, _PIECE_BYTES)):
        hashed.update(data)
        target.write(data)
        count += len(data)
    return count


def copy_step(source: int, target: Temporary) -> int:
    """Copies the next `STEP_BYTES` at most and returns how many; 0 at the end. Both files' positions move on."""
    try:
        return os.copy_file_range(source, target.fd, STEP_BYTES)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
    data = os.read(source, _PIECE_BYTES)
    target.write(data)
    return len(data)
