"""The repositories of sources, listed once for all shards that one process looks at."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Final

from replicator.errors import SiteError
from replicator.flow.once import Once

REMEMBERED: Final = 64
"""Rules whose latest listing is remembered."""


@dataclass(frozen=True, slots=True)
class RepositoryListing:
    """The names that a rule selects, as listed completely from `at` (epoch seconds) on."""

    names: frozenset[str]
    at: float


class SourceRepositories:
    """The latest listing of each rule, with the tick that it was made for. A failure holds for the whole tick, too."""

    def __init__(self) -> None:
        self._once: Once[tuple[str, Hashable], RepositoryListing] = Once()
        self._known: OrderedDict[str, tuple[Hashable, RepositoryListing | SiteError]] = OrderedDict()

    async def get(
        self, rule: str, tick: Hashable, read: Callable[[], Awaitable[RepositoryListing]]
    ) -> RepositoryListing:
        """What was listed for the tick; the first that asks has it read. Raises the `SiteError` of that reading."""
        known = self._known.get(rule)
        if known is None or known[0] != tick:
            return await self._once.run((rule, tick), lambda: self._read(rule, tick, read))
        if isinstance(known[1], SiteError):
            raise known[1]
        return known[1]

    async def _read(
        self, rule: str, tick: Hashable, read: Callable[[], Awaitable[RepositoryListing]]
    ) -> RepositoryListing:
        try:
            found = await read()
        except SiteError as error:
            self._remember(rule, tick, error)
            raise
        self._remember(rule, tick, found)
        return found

    def _remember(self, rule: str, tick: Hashable, found: RepositoryListing | SiteError) -> None:
        self._known[rule] = (tick, found)
        self._known.move_to_end(rule)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
