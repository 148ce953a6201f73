import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from replicator.events import (
    BlobDone,
    BytesRead,
    BytesSaved,
    BytesWritten,
    Event,
    Events,
    Failed,
    InFlight,
    LimitChanged,
    Observed,
    QuotaSeen,
    RequestDone,
    RetryPlanned,
    RunEnded,
    RunStarted,
    TagDone,
)
from replicator.metrics import Metrics
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule
from replicator.ports import Standing

PROMISED = {
    "replicator_lag_seconds": {"rule", "destination"},
    "replicator_delay_seconds": {"rule", "destination"},
    "replicator_tags": {"rule", "destination", "state"},
    "replicator_last_success_timestamp_seconds": {"rule", "destination"},
    "replicator_last_observed_timestamp_seconds": {"rule"},
    "replicator_runs_total": {"rule", "destination", "outcome"},
    "replicator_run_duration_seconds": {"rule"},
    "replicator_blobs_total": {"source", "destination", "outcome"},
    "replicator_bytes_total": {"source", "destination"},
    "replicator_source_bytes_total": {"source"},
    "replicator_bytes_saved_total": {"destination", "reason"},
    "replicator_requests_total": {"site", "operation", "code"},
    "replicator_request_duration_seconds": {"site", "operation"},
    "replicator_retries_total": {"site", "reason"},
    "replicator_errors_total": {"rule", "destination", "reason"},
    "replicator_in_flight": {"site", "kind"},
    "replicator_concurrency_limit": {"site", "kind"},
    "replicator_rate_limit_remaining": {"site"},
    "replicator_build_info": {"version"},
}
EVERYTHING: tuple[Event, ...] = (
    RunStarted("platform", "hub", ("fra", "sin")),
    RequestDone("hub", "read blob", "200", 0.2),
    RetryPlanned("hub", "read blob", "throttled", 1.0),
    BytesRead("hub", 100),
    BytesWritten("hub", "fra", 60),
    BytesSaved("fra", "present", 40),
    BlobDone("hub", "fra", "app", "sha256:0", "copied", 60),
    TagDone("platform", "fra", "app", "v1", "copy", "copied", 12.0),
    Observed("platform", 1_000.0),
    Failed("platform", "fra", "fra", "app", "put manifest", "rejected", "400"),
    LimitChanged("hub", "blobs", 16),
    InFlight("hub", "blobs", +1),
    QuotaSeen("hub", 76),
    RunEnded("platform", "fra", "partial", 3.0, 1, 1, 0, 1),
    RunEnded("platform", "sin", "ok", 5.0, 2, 0, 0, 0),
)


def rule() -> Rule:
    return Rule(
        "platform",
        source="hub",
        destinations=("fra", "sin"),
        repositories=RepositorySelection((Glob.parse("**"),)),
        mirrors=("near",),
    )


def nothing_known() -> list[tuple[Standing, float]]:
    return []


class Scraped:
    """Samples by name and labels."""

    def __init__(self, metrics: Metrics) -> None:
        self.labels: dict[str, set[str]] = {}
        self._values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in text_string_to_metric_families(metrics.expose().decode()):
            for sample in family.samples:
                self._values[sample.name, frozenset(sample.labels.items())] = sample.value
                name = family.name + ("_total" if family.type == "counter" else "")
                self.labels.setdefault(name, set()).update(set(sample.labels) - {"le"})

    def value(self, name: str, **labels: str) -> float | None:
        return self._values.get((name, frozenset(labels.items())))


def fed(*events: Event, standings: Callable[[], list[tuple[Standing, float]]] = nothing_known) -> Metrics:
    metrics = Metrics([rule()], standings)
    bus = Events()
    bus.subscribe(metrics)
    for event in events:
        bus.emit(event)
    return metrics


def test_names_and_labels_are_the_promised_ones_and_no_others() -> None:
    assert Scraped(fed(*EVERYTHING)).labels == PROMISED


