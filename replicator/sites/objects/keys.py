"""Keys of objects: what may be one, and how one is shown."""

from __future__ import annotations

from typing import Final

from replicator.errors import Rejected

PRIVATE: Final = ".replicator"
"""The folder at a directory's root where we keep temporary files and locks. No key begins with it, no listing shows it."""

MAX_KEY_BYTES: Final = 1024
"""S3's limit; a directory is held to the same, so that what fits one fits the other."""
_NO_COMPONENT: Final = frozenset({"", ".", ".."})


def parts_of(site: str, operation: str, key: str) -> tuple[str, ...]:
    """The key's parts.

    Raises:
        Rejected: the key could lead out of the root (`..`, an absolute path), or is not a valid name.
    """
    parts = tuple(key.split("/"))
    if not _NO_COMPONENT.isdisjoint(parts):
        raise Rejected(site, operation, "a key with an empty, '.' or '..' part could lead out of the root")
    _check_text(site, operation, key)
    if parts[0] == PRIVATE:
        raise Rejected(site, operation, f"{PRIVATE} is kept for replicator's own files")
    return parts


def check_prefix(site: str, operation: str, prefix: str) -> None:
    """As `parts_of`, for the beginning of a key: "", "a/b/" and "a/b/na" are good ones."""
    folders = prefix.split("/")[:-1]
    if not _NO_COMPONENT.isdisjoint(folders):
        raise Rejected(site, operation, "a prefix with an empty, '.' or '..' part could lead out of the root")
    _check_text(site, operation, prefix)


def _check_text(site: str, operation: str, text: str) -> None:
    if "\0" in text:
        raise Rejected(site, operation, "a key with a NUL is none")
    if len(text.encode("utf-8", "surrogateescape")) > MAX_KEY_BYTES:
        raise Rejected(site, operation, f"a key of more than {MAX_KEY_BYTES} bytes")


def shown(verb: str, key: str) -> str:
    """The operation for an error: "read object a/b". A key of another's making writes no control codes."""
    return f"{verb} {key if key.isprintable() else ascii(key)}" if key else verb
