"""`index.json`: the roots of a layout and their tags. What others wrote in it is kept as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from replicator.model.decoding import JSON_ERRORS
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, parse_digest
from replicator.model.manifest import Manifest, annotations_of
from replicator.model.mediatypes import OCI_INDEX
from replicator.model.names import is_tag, parse_reference

MAX_INDEX_BYTES: Final = 64 * 1024 * 1024
REF_NAME: Final = "org.opencontainers.image.ref.name"
CONTAINERD_NAME: Final = "io.containerd.image.name"

_PLAIN: Final = frozenset({"mediaType", "digest", "size", "platform"})

Entry = dict[str, Any]
"""A descriptor as parsed from JSON, with whatever else it has."""


class Index:
    """An `index.json` in hand. Several entries may share a digest; of several with one tag the last one counts."""

    def __init__(self, top: Mapping[str, Any], entries: list[Entry]) -> None:
        self._top = dict(top)
        self._entries: dict[int, Entry] = dict(enumerate(entries))
        self._next = len(entries)
        self._tagged: dict[str, list[int]] = {}
        self._by_digest: dict[str, list[int]] = {}
        for number, entry in self._entries.items():
            self._note(number, entry)

    # --- reading ---

    def tags(self) -> Iterator[str]:
        """Every tag, once."""
        return iter(self._tagged)

    def tagged(self, tag: str) -> Entry | None:
        """The entry of a tag."""
        numbers = self._tagged.get(tag)
        return self._entries[numbers[-1]] if numbers else None

    def named(self, digest: str) -> Entry | None:
        """Some entry of a digest."""
        numbers = self._by_digest.get(digest)
        return self._entries[numbers[-1]] if numbers else None

    def entries(self) -> Iterator[Entry]:
        """All of them."""
        return iter(self._entries.values())

    def encode(self) -> bytes:
        """The file."""
        return msgspec.json.encode(self._top | {"manifests": list(self._entries.values())})

    # --- changing ---

    def tag(self, manifest: Manifest, tag: str) -> None:
        """Makes a tag name a manifest. What containerd calls the image stays, as it tells the tag, not the content."""
        before = self.tagged(tag)
        if before is not None and before.get("digest") == manifest.digest:
            self._remove(self._tagged[tag][:-1])
        else:
            kept = {CONTAINERD_NAME: _annotations(before)[CONTAINERD_NAME]} if _has_name(before) else {}
            self._remove(self._tagged.get(tag, []))
            self._add(_entry(manifest) | {"annotations": kept | {REF_NAME: tag}})
        # An entry without a name says no more than the one with the tag.
        self._remove(
            [number for number in self._numbers(manifest.digest) if _is_plain(self._entries[number])]
        )
        self._drop_children(manifest)

    def add(self, manifest: Manifest) -> None:
        """Names a manifest that has no tag: a root by digest, or a referrer with what listings tell of it."""
        if self.named(manifest.digest) is None:
            own = annotations_of(manifest) if manifest.subject else None
            entry = _entry(manifest)
            self._add(entry | {"annotations": _without_names(own)} if own else entry)
        self._drop_children(manifest)

    def untag(self, tag: str) -> bool:
        """Takes a tag away; False where there was none."""
        there = tag in self._tagged
        self._remove(self._tagged.get(tag, []))
        return there

    def _drop_children(self, manifest: Manifest) -> None:
        """Children were named as long as nothing led to them; now their index does."""
        for child in manifest.children:
            numbers = self._numbers(child.digest)
            self._remove([number for number in numbers if _is_plain(self._entries[number])])

    # ---

    def _numbers(self, digest: str) -> list[int]:
        return list(self._by_digest.get(digest, ()))

    def _add(self, entry: Entry) -> None:
        self._entries[self._next] = entry
        self._note(self._next, entry)
        self._next += 1

    def _note(self, number: int, entry: Entry) -> None:
        tag = tag_of(entry)
        if tag is not None:
            self._tagged.setdefault(tag, []).append(number)
        digest = entry.get("digest")
        if isinstance(digest, str):
            self._by_digest.setdefault(digest, []).append(number)

    def _remove(self, numbers: list[int]) -> None:
        for number in list(numbers):
            entry = self._entries.pop(number)
            for table, key in ((self._tagged, tag_of(entry)), (self._by_digest, entry.get("digest"))):
                if isinstance(key, str) and number in table.get(key, ()):
                    table[key].remove(number)
                    if not table[key]:
                        del table[key]


def empty_index() -> Index:
    """The index of a new layout."""
    return Index({"schemaVersion": 2, "mediaType": OCI_INDEX}, [])


def parse_index(data: bytes) -> Index:
    """Reads an `index.json`.

    Raises:
        ValueError: no OCI index. A single entry that makes no sense is kept and does not hide the others.
    """
    try:
        top = msgspec.json.decode(data)
    except JSON_ERRORS as error:
        raise ValueError(f"it is not JSON: {error}") from error
    if not isinstance(top, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 callers know one error
    if top.get("schemaVersion") != 2:
        raise ValueError(f"its schemaVersion is {top.get('schemaVersion')!r}, not 2")
    if top.get("mediaType") not in (None, "", OCI_INDEX):
        raise ValueError(f"its mediaType is {top['mediaType']!r}, not {OCI_INDEX}")
    entries = top.get("manifests")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("its manifests are no list of descriptors")
    return Index(top, entries)


def descriptor_of(entry: Entry) -> Descriptor:
    """What an entry describes. Raises ValueError where it is no descriptor."""
    try:
        descriptor = msgspec.convert(entry, Descriptor)
    except msgspec.ValidationError as error:
        raise ValueError(f"its entry in index.json is no descriptor: {error}") from error
    parse_digest(descriptor.digest)
    if descriptor.size is None or descriptor.size < 0:
        raise ValueError(f"its entry in index.json gives the size {descriptor.size}")
    return descriptor


def digest_in(entry: Entry) -> Digest | None:
    """An entry's digest, None where it has none that can be used."""
    try:
        return parse_digest(entry.get("digest", ""))
    except (ValueError, TypeError):
        return None


