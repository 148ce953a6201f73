"""Copies within one file system that no byte of passes through us. Blocks and raises OSError."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final

from replicator.sites.objects.local.lenient import REFUSED
from replicator.sites.objects.local.workspace import Temporary

STEP_BYTES: Final = 64 << 20
"""Copied between two looks at whether it is still wanted."""
_FICLONE: Final = 0x40049409
_NOT_HERE: Final = REFUSED | {errno.EXDEV, errno.EBADF}


def clone(source: int, target: Temporary) -> bool:
    """Makes the target share the source's blocks (Btrfs, XFS, bcachefs). False where that cannot be done."""
    try:
        fcntl.ioctl(target.fd, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return False
    return True


def copy_step(source: int, target: Temporary) -> int:
    """Copies the next `STEP_BYTES` at most and returns how many; 0 at the end. Both files' positions move on."""
    try:
        return os.copy_file_range(source, target.fd, STEP_BYTES)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
    data = os.read(source, 1 << 20)
    target.write(data)
    return len(data)
