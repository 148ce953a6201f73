"""A bounded memory of answers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from replicator.ports import Clock

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class Cache(Generic[_Key, _Value]):
    """The latest used, up to a total weight, each for a limited time.

    Args:
        max_weight: of all that is kept; what weighs more by itself is not kept.
        max_age_seconds: since it was put here; using it does not prolong it.
        clock: the time.
    """

    def __init__(self, max_weight: int, max_age_seconds: float, *, clock: Clock) -> None:
        self._max_weight = max_weight
        self._max_age = max_age_seconds
        self._clock = clock
        self._entries: OrderedDict[_Key, tuple[float, int, _Value]] = OrderedDict()
        self._weight = 0

    def __repr__(self) -> str:
        return f"<Cache: {len(self._entries)} entries, {self._weight} of {self._max_weight}>"

    def get(self, key: _Key) -> _Value | None:
        """What was put there; None where nothing was, or too long ago."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock.monotonic() - entry[0] >= self._max_age:
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return entry[2]

    def put(self, key: _Key, value: _Value, weight: int = 1) -> None:
        """Keeps it, in the place of what was there."""
        self.drop(key)
        if weight > self._max_weight:
            return
        self._entries[key] = (self._clock.monotonic(), weight, value)
        self._weight += weight
        while self._weight > self._max_weight:
            self.drop(next(iter(self._entries)))

    def drop(self, key: _Key) -> None:
        """Forgets it."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._weight -= entry[1]