def tag_of(entry: Entry) -> str | None:
    """The tag that an entry gives its manifest.

    Usually `org.opencontainers.image.ref.name` is just that; some tools put the whole reference there, and
    containerd puts it into an annotation of its own.
    """
    annotations = _annotations(entry)
    for key in (REF_NAME, CONTAINERD_NAME):
        name = annotations.get(key)
        if isinstance(name, str) and name:
            tag = name if key == REF_NAME and is_tag(name) else _tag_in(name)
            if tag is not None:
                return tag
    return None


def _tag_in(reference: str) -> str | None:
    try:
        return parse_reference(reference).tag
    except ValueError:
        return None


def _annotations(entry: Entry | None) -> dict[str, Any]:
    found = entry.get("annotations") if entry else None
    return found if isinstance(found, dict) else {}


def _has_name(entry: Entry | None) -> bool:
    return isinstance(_annotations(entry).get(CONTAINERD_NAME), str)


def _is_plain(entry: Entry) -> bool:
    return entry.keys() <= _PLAIN


def _without_names(annotations: Mapping[str, str]) -> dict[str, str]:
    """A manifest's own annotations as an entry's, where two of them would make it a tag."""
    return {key: value for key, value in annotations.items() if key not in (REF_NAME, CONTAINERD_NAME)}


def _entry(manifest: Manifest) -> Entry:
    entry: Entry = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.body),
    }
    artifact_type = manifest.descriptor.artifact_type
    if manifest.subject is not None and artifact_type is None and manifest.config is not None:
        artifact_type = manifest.config.media_type
    return entry | {"artifactType": artifact_type} if artifact_type else entry
