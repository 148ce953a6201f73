"""`index.json`: the roots of a layout and their tags. What other tools wrote in it is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

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
from replicator.sites.layouts.oci.numbers import Numbers
from replicator.sites.layouts.oci.parsing import Root, read_index, root_of
from replicator.sites.layouts.oci.roots import Roots


class Index:
    """An `index.json` in memory. Several entries may share a digest; of several with one tag the last one counts.

    Looking something up takes the same time whatever the number of entries. Whoever changes an index that others
    read changes a `copy`.
    """

    def __init__(self, top: Mapping[str, msgspec.Raw], roots: Sequence[Root]) -> None:
        self._top = top
        self._roots = Roots(roots)
        self.is_changed = False
        self._tagged = Numbers(root.tag for root in roots)
        self._by_digest = Numbers(root.digest for root in roots)

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
        root = self._entry(self._tagged.last(tag))
        return root.entry() if root else None

    def digest_of(self, tag: str) -> str | None:
        """The digest that the entry of a tag has; not checked."""
        root = self._entry(self._tagged.last(tag))
        return root.digest if root else None

    def named(self, digest: str) -> Entry | None:
        """Some entry of a digest."""
        root = self._entry(self._by_digest.last(digest))
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
        numbers = self._tagged.all(tag)
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
        numbers = self._tagged.all(tag)
        self._remove(numbers)
        return bool(numbers)

    def _drop_children(self, manifest: Manifest) -> None:
        """Children had entries while nothing led to them; now their index does."""
        for child in manifest.children:
            self._drop_plain(child.digest)

    def _drop_plain(self, digest: str) -> None:
        numbers = self._by_digest.all(digest)
        self._remove(number for number in numbers if is_plain(self._roots[number].entry()))

    # ---

    def _entry(self, number: int | None) -> Root | None:
        return None if number is None else self._roots[number]

    def _add(self, entry: Entry) -> None:
        root = root_of(msgspec.json.encode(entry))
        number = self._roots.add(root)
        if root.tag is not None:
            self._tagged.add(root.tag, number)
        if root.digest is not None:
            self._by_digest.add(root.digest, number)
        self.is_changed = True

    def _remove(self, numbers: Iterator[int] | tuple[int, ...]) -> None:
        removed = {number: self._roots.pop(number) for number in tuple(numbers)}
        self.is_changed |= bool(removed)
        for tag in {root.tag for root in removed.values() if root.tag is not None}:
            self._tagged.remove(tag, removed)
        for digest in {root.digest for root in removed.values() if root.digest is not None}:
            self._by_digest.remove(digest, removed)


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
