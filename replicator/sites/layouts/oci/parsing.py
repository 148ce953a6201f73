"""Reading an `index.json` entry by entry: bounded in memory whatever it holds, linear in time, and never long in one call.

The event loop gets its turn after every few entries. One call of a JSON decoder over the whole file would keep the
interpreter's lock, and with it the event loop, for as long as it takes (0.7 s for 50,000 tags).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from replicator.flow.thread import give_way
from replicator.model.decoding import JSON_ERRORS
from replicator.model.mediatypes import OCI_INDEX
from replicator.sites.bounds import MAX_INDEX_ENTRIES, MAX_INDEX_VALUE_BYTES
from replicator.sites.layouts.oci.entries import CONTAINERD_NAME, REF_NAME, Entry, tag_named, tag_of

_WINDOW_BYTES: Final = 64 * 1024
_AT_ONCE: Final = 256
"""Entries that are read in about a millisecond."""
_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_JSON: Final = json.JSONDecoder()


class Root(msgspec.Struct, frozen=True, gc=False):
    """One entry: its JSON on one line, and what it is looked up by.

    `tag` and `digest` are None where the entry has none; the digest is not checked.
    """

    raw: bytes
    tag: str | None
    digest: str | None

    def entry(self) -> Entry:
        """The entry, decoded."""
        entry: Entry = msgspec.json.decode(self.raw)
        return entry


class _Names(msgspec.Struct, gc=False):
    ref_name: str | None = msgspec.field(default=None, name=REF_NAME)
    containerd_name: str | None = msgspec.field(default=None, name=CONTAINERD_NAME)


class _Head(msgspec.Struct, gc=False):
    digest: str | None = None
    annotations: _Names | None = None


_decode_head: Final[Callable[[bytes], _Head]] = msgspec.json.Decoder(_Head).decode
_NO_NAMES: Final = _Names()


def root_of(raw: bytes) -> Root:
    """An entry by its JSON, without line breaks.

    Raises:
        ValueError: it is not a JSON object. One whose values make no sense is an entry without tag or digest.
    """
    try:
        if not raw.isascii():
            raw.decode()  # msgspec does not check what it skips
        head = _decode_head(raw)
    except msgspec.ValidationError:
        entry = _decoded(raw)
        digest = entry.get("digest")
        return Root(raw, tag_of(entry), digest if isinstance(digest, str) else None)
    except JSON_ERRORS as error:
        raise ValueError(f"it is not JSON: {error}") from error
    names = head.annotations or _NO_NAMES
    return Root(raw, tag_named(names.ref_name, names.containerd_name), head.digest)


def read_index(data: bytes, known: Mapping[bytes, Root]) -> tuple[dict[str, msgspec.Raw], list[Root]]:
    """The values beside `manifests`, by key, and the entries.

    Args:
        data: the file, at most `MAX_INDEX_BYTES`.
        known: entries by their JSON, which need not be decoded again.

    Raises:
        ValueError: this is not an OCI index, or it exceeds a bound.
    """
    text = _Text(data)
    top: dict[str, msgspec.Raw] = {}
    roots: list[Root] | None = None
    for key in text.members():
        if key in top or (key == "manifests" and roots is not None):
            raise ValueError(f"it has {key[:80]!r} twice")
        if key == "manifests":
            roots = list(text.roots(known))
        else:
            top[key] = msgspec.Raw(text.value())
    _check(top)
    if roots is None:
        raise ValueError("it has no list of manifests")
    return top, roots


def _check(top: Mapping[str, msgspec.Raw]) -> None:
    values = {key: _plain(raw) for key, raw in top.items()}
    version, media_type = values.get("schemaVersion"), values.get("mediaType")
    if version != 2 or isinstance(version, bool):
        raise ValueError(f"its schemaVersion is {_shown(version)}, not 2")
    if media_type not in (None, "", OCI_INDEX):
        raise ValueError(f"its mediaType is {_shown(media_type)}, not {OCI_INDEX}")


def _plain(raw: msgspec.Raw) -> object:
    try:
        return msgspec.json.decode(raw)
    except JSON_ERRORS as error:
        raise ValueError(f"it is not JSON: {error}") from error


def _shown(value: object) -> str:
    return repr(value)[:80]


def _decoded(raw: bytes) -> Entry:
    try:
        entry = msgspec.json.decode(raw)
    except JSON_ERRORS as error:
        raise ValueError(f"it is not JSON: {error}") from error
    if not isinstance(entry, dict):
        raise ValueError("its manifests are not a list of descriptors")  # noqa: TRY004 - callers know one error
    return entry


class _Text:
    """A position in the JSON of an index.

    Where a value ends is found by the standard library's decoder, over a window decoded as Latin-1: every byte is
    one character then, and JSON's own characters are the same. What a value says is left to msgspec.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._window = ""
        self._start = 0
        self._by_line = True

    def members(self) -> Iterator[str]:
        """The keys of the object, each when the position is at its value, which the caller takes."""
        self._require(b"{", "it is not a JSON object")
        if not self._take(b"}"):
            while True:
                yield self._key()
                if not self._take(b","):
                    break
            self._require(b"}", self._broken())
        if self._peek():
            raise ValueError(self._broken())

    def roots(self, known: Mapping[bytes, Root]) -> Iterator[Root]:
        """The entries of the list at the position."""
        self._require(b"[", "its manifests are not a list of descriptors")
        if self._take(b"]"):
            return
        for count in range(1, MAX_INDEX_ENTRIES + 1):
            yield self._root(known)
            if count % _AT_ONCE == 0:
                give_way()
            if not self._take(b","):
                self._require(b"]", self._broken())
                return
        raise ValueError(f"it has more than {MAX_INDEX_ENTRIES} entries")

    def value(self) -> bytes:
        """The JSON of the value at the position, which moves behind it."""
        self._peek()
        size = _WINDOW_BYTES
        while True:
            end = self._end()
            if end >= 0:
                raw = self._data[self._at : end]
                self._at = end
                return raw
            if self._start == self._at and self._window:
                if self._start + len(self._window) == len(self._data):
                    raise ValueError(self._broken())
                if size >= MAX_INDEX_VALUE_BYTES:
                    raise ValueError(
                        f"it is not JSON, or has a value of over {MAX_INDEX_VALUE_BYTES} bytes, at byte {self._at}"
                    )
                size *= 4
            if self._at >= len(self._data):
                raise ValueError(self._broken())
            self._start = self._at
            self._window = self._data[self._at : self._at + size].decode("latin-1")

    def _end(self) -> int:
        """Where the value at the position ends; -1 where the window does not have all of it."""
        if not self._start <= self._at < self._start + len(self._window):
            return -1
        try:
            _, end = _JSON.raw_decode(self._window, self._at - self._start)
        except RecursionError as error:
            raise ValueError("it is not JSON: nested too deeply") from error
        except ValueError:
            return -1
        is_whole = end < len(self._window) or self._start + end == len(self._data)
        return self._start + end if is_whole else -1  # else a number might go on

    def _root(self, known: Mapping[bytes, Root]) -> Root:
        self._peek()
        line = self._line() if self._by_line else b""
        if line:
            root = known.get(line)
            try:
                root = root or root_of(line)
            except ValueError:
                self._by_line = False  # as other tools write it
            else:
                self._at += len(line)
                return root
        self._by_line = False
        raw = self.value()
        if b"\n" in raw or b"\r" in raw:
            raw = msgspec.json.format(raw, indent=-1)
        return known.get(raw) or root_of(raw)

    def _line(self) -> bytes:
        """What is left of the line, as we write one for each entry; empty without such a line."""
        end = self._data.find(b"\n", self._at, self._at + _WINDOW_BYTES)
        return self._data[self._at : end].rstrip(b",") if end >= 0 else b""

    def _key(self) -> str:
        try:
            key = msgspec.json.decode(self.value(), type=str)
        except JSON_ERRORS as error:
            raise ValueError(self._broken()) from error
        self._require(b":", self._broken())
        return key

    def _peek(self) -> bytes:
        found = _SPACE.match(self._data, self._at)
        self._at = found.end() if found else self._at
        return self._data[self._at : self._at + 1]

    def _take(self, token: bytes) -> bool:
        if self._peek() != token:
            return False
        self._at += 1
        return True

    def _require(self, token: bytes, otherwise: str) -> None:
        if not self._take(token):
            raise ValueError(otherwise)

    def _broken(self) -> str:
        return f"it is not JSON at byte {self._at}"
