"""What one process asks once for all shards of a rule that are due at the same tick."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Final, Generic, TypeVar

import msgspec

from replicator.errors import SiteError
from replicator.flow.once import Once

V = TypeVar("V")

REMEMBERED: Final = 64
"""Answers, each the latest to its question."""


class RepositoryListing(msgspec.Struct, frozen=True):
    """The names that a rule selects, as listed completely from `at` (epoch seconds) on."""

    names: frozenset[str]
    at: float


class OncePerTick(Generic[V]):
    """The latest answer to each question, with the tick that it was for. A failure holds for the whole tick, too."""

    def __init__(self) -> None:
        self._once: Once[tuple[Hashable, Hashable], V] = Once()
        self._known: OrderedDict[Hashable, tuple[Hashable, V | SiteError]] = OrderedDict()

    async def get(self, key: Hashable, tick: Hashable, read: Callable[[], Awaitable[V]]) -> V:
        """What was read for the tick; the first that asks has it read. Raises the `SiteError` of that reading."""
        known = self._known.get(key)
        if known is None or known[0] != tick:
            return await self._once.run((key, tick), lambda: self._read(key, tick, read))
        if isinstance(known[1], SiteError):
            raise known[1]
        return known[1]

    async def _read(self, key: Hashable, tick: Hashable, read: Callable[[], Awaitable[V]]) -> V:
        try:
            found = await read()
        except SiteError as error:
            self._remember(key, tick, error)
            raise
        self._remember(key, tick, found)
        return found

    def _remember(self, key: Hashable, tick: Hashable, found: V | SiteError) -> None:
        self._known[key] = (tick, found)
        self._known.move_to_end(key)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


class Ticks:
    """What runs of shards share: `listings` by rule, and `agreed`, by rule and destination, when repositories last agreed."""

    def __init__(self) -> None:
        self.listings: OncePerTick[RepositoryListing] = OncePerTick()
        self.agreed: OncePerTick[Mapping[str, float]] = OncePerTick()
