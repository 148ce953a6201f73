"""What an agent knows of its fleet."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from replicator.events import DuplicateBytes, Event
from replicator.events.agent import DatabaseSeen, FleetSeen, JobBegun, SplitOff, TakenOver
from replicator.metrics import buckets

FLEET: Final = frozenset({DatabaseSeen, DuplicateBytes, FleetSeen, JobBegun, SplitOff, TakenOver})
"""The events that `FleetMetrics` uses."""


class FleetMetrics:
    """A subscriber to `Events`, in a registry. Only in a fleet: an agent alone would be a false alarm.

    Agents and jobs are the whole fleet's: each agent that exports them exports the same. The rest is this agent's own. Series
    of destinations follow the config with each heartbeat.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._agents = Gauge(
            "replicator_fleet_agents", "Agents of the fleet with a recent heartbeat.", registry=registry
        )
        self._database = Gauge(
            "replicator_fleet_database_up", "Whether this agent has its database.", registry=registry
        )
        self._database.set(1)
        self._site_agents = Gauge(
            "replicator_fleet_site_agents",
            "Living agents that take work for the destination.",
            ["site"],
            registry=registry,
        )
        self._jobs = Gauge(
            "replicator_queue_jobs",
            "Jobs in the queue, exported by the agent that looks for lost ones.",
            ["queue", "status"],
            registry=registry,
        )
        self._wait = Histogram(
            "replicator_job_wait_seconds",
            "How long jobs waited that this agent has begun.",
            registry=registry,
            buckets=buckets.DELAY,
        )
        self._takeovers = Counter(
            "replicator_takeovers_total",
            "Jobs of lost agents that this agent has put back into the queue.",
            registry=registry,
        )
        self._splits = Counter(
            "replicator_split_off_total",
            "Repositories with much to copy that this agent has split off their shard.",
            registry=registry,
        )
        self._duplicates = Counter(
            "replicator_duplicate_bytes_total",
            "Bytes sent although another agent was already sending them.",
            ["destination"],
            registry=registry,
        )

    def __call__(self, event: Event) -> None:
        """Takes one event."""
        match event:
            case DatabaseSeen(is_up):
                self._database.set(is_up)
            case FleetSeen():
                self._seen(event)
            case JobBegun(waited):
                self._wait.observe(waited)
            case TakenOver():
                self._takeovers.inc()
            case SplitOff():
                self._splits.inc()
            case DuplicateBytes(destination, count):
                self._duplicates.labels(destination).inc(count)
            case _:
                pass

    def _seen(self, event: FleetSeen) -> None:
        self._agents.set(event.agents)
        for metric in (self._site_agents, self._duplicates):
            _keep(metric, event.serving)
        for site, count in event.serving.items():
            self._site_agents.labels(site).set(count)
            self._duplicates.labels(site)  # a counter from its start, or its first increase is not seen
        self._jobs.clear()
        for (queue, status), count in (event.jobs or {}).items():
            self._jobs.labels(queue, status).set(count)


def _keep(metric: Any, names: Collection[str]) -> None:  # Gauge or Counter, of one label
    for sample in tuple(next(iter(metric.collect())).samples):
        (name,) = sample.labels.values()
        if name not in names:
            metric.remove(name)
