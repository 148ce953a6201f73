"""Where rules stand, kept in memory so that a scrape asks no disk; lag is reckoned when somebody asks."""

from __future__ import annotations

from collections.abc import Sequence

from replicator.policy.rule import Rule
from replicator.policy.schedule import promised_interval
from replicator.ports import Clock, Standing, State
from replicator.state.lag import lag


class Standings:
    """See the module; `refresh` brings it up to date. Called, it gives what `metrics.Standings` wants."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[Standing, float | None]] = {}

    async def refresh(self, rules: Sequence[Rule]) -> None:
        """Takes what the state has now. Raises StateError; then all stays as it was."""
        by_name = {rule.name: rule for rule in rules}
        found = await self._state.standings(list(by_name))
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

    def last_looks(self) -> dict[tuple[str, str], float | None]:
        """When each was last looked at completely (epoch seconds)."""
        return {place: standing.last_look for place, (standing, _) in self._known.items()}

    def __call__(self) -> Sequence[tuple[Standing, float]]:
        """Where each stands, with its lag in seconds now."""
        now = self._clock.now()
        return [(standing, lag(standing, interval, now)) for standing, interval in self._known.values()]
