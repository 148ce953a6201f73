"""From an OSError to the `SiteError` that says so."""

from __future__ import annotations

import errno
from typing import Final

from replicator.errors import Advice, Denied, NotFound, Rejected, SiteError, Unavailable

_SHAPE: Final = {
    errno.ENOTDIR: "is a file where a folder should be",
    errno.EISDIR: "is a folder where a file should be",
    errno.ENOTEMPTY: "is a folder where a file should be",
    errno.ELOOP: "is a symbolic link that leads nowhere good",
    errno.ENAMETOOLONG: "has a longer name than this file system takes",
    errno.EINVAL: "is a name that this file system does not take",
    errno.EILSEQ: "is a name that this file system does not take",
}
_FULL: Final = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the quota of this user or group is used up",
    errno.EFBIG: "a file of this size is not allowed here",
}
_BRIEF: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.EINTR, errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT}
)


class LeadsOutside(OSError):
    """A symbolic link below the root leads out of it."""

    text: Final = "is a symbolic link that leads out of the root; not followed"

    def __init__(self, path: str) -> None:
        super().__init__(errno.EXDEV, "leads out of the root", path)


class NotMounted(OSError):
    """The root has no content, though there was some before."""

    def __init__(self, path: str, how: str) -> None:
        super().__init__(errno.ENODEV, how, path)


class OtherCase(OSError):
    """A name is there already, written with other capitals, and the file system takes the two for one."""

    def __init__(self, name: str, there: str) -> None:
        super().__init__(errno.ENOTUNIQ, "differs in case alone", name)
        self.text = (
            f"is there already as {there}, and this file system does not tell upper case from lower: "
            "select one of the two, or use another file system"
        )


def disk_error(site: str, operation: str, error: OSError) -> SiteError:
    """What an error of the file system means and what to do about it."""
    number = error.errno or 0
    name = error.filename if isinstance(error.filename, str) and error.filename.isprintable() else "the path"
    if isinstance(error, LeadsOutside | OtherCase):
        return Rejected(site, operation, f"{name} {error.text}")
    if number in _SHAPE:
        return Rejected(site, operation, f"{name} {_SHAPE[number]}")
    if number in _FULL:
        return Unavailable(site, operation, _FULL[number], advice=Advice.LATER)
    text = error.strerror or type(error).__name__
    if isinstance(error, NotMounted):
        text = (
            f"{error.filename} {text}, though images are expected in it: is its file system mounted? "
            "If it is meant to be empty, set must_exist = false for this site"
        )
    if number == errno.ENOENT:
        return NotFound(site, operation, "no such file or folder")
    if number in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return Denied(site, operation, text.lower())
    return Unavailable(site, operation, text, advice=Advice.RETRY if number in _BRIEF else Advice.LATER)


def error_word(error: OSError) -> str:
    """The error as a metric's label."""
    return errno.errorcode.get(error.errno or 0, "error").lower()
