"""The entries of an `index.json` in order, each under a number, in pieces that versions of the index share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from replicator.sites.layouts.oci.parsing import Root

_PIECE_ENTRIES: Final = 256


class _Piece:
    """Entries with neighbouring numbers; not changed once it exists."""

    __slots__ = ("_lines", "roots")

    def __init__(self, roots: dict[int, Root]) -> None:
        self.roots = roots
        self._lines: bytes | None = None

    def lines(self) -> bytes:
        """The entries' JSON, a line each; encoded once, whatever else of the index changes."""
        if self._lines is None:
            self._lines = b",\n".join([root.raw for root in self.roots.values()])
        return self._lines


class Roots:
    """The entries of one version of an index. A change costs the time of one piece, a copy that of a list of pieces."""

    def __init__(self, roots: Sequence[Root] = ()) -> None:
        self._pieces = {
            start // _PIECE_ENTRIES: _Piece(dict(enumerate(roots[start : start + _PIECE_ENTRIES], start)))
            for start in range(0, len(roots), _PIECE_ENTRIES)
        }
        self._count = self._next = len(roots)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Root]:
        for piece in self._pieces.values():
            yield from piece.roots.values()

    def __getitem__(self, number: int) -> Root:
        return self._pieces[number // _PIECE_ENTRIES].roots[number]

    def copy(self) -> Roots:
        """Another version with the same entries under the same numbers."""
        other = Roots()
        other._pieces, other._count, other._next = self._pieces.copy(), self._count, self._next
        return other

    def add(self, root: Root) -> int:
        """Appends an entry; returns its number, which no other entry gets."""
        number = self._next
        key = number // _PIECE_ENTRIES
        piece = self._pieces.get(key)
        self._pieces[key] = _Piece({number: root} if piece is None else {**piece.roots, number: root})
        self._next += 1
        self._count += 1
        return number

    def pop(self, number: int) -> Root:
        """Removes the entry of a number. Raises `KeyError` for an unknown number."""
        key = number // _PIECE_ENTRIES
        roots = self._pieces[key].roots.copy()
        root = roots.pop(number)
        if roots:
            self._pieces[key] = _Piece(roots)
        else:
            del self._pieces[key]
        self._count -= 1
        return root

    def lines(self) -> list[bytes]:
        """The JSON of all entries, a line each, without the comma after each part of the list."""
        return [piece.lines() for piece in self._pieces.values()]
