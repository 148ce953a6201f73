"""Which entries of an `index.json` have a key, a tag or a digest."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from replicator.flow.thread import give_way

_AT_ONCE: Final = 2_048
"""Entries that are sorted in about a millisecond."""


class Numbers:
    """The numbers of the entries that have each key, in the entries' order.

    A key that only one entry has costs nothing that the garbage collector looks at. With a tuple for each of 50,000
    keys, it would stop every thread for as long as it takes to count them, the event loop's included.

    Args:
        keys: that of each entry, from number 0 on; None for an entry without one.
    """

    def __init__(self, keys: Iterable[str | None] = ()) -> None:
        self._last: dict[str, int] = {}
        several: dict[str, list[int]] = {}  # lists meanwhile: thousands of entries may share a digest
        for number, key in enumerate(keys):
            if key is not None:
                if key in several:
                    several[key].append(number)
                elif key in self._last:
                    several[key] = [self._last[key], number]
                self._last[key] = number
            if number % _AT_ONCE == _AT_ONCE - 1:
                give_way()
        self._several = {key: tuple(numbers) for key, numbers in several.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._last)

    def __contains__(self, key: str) -> bool:
        return key in self._last

    def copy(self) -> Numbers:
        """Another table with the same content."""
        other = Numbers()
        other._last, other._several = self._last.copy(), self._several.copy()
        return other

    def last(self, key: str) -> int | None:
        """The last entry with a key; None without one."""
        return self._last.get(key)

    def all(self, key: str) -> tuple[int, ...]:
        """Every entry with a key."""
        if key in self._several:
            return self._several[key]
        return (self._last[key],) if key in self._last else ()

    def add(self, key: str, number: int) -> None:
        """Takes note that an entry, behind all others, has a key."""
        if key in self._last:
            self._several[key] = (*self.all(key), number)
        self._last[key] = number

    def remove(self, key: str, numbers: Collection[int]) -> None:
        """Forgets that these entries have a key."""
        left = tuple(number for number in self.all(key) if number not in numbers)
        self._several.pop(key, None)
        if left:
            self._last[key] = left[-1]
            if len(left) > 1:
                self._several[key] = left
        else:
            self._last.pop(key, None)
