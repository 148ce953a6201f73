"""An archive as an object store for the OCI layout: each repository's folder leads to the one set of blobs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from replicator.model.digest import Digest, algorithm, encoded, is_digest
from replicator.ports import ObjectInfo, ObjectPage
from replicator.sites.layouts.oci.paths import BLOBS, INDEX, MARKER

MARKER_BODY: Final = b'{"imageLayoutVersion":"1.0.0"}'


@dataclass(frozen=True, slots=True)
class Key:
    """A key taken apart: `digest` of a blob, else `name` of one of a layout's own files; `folder` ends in "/" or is ""."""

    folder: str
    name: str
    digest: Digest | None = None


def parse_key(key: str) -> Key | None:
    """The parts of a key; None for one that no layout has."""
    parts = key.split("/")
    if parts[-1] in {INDEX, MARKER}:
        return Key(_folder(parts[:-1]), parts[-1])
    if len(parts) >= 3 and parts[-3] == BLOBS and is_digest(digest := f"{parts[-2]}:{parts[-1]}"):
        return Key(_folder(parts[:-3]), "", Digest(digest))
    return None


def blob_name(digest: Digest) -> str:
    """A blob's name in the archive."""
    return f"{BLOBS}/{algorithm(digest)}/{encoded(digest)}"


def listing(
    prefix: str, folders: Iterable[str], blobs: Iterable[tuple[Digest, int]], *, delimiter: bool
) -> ObjectPage:
    """What `ObjectStore.list` tells of folders that all have the same blobs."""
    objects: list[ObjectInfo] = []
    below: dict[str, None] = {}
    for key, size in _keys(prefix, folders, blobs, delimiter=delimiter):
        if not key.startswith(prefix):
            continue
        head, slash, _ = key.removeprefix(prefix).partition("/")
        if delimiter and slash:
            below[prefix + head] = None
        else:
            objects.append(ObjectInfo(key, size, key, 0.0))
    return ObjectPage(objects, list(below))


def _keys(
    prefix: str, folders: Iterable[str], blobs: Iterable[tuple[Digest, int]], *, delimiter: bool
) -> Iterator[tuple[str, int]]:
    for folder in folders:
        yield f"{folder}{MARKER}", len(MARKER_BODY)
        yield f"{folder}{INDEX}", 0
        if delimiter and not prefix.startswith(f"{folder}{BLOBS}/"):
            yield f"{folder}{BLOBS}/", 0  # one stands for all
        else:
            yield from ((folder + blob_name(digest), size) for digest, size in blobs)


def _folder(parts: list[str]) -> str:
    return "/".join(parts) + "/" if parts else ""
