"""`index.json`: the roots of a layout and their tags. What other tools wrote in it is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from replicator.flow.thread import give_way
from replicator.model.manifest import Manifest, annotations_of
from replicator.model.mediatypes import OCI_INDEX
from replicator.sites.layouts.oci.entries import (
    CONTAINERD_NAME,
    REF_NAME,
    Entry,
    annotations_in,
    entry_of,
    is_plain,
    without_names,
)
from replicator.sites.layouts.oci.parsing import Root, read_index, root_of
from replicator.sites.layouts.oci.roots import Roots

_NONE: Final = ()
_AT_ONCE: Final = 2_048
"""Entries that are sorted in about a millisecond."""


class Index:
    """An `index.json` in memory. Several entries may share a digest; of several with one tag the last one counts.

    Looking something up takes the same time whatever the number of entries. Whoever changes an index that others
    read changes a `copy`.
    """

    def __init__(self, top: Mapping[str, msgspec.Raw], roots: Sequence[Root]) -> None:
        self._top = top
        self._roots = Roots(roots)
        self.is_changed = False
        self._tagged = _numbers(root.tag for root in roots)
        self._by_digest = _numbers(root.digest for root in roots)

    def __len__(self) -> int:
        return len(self._roots)

    def copy(self) -> Index:
        """Another index with the same content, not changed yet."""
        other = Index(self._top, ())
        other._roots = self._roots.copy()
        other._tagged, other._by_digest = self._tagged.copy(), self._by_digest.copy()
        return other

    # --- reading ---

    def tags(self) -> Iterator[str]:
        """Every tag, once."""
        return iter(self._tagged)

    def tagged(self, tag: str) -> Entry | None:
        """The entry of a tag."""
        root = self._last(self._tagged.get(tag, _NONE))
        return root.entry() if root else None

    def digest_of(self, tag: str) -> str | None:
        """The digest that the entry of a tag has; not checked."""
        root = self._last(self._tagged.get(tag, _NONE))
        return root.digest if root else None

    def named(self, digest: str) -> Entry | None:
        """Some entry of a digest."""
        root = self._last(self._by_digest.get(digest, _NONE))
        return root.entry() if root else None

    def entries(self) -> Iterator[Entry]:
        """All of them."""
        return (root.entry() for root in self._roots)

    def by_json(self) -> dict[bytes, Root]:
        """The entries by their JSON, for `parse_index`."""
        return {root.raw: root for root in self._roots}

    def encode(self) -> bytes:
        """The file: each entry on a line of its own, which is what `parsing` reads fastest."""
        top = b"".join(msgspec.json.encode(key) + b":" + bytes(raw) + b"," for key, raw in self._top.items())
        lines = self._roots.lines()
        if not lines:
            return b'{%b"manifests":[]}' % top
        lines[0] = b'{%b"manifests":[\n%b' % (top, lines[0])
        lines[-1] += b"\n]}"
        return b",\n".join(lines)

    # --- changing ---

    def tag(self, manifest: Manifest, tag: str) -> None:
        """Points a tag at a manifest. containerd's name of the image stays: it names the tag, not the content."""
        numbers = self._tagged.get(tag, _NONE)
        if self.digest_of(tag) == manifest.digest:
            self._remove(numbers[:-1])
        else:
            name = annotations_in(self.tagged(tag)).get(CONTAINERD_NAME)
            kept = {CONTAINERD_NAME: name} if isinstance(name, str) else {}
            self._remove(numbers)
            self._add(entry_of(manifest) | {"annotations": kept | {REF_NAME: tag}})
        self._drop_plain(manifest.digest)  # says no more than the one with the tag
        self._drop_children(manifest)

    def add(self, manifest: Manifest) -> None:
        """Names a manifest that has no tag: a root by digest, or a referrer with what listings need of it."""
        if manifest.digest not in self._by_digest:
            own = annotations_of(manifest) if manifest.subject else None
            entry = entry_of(manifest)
            self._add(entry | {"annotations": without_names(own)} if own else entry)
        self._drop_children(manifest)

    def untag(self, tag: str) -> bool:
        """Removes a tag; False if there was none."""
        numbers = self._tagged.get(tag, _NONE)
        self._remove(numbers)
        return bool(numbers)

    def _drop_children(self, manifest: Manifest) -> None:
        """Children had entries while nothing led to them; now their index does."""
        for child in manifest.children:
            self._drop_plain(child.digest)

    def _drop_plain(self, digest: str) -> None:
        numbers = self._by_digest.get(digest, _NONE)
        self._remove(number for number in numbers if is_plain(self._roots[number].entry()))

    # ---

    def _last(self, numbers: tuple[int, ...]) -> Root | None:
        return self._roots[numbers[-1]] if numbers else None

    def _add(self, entry: Entry) -> None:
        root = root_of(msgspec.json.encode(entry))
        number = self._roots.add(root)
        if root.tag is not None:
            self._tagged[root.tag] = (*self._tagged.get(root.tag, _NONE), number)
        if root.digest is not None:
            self._by_digest[root.digest] = (*self._by_digest.get(root.digest, _NONE), number)
        self.is_changed = True

    def _remove(self, numbers: Iterator[int] | tuple[int, ...]) -> None:
        removed = {number: self._roots.pop(number) for number in tuple(numbers)}
        self.is_changed |= bool(removed)
        for table, keys in (
            (self._tagged, {root.tag for root in removed.values() if root.tag is not None}),
            (self._by_digest, {root.digest for root in removed.values() if root.digest is not None}),
        ):
            for key in keys:
                left = tuple(number for number in table[key] if number not in removed)
                if left:
                    table[key] = left
                else:
                    del table[key]


def _numbers(keys: Iterable[str | None]) -> dict[str, tuple[int, ...]]:
    """The numbers of the entries that have each key.

    Only keys that come again have a list meanwhile (thousands of entries may share a digest): with one for each of
    50,000 keys, the garbage collector would stop every thread for as long as it counts them.
    """
    found: dict[str, tuple[int, ...]] = {}
    repeated: dict[str, list[int]] = {}
    for number, key in enumerate(keys):
        if key is None:
            continue
        if key not in found:
            found[key] = (number,)
        elif key in repeated:
            repeated[key].append(number)
        else:
            repeated[key] = [*found[key], number]
        if number % _AT_ONCE == _AT_ONCE - 1:
            give_way()
    found.update((key, tuple(numbers)) for key, numbers in repeated.items())
    return found


def empty_index() -> Index:
    """The index of a new layout."""
    top = {"schemaVersion": msgspec.Raw(b"2"), "mediaType": msgspec.Raw(msgspec.json.encode(OCI_INDEX))}
    return Index(top, ())


def parse_index(data: bytes, before: Index | None = None) -> Index:
    """Reads an `index.json`.

    Args:
        data: the file.
        before: an earlier version, whose entries need not be decoded again.

    Raises:
        ValueError: this is not an OCI index. A single entry that makes no sense is kept and does not hide the others.
    """
    top, roots = read_index(data, before.by_json() if before else {})
    return Index(top, roots)
