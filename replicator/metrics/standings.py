"""What the state remembers, made into metrics when somebody scrapes. Asks no database: whoever gives it, holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from replicator.policy.rule import Rule
from replicator.ports import BehindRepository, Standing

Standings = Callable[[], Iterable[tuple[Standing, float]]]
"""Where rules stand now, each with its lag in seconds."""

STATES: Final = ("in_step", "held", "pending", "failed", "unknown")


@dataclass(frozen=True, slots=True)
class Behind:
    """Repositories with tags pending, each with its lag in seconds, and how many more there are."""

    repositories: Sequence[tuple[BehindRepository, float]]
    left_out: int


class StandingsCollector(Collector):
    """Lag, tags, last success and last look of each pair. One that the state does not know yet shows zeros.

    Args:
        rules: the pairs that are shown, whatever else is known.
        standings: asked once for each scrape.
        observed: the last complete looks by rule, as events tell them.
    """

    def __init__(self, rules: Sequence[Rule], standings: Standings, observed: Mapping[str, float]) -> None:
        self._pairs: list[tuple[str, str]] = []
        self._standings = standings
        self._observed = observed
        self.follow(rules)

    def follow(self, rules: Sequence[Rule]) -> None:
        """Shows these rules from now on."""
        self._pairs = [(rule.name, destination) for rule in rules for destination in rule.destinations]

    def collect(self) -> Iterator[Metric]:
        """The families."""
        lag = GaugeMetricFamily(
            "replicator_lag_seconds",
            "Age of the oldest change that the destination lacks; grows while we cannot look.",
            labels=["rule", "destination"],
        )
        tags = GaugeMetricFamily(
            "replicator_tags", "Selected tags by where they stand.", labels=["rule", "destination", "state"]
        )
        success = GaugeMetricFamily(
            "replicator_last_success_timestamp_seconds",
            "End of the last run that left nothing pending; 0 for never.",
            labels=["rule", "destination"],
        )
        observed = GaugeMetricFamily(
            "replicator_last_observed_timestamp_seconds",
            "The last complete look at the rule's source; 0 for never.",
            labels=["rule"],
        )
        known = {(each.rule, each.destination): (each, seconds) for each, seconds in self._standings()}
        looks = {rule: self._observed.get(rule, 0.0) for rule, _ in self._pairs}
        for pair in self._pairs:
            standing, seconds = known.get(pair, (Standing(*pair, first_seen=0.0), 0.0))
            lag.add_metric(pair, seconds)
            success.add_metric(pair, standing.last_success or 0.0)
            looks[standing.rule] = max(looks[standing.rule], standing.last_look or 0.0)
            for state, count in zip(STATES, _counts(standing), strict=True):
                tags.add_metric((*pair, state), count)
        for rule, at in looks.items():
            observed.add_metric((rule,), at)
        yield from (lag, tags, success, observed)


class RepositoriesCollector(Collector):
    """The breakdown by repository: those that are behind, as many as whoever gives them allows.

    Args:
        behind: asked once for each scrape; None while no breakdown is wanted.
    """

    def __init__(self, behind: Callable[[], Behind | None]) -> None:
        self._behind = behind

    def collect(self) -> Iterator[Metric]:
        """The families; none without a breakdown."""
        behind = self._behind()
        if behind is None:
            return
        labels = ["rule", "destination", "repository"]
        lag = GaugeMetricFamily(
            "replicator_repository_lag_seconds",
            "Age of the oldest change that the repository lacks at the destination.",
            labels=labels,
        )
        tags = GaugeMetricFamily(
            "replicator_repository_tags",
            "Tags that the repository lacks at the destination.",
            labels=[*labels, "state"],
        )
        for each, seconds in behind.repositories:
            place = (each.rule, each.destination, each.repository)
            lag.add_metric(place, seconds)
            tags.add_metric((*place, "pending"), each.pending - each.failed)
            tags.add_metric((*place, "failed"), each.failed)
        yield from (lag, tags)
        yield GaugeMetricFamily(
            "replicator_repositories_left_out",
            "Repositories that are behind, beyond those shown.",
            value=behind.left_out,
        )


def _counts(standing: Standing) -> tuple[int, ...]:
    """In the order of `STATES`."""
    return standing.in_step, standing.held, standing.untried, standing.failed, standing.unknown
