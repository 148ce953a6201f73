"""The metrics of a fleet: the whole fleet's facts, and what each agent did."""

from __future__ import annotations

from msgspec.structs import replace

from replicator.events import DuplicateBytes, Event, Events, RunEnded
from replicator.events.agent import DatabaseSeen, FleetSeen, JobBegun, SplitOff, TakenOver
from replicator.metrics import FleetMetrics, Metrics
from replicator.model.shards import Shard, shard_of

IN_A_FLEET = {
    "replicator_fleet_agents": set[str](),
    "replicator_fleet_database_up": set[str](),
    "replicator_fleet_site_agents": {"site"},
    "replicator_queue_jobs": {"queue", "status"},
    "replicator_job_wait_seconds": set[str](),
    "replicator_takeovers_total": set[str](),
    "replicator_split_off_total": set[str](),
    "replicator_duplicate_bytes_total": {"destination"},
}
"""Names and labels of what only agents of a fleet export."""


class Agent:
    """One agent's metrics, after a first heartbeat that nobody else had."""

    def __init__(self, *destinations: str) -> None:
        self.metrics = Metrics([], list)
        self.events = Events()
        self.events.subscribe(FleetMetrics(self.metrics.registry))
        self.tell(FleetSeen(1, dict.fromkeys(destinations, 0)))

    def tell(self, *events: Event) -> None:
        """Emits them."""
        for event in events:
            self.events.emit(event)

    def lines(self, prefix: str) -> list[str]:
        """The samples whose names begin so."""
        return [line for line in self.metrics.expose().decode().splitlines() if line.startswith(prefix)]


def test_series_of_the_config_exist_from_the_first_heartbeat() -> None:
    agent = Agent("fra")
    assert agent.lines("replicator_fleet") == [
        "replicator_fleet_agents 1.0",
        "replicator_fleet_database_up 1.0",
        'replicator_fleet_site_agents{site="fra"} 0.0',
    ]
    agent.tell(DatabaseSeen(is_up=False))
    assert agent.lines("replicator_fleet_database_up") == ["replicator_fleet_database_up 0.0"]
    assert agent.lines("replicator_duplicate") == ['replicator_duplicate_bytes_total{destination="fra"} 0.0']
    assert agent.lines("replicator_takeovers") == ["replicator_takeovers_total 0.0"]
    assert agent.lines("replicator_queue_jobs") == []


def test_names_and_labels_are_the_promised_ones_and_no_others() -> None:
    alone, agent = Metrics([], list), Agent("fra")
    agent.tell(FleetSeen(1, {"fra": 1}, {("to fra", "todo"): 1}))
    known = {metric.name for metric in alone.registry.collect()}
    found = {
        (sample.name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum"), *sample.labels)
        for metric in agent.metrics.registry.collect()
        if metric.name not in known
        for sample in metric.samples
    }
    promised = {(name, *sorted(labels)) for name, labels in IN_A_FLEET.items()}
    assert {(name, *labels) for name, *labels in found if labels != ["le"]} == promised


def test_what_is_read_replaces_what_was_read_before() -> None:
    agent = Agent("fra", "nyc")
    agent.tell(
        FleetSeen(3, {"fra": 2, "nyc": 1}, {("to fra", "todo"): 5, ("to fra", "doing"): 2}),
        FleetSeen(2, {"fra": 2, "nyc": 0}, {("to fra", "doing"): 1}),
    )
    assert agent.lines("replicator_fleet") == [
        "replicator_fleet_agents 2.0",
        "replicator_fleet_database_up 1.0",
        'replicator_fleet_site_agents{site="fra"} 2.0',
        'replicator_fleet_site_agents{site="nyc"} 0.0',
    ]
    assert agent.lines("replicator_queue_jobs") == [
        'replicator_queue_jobs{queue="to fra",status="doing"} 1.0'
    ]
    agent.tell(FleetSeen(2, {"fra": 2, "nyc": 0}))  # another agent counts from now on
    assert agent.lines("replicator_queue_jobs") == []


def test_what_the_agent_did_is_counted() -> None:
    agent = Agent("fra")
    agent.tell(
        JobBegun(0.5),
        JobBegun(40.0),
        TakenOver("rule", ("fra",), 3),
        SplitOff("rule", ("fra",), "big"),
        DuplicateBytes("fra", 1_000),
        DuplicateBytes("fra", 500),
    )
    assert "replicator_job_wait_seconds_count 2.0" in agent.lines("replicator_job_wait_seconds")
    assert 'replicator_job_wait_seconds_bucket{le="1.0"} 1.0' in agent.lines("replicator_job_wait_seconds")
    assert agent.lines("replicator_takeovers_total") == ["replicator_takeovers_total 1.0"]
    assert agent.lines("replicator_split_off_total") == ["replicator_split_off_total 1.0"]
    assert agent.lines("replicator_duplicate") == [
        'replicator_duplicate_bytes_total{destination="fra"} 1500.0'
    ]


def test_a_reload_removes_the_series_of_a_destination() -> None:
    agent = Agent("fra", "nyc")
    agent.tell(DuplicateBytes("fra", 7))
    agent.tell(FleetSeen(1, {"fra": 1, "sgp": 1}))
    assert agent.lines("replicator_duplicate") == [
        'replicator_duplicate_bytes_total{destination="fra"} 7.0',
        'replicator_duplicate_bytes_total{destination="sgp"} 0.0',
    ]
    assert agent.lines("replicator_fleet_site") == [
        'replicator_fleet_site_agents{site="fra"} 1.0',
        'replicator_fleet_site_agents{site="sgp"} 1.0',
    ]


def test_a_shard_tells_of_its_own_untrusted_tags_alone() -> None:
    shard = Shard(shard_of("app", 2), 2)
    other = next(name for name in map("app-{}".format, range(99)) if not shard.has(name))
    ended = RunEnded(
        "rule", "fra", "ok", 1.0, in_step=0, pending=0, held=0, failed=0, untrusted=frozenset(), shard=shard
    )
    assert ended.forgets("app:v1")
    assert not ended.forgets(f"{other}:v1")
    assert not replace(ended, untrusted=frozenset({"app:v1"})).forgets("app:v1")
    assert replace(ended, shard=None).forgets(f"{other}:v1")
    assert not replace(ended, untrusted=None).forgets("app:v1")
