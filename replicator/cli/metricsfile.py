"""`--metrics-file`: the metrics of a one-shot run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from replicator.cli.rules import lag_of
from replicator.cli.watch import Watch
from replicator.metrics import Metrics
from replicator.policy.rule import Rule
from replicator.ports import Standing, State


class MetricsFile:
    """Subscribes to the run's events when created, and writes the file once at the end."""

    def __init__(self, path: Path, rules: Sequence[Rule], watch: Watch) -> None:
        self._path = path
        self._rules = rules
        self._clock = watch.clock
        self._standings: list[tuple[Standing, float]] = []
        self._metrics = Metrics(rules, lambda: self._standings)
        watch.events.subscribe(self._metrics)

    async def look(self, state: State) -> None:
        """Reads the current standings from the state. Raises StateError."""
        rules = {rule.name: rule for rule in self._rules}
        now = self._clock.now()
        self._standings = [
            (standing, lag_of(rules[standing.rule], standing, now))
            for standing in await state.standings(list(rules))
        ]

    def write(self) -> None:
        """Writes the file atomically. Raises OSError."""
        self._metrics.write_file(self._path)