def test_known_combinations_exist_before_anything_happened() -> None:
    scraped = Scraped(fed())
    for destination in ("fra", "sin"):
        pair = {"rule": "platform", "destination": destination}
        for outcome in ("ok", "partial", "failed", "interrupted"):
            assert scraped.value("replicator_runs_total", **pair, outcome=outcome) == 0
        for state in ("in_step", "held", "pending", "failed"):
            assert scraped.value("replicator_tags", **pair, state=state) == 0
        assert scraped.value("replicator_errors_total", **pair, reason="unavailable") == 0
        assert scraped.value("replicator_delay_seconds_count", **pair) == 0
        assert scraped.value("replicator_lag_seconds", **pair) == 0
        for source in ("hub", "near"):
            assert scraped.value("replicator_bytes_total", source=source, destination=destination) == 0
    assert scraped.value("replicator_source_bytes_total", source="near") == 0
    assert scraped.value("replicator_run_duration_seconds_count", rule="platform") == 0


def test_bytes_advance_with_the_bytes_not_with_the_blob() -> None:
    metrics = fed(BytesRead("hub", 10), BytesWritten("hub", "fra", 10))
    metrics(BytesRead("hub", 5))
    metrics(BytesWritten("hub", "fra", 3))
    scraped = Scraped(metrics)
    assert scraped.value("replicator_source_bytes_total", source="hub") == 15
    assert scraped.value("replicator_bytes_total", source="hub", destination="fra") == 13
    assert scraped.value("replicator_blobs_total", source="hub", destination="fra", outcome="copied") == 0


def test_a_run_is_counted_at_each_destination_and_timed_once() -> None:
    scraped = Scraped(fed(*EVERYTHING))
    assert scraped.value("replicator_runs_total", rule="platform", destination="fra", outcome="partial") == 1
    assert scraped.value("replicator_runs_total", rule="platform", destination="sin", outcome="ok") == 1
    assert scraped.value("replicator_run_duration_seconds_count", rule="platform") == 1
    assert scraped.value("replicator_run_duration_seconds_sum", rule="platform") == 5.0


def test_standings_are_asked_for_at_each_scrape() -> None:
    lag = [3.0]

    def standings() -> list[tuple[Standing, float]]:
        known = Standing("platform", "fra", 0.0, 900.0, 800.0, in_step=7, held=1, pending=2, failed=3)
        gone = Standing("not in the config", "fra", 0.0)
        return [(known, lag[0]), (gone, 99.0)]

    metrics = fed(standings=standings)
    pair = {"rule": "platform", "destination": "fra"}
    assert Scraped(metrics).value("replicator_lag_seconds", **pair) == 3.0
    lag[0] = 63.0
    scraped = Scraped(metrics)
    assert scraped.value("replicator_lag_seconds", **pair) == 63.0
    assert scraped.value("replicator_tags", **pair, state="failed") == 3
    assert scraped.value("replicator_last_success_timestamp_seconds", **pair) == 800.0
    assert scraped.value("replicator_last_observed_timestamp_seconds", rule="platform") == 900.0
    assert scraped.value("replicator_lag_seconds", rule="not in the config", destination="fra") is None


def test_in_flight_goes_up_and_down() -> None:
    metrics = fed(InFlight("hub", "small", +1), InFlight("hub", "small", +1), InFlight("hub", "small", -1))
    assert Scraped(metrics).value("replicator_in_flight", site="hub", kind="small") == 1


def test_metrics_file_is_replaced_as_a_whole_and_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "replicator.prom"
    path.write_text("old")
    fed().write_file(path)
    assert path.read_bytes().endswith(b"\n")
    assert b"replicator_build_info" in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_the_file_and_the_folder_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "folder.prom"
    path.mkdir()  # nothing can be renamed over a folder
    with pytest.raises(OSError, match="folder"):
        fed().write_file(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
def test_promtool_finds_nothing_to_say() -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=fed(*EVERYTHING).expose(), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
