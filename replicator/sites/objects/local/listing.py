"""Walking a tree in the order of its keys. Blocks and raises OSError."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from replicator.ports import ObjectInfo
from replicator.sites.objects.keys import PRIVATE
from replicator.sites.objects.local.tree import Parts, Tree, info_of


@dataclass(frozen=True, slots=True)
class Below:
    """A prefix that a listing with a delimiter stops at, without a trailing "/"."""

    prefix: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a folder has; `facts` None for a folder."""

    name: str
    facts: os.stat_result | None

    @property
    def order(self) -> bytes:
        """As a bucket sorts: by the whole key, where a folder's name goes on with "/"."""
        return os.fsencode(self.name if self.facts else self.name + "/")


def walk(tree: Tree, prefix: str, *, delimiter: bool) -> Iterator[ObjectInfo | Below]:
    """What begins with `prefix`, sorted by the bytes of the keys, and none of our own files.

    Files that come or go meanwhile may be missing or not. A symbolic link is followed inside the root only, and not
    where it leads to a folder above itself or lies in a folder that is itself behind a link: so links in a circle end,
    and everything is still listed under its own name. Any other is listed as the link it is, so that whoever reads it
    is told. Special files are left out. Of each folder that is open the names are held, never of the whole tree.
    """
    above, _, begins = prefix.rpartition("/")
    os.close(tree.open_root())  # a missing root is not an empty one
    start = tuple(above.split("/")) if above else ()
    pending = [iter(_entries(tree, start, begins, delimiter=delimiter))]
    places = [start]
    while pending:
        entry = next(pending[-1], None)
        if entry is None:
            pending.pop()
            places.pop()
            continue
        parts = (*places[-1], entry.name)
        if entry.facts is not None:
            yield info_of("/".join(parts), entry.facts)
        elif delimiter:
            yield Below("/".join(parts))
        else:
            pending.append(iter(_entries(tree, parts, "", delimiter=False)))
            places.append(parts)


def _entries(tree: Tree, parts: Parts, begins: str, *, delimiter: bool) -> list[_Entry]:
    found: list[_Entry] = []
    try:
        with tree.folder(parts) as folder, os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(begins) or (not parts and entry.name == PRIVATE):
                    continue
                with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                    found += _judged(tree, parts, entry, delimiter=delimiter)
    except FileNotFoundError:
        return []
    found.sort(key=lambda entry: entry.order)
    return found


def _judged(tree: Tree, parts: Parts, entry: os.DirEntry[str], *, delimiter: bool) -> Iterator[_Entry]:
    if entry.is_dir(follow_symlinks=False):
        yield _Entry(entry.name, None)
        return
    facts = entry.stat(follow_symlinks=False)
    if stat.S_ISREG(facts.st_mode):
        yield _Entry(entry.name, facts)
    elif stat.S_ISLNK(facts.st_mode):
        with contextlib.suppress(OSError):  # leads outside or nowhere: listed as the link
            target = tree.look((*parts, entry.name))
            if stat.S_ISREG(target.st_mode):
                facts = target
            elif stat.S_ISDIR(target.st_mode) and delimiter and tree.is_alias((*parts, entry.name)):
                yield _Entry(entry.name, None)
                return
        yield _Entry(entry.name, facts)
