"""Where rules stand, kept in memory so that a scrape needs no disk. Lag is computed when asked for."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from replicator.daemon.memory import Memory
from replicator.metrics import Behind
from replicator.policy.lag import lag
from replicator.policy.rule import Rule
from replicator.policy.schedule import promised_interval
from replicator.ports import BehindRepository, Clock, Standing


class Standings:
    """See the module. `refresh` updates it; a call returns what `metrics.Standings` needs."""

    def __init__(self, state: Memory, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[Standing, float | None]] = {}
        self._behind: list[BehindRepository] | None = None
        self._left_out = 0

    async def refresh(self, rules: Sequence[Rule], *, repositories: int = 0) -> None:
        """Reads the state, and at most `repositories` that are behind. Raises StateError; then nothing changes.

        Costs three queries, and one more where `repositories` is not 0, and one for each pair of rule and destination
        with pending tags or units.
        """
        by_name = {rule.name: rule for rule in rules}
        found = await self._state.standings(list(by_name))
        behind = await self._state.behind() if repositories else []
        self._known = {
            (standing.rule, standing.destination): (
                standing,
                promised_interval(
                    by_name[standing.rule].interval, by_name[standing.rule].cron, standing.last_look
                ),
            )
            for standing in found
            if standing.destination in by_name[standing.rule].destinations
        }
        behind = [each for each in behind if (each.rule, each.destination) in self._known]
        furthest = heapq.nsmallest(repositories, behind, key=lambda each: each.oldest_pending)
        self._behind = furthest if repositories else None
        self._left_out = len(behind) - len(furthest)

    def last_looks(self) -> dict[tuple[str, str], float | None]:
        """When each was last scanned completely (epoch seconds)."""
        return {place: standing.last_look for place, (standing, _) in self._known.items()}

    def behind(self) -> Behind | None:
        """The repositories that are furthest behind now; None if none were asked for."""
        if self._behind is None:
            return None
        now = self._clock.now()
        aged = [(each, max(0.0, now - each.oldest_pending)) for each in self._behind]
        return Behind(aged, self._left_out)

    def __call__(self) -> Sequence[tuple[Standing, float]]:
        """Where each stands, with its lag in seconds now."""
        now = self._clock.now()
        return [(standing, lag(standing, interval, now)) for standing, interval in self._known.values()]
