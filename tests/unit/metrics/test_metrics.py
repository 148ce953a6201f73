import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from replicator.events import (
    BlobDone,
    BytesRead,
    BytesSaved,
    BytesWritten,
    CredentialsRenewed,
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
from replicator.events.agent import ConfigRead, WebhookSeen
from replicator.metrics import Behind, Metrics
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule
from replicator.ports import BehindRepository, Standing
from tests.fakes.process import require

PROMISED = {
    "replicator_lag_seconds": {"rule", "destination"},
    "replicator_delay_seconds": {"rule", "destination"},
    "replicator_tags": {"rule", "destination", "state"},
    "replicator_last_success_timestamp_seconds": {"rule", "destination"},
    "replicator_last_observed_timestamp_seconds": {"rule"},
    "replicator_stuck_runs_total": {"rule"},
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
    "replicator_credentials_expiry_timestamp_seconds": {"site"},
    "replicator_credential_renewals_total": {"site", "outcome"},
    "replicator_untrusted_tags": {"rule", "destination"},
    "replicator_webhooks_total": {"hook", "outcome"},
    "replicator_config_last_reload_successful": set(),
    "replicator_config_last_reload_success_timestamp_seconds": set(),
    "replicator_build_info": {"version"},
}
BY_REPOSITORY = {
    "replicator_repository_lag_seconds": {"rule", "destination", "repository"},
    "replicator_repository_tags": {"rule", "destination", "repository", "state"},
    "replicator_repositories_left_out": set(),
}
"""What there is beside `PROMISED` where the config asks for it."""
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
    CredentialsRenewed("hub", "ok", 2_000.0),
    ConfigRead(successful=True, at=1_000.0),
    WebhookSeen("hub", "matched"),
    RunEnded("platform", "fra", "partial", 3.0, 1, 1, 0, 1),
    RunEnded("platform", "sin", "ok", 5.0, 2, 0, 0, 0),
)


def rule(name: str = "platform", destinations: Sequence[str] = ("fra", "sin")) -> Rule:
    return Rule(
        name,
        source="hub",
        destinations=tuple(destinations),
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
        known = Standing("platform", "fra", 0.0, 900.0, 800.0, in_step=7, held=1, pending=5, failed=3)
        gone = Standing("not in the config", "fra", 0.0)
        return [(known, lag[0]), (gone, 99.0)]

    metrics = fed(standings=standings)
    pair = {"rule": "platform", "destination": "fra"}
    assert Scraped(metrics).value("replicator_lag_seconds", **pair) == 3.0
    lag[0] = 63.0
    scraped = Scraped(metrics)
    assert scraped.value("replicator_lag_seconds", **pair) == 63.0
    states = ("in_step", "held", "pending", "failed")
    counts = [scraped.value("replicator_tags", **pair, state=state) for state in states]
    assert counts == [7, 1, 2, 3]  # a failed tag is pending too, and is counted once
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


def test_promtool_finds_nothing_to_say() -> None:
    app = BehindRepository("platform", "fra", "app", pending=5, failed=2, oldest_pending=0.0)
    metrics = by_repository((app, 42.0), left_out=7)
    for event in EVERYTHING:
        metrics(event)
    checked = subprocess.run(
        [require("promtool"), "check", "metrics"], input=metrics.expose(), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_openmetrics_tells_the_same_where_it_is_accepted() -> None:
    metrics = fed(*EVERYTHING)
    body, content_type = metrics.negotiate("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    told = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in openmetrics_parser.text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]
        for sample in family.samples
    }
    plain = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.expose().decode())
        for sample in family.samples
    }
    assert told == plain
    assert metrics.negotiate("text/html, */*")[1].startswith("text/plain; version=0.0.4")


def label_values(metrics: Metrics, *names: str) -> set[str]:
    return {
        value
        for family in text_string_to_metric_families(metrics.expose().decode())
        for sample in family.samples
        for name, value in sample.labels.items()
        if name in names
    }


def test_series_of_removed_rules_sites_and_hooks_disappear() -> None:
    metrics = fed(*EVERYTHING)
    metrics.follow([rule("other", ["fra"])], ["new"])
    assert label_values(metrics, "rule") == {"other"}
    assert label_values(metrics, "site", "source", "destination") == {"hub", "near", "fra"}
    assert label_values(metrics, "hook") == {"new"}
    scraped = Scraped(metrics)
    assert scraped.value("replicator_requests_total", site="hub", operation="read blob", code="200") == 1
    assert scraped.value("replicator_lag_seconds", rule="other", destination="fra") == 0


def test_a_destination_removed_from_one_rule_stays_with_the_other() -> None:
    metrics = Metrics([rule("one"), rule("two")], nothing_known)
    for name in ("one", "two"):
        metrics(RunEnded(name, "sin", "ok", 1.0, 0, 0, 0, 0))
    metrics.follow([rule("one", ["fra"]), rule("two")], ())
    scraped = Scraped(metrics)
    assert scraped.value("replicator_runs_total", rule="one", destination="sin", outcome="ok") is None
    assert scraped.value("replicator_runs_total", rule="two", destination="sin", outcome="ok") == 1


def test_a_run_that_outlives_its_rule_makes_no_series_again() -> None:
    """A reload lets runs of removed rules go on; a slot given back then would even count below zero."""
    metrics = fed(*EVERYTHING)
    metrics.follow([rule("other", ["fra"])], ["new"])
    before = metrics.expose()
    for event in (
        RunStarted("platform", "hub", ("fra",)),
        InFlight("sin", "blobs", -1),
        BytesWritten("hub", "sin", 5),
        TagDone("platform", "fra", "app", "v1", "copy", "copied", 12.0),
        Failed("platform", "fra", "fra", "app", "put manifest", "rejected", "400"),
        Observed("platform", 2_000.0),
        RunEnded("platform", "fra", "ok", 3.0, 1, 1, 0, 1),
    ):
        metrics(event)
    assert metrics.expose() == before


@pytest.mark.parametrize("more", [{"mirrors": ()}, {"source": "other"}])
def test_a_run_that_outlives_a_site_of_its_rule_makes_no_series_of_it_again(more: dict[str, Any]) -> None:
    """Here the pairs of rule and destination all stay; the mirror, or the source, is what is gone."""
    metrics = fed(InFlight("hub", "reads", +1), InFlight("near", "reads", +1))
    metrics.follow([replace(rule(), **more)], ())
    gone = {"hub", "near"} - label_values(metrics, "site", "source")
    assert len(gone) == 1
    for site in gone:
        metrics(RequestDone(site, "read blob", "200", 0.1))
        metrics(InFlight(site, "reads", -1))
    assert not gone & label_values(metrics, "site", "source")


def test_a_rule_and_site_that_come_back_are_counted_again() -> None:
    metrics = fed(*EVERYTHING)
    metrics.follow([rule("platform", ["fra"])], ())
    metrics(LimitChanged("sin", "blobs", 12))  # the site opens before the new config is in force
    metrics.follow([rule()], ())
    metrics(RunEnded("platform", "sin", "ok", 3.0, 1, 1, 0, 1))
    scraped = Scraped(metrics)
    assert scraped.value("replicator_runs_total", rule="platform", destination="sin", outcome="ok") == 1
    assert scraped.value("replicator_concurrency_limit", site="sin", kind="blobs") == 12


def test_a_destination_that_hangs_hides_no_duration_of_the_others() -> None:
    """An agent runs each destination on its own: one that never ended kept all of the rule's from being told."""
    metrics = fed(RunStarted("platform", "hub", ("sin",)))
    for seconds in (1.0, 2.0, 3.0):
        metrics(RunStarted("platform", "hub", ("fra",)))
        metrics(RunEnded("platform", "fra", "ok", seconds, 1, 0, 0, 0))
    scraped = Scraped(metrics)
    assert scraped.value("replicator_run_duration_seconds_count", rule="platform") == 3
    assert scraped.value("replicator_run_duration_seconds_sum", rule="platform") == 6


def test_a_run_that_a_command_kept_from_starting_is_told_all_the_same() -> None:
    scraped = Scraped(fed(RunEnded("platform", "fra", "failed", 0.5, 0, 0, 0, 0)))
    assert scraped.value("replicator_run_duration_seconds_count", rule="platform") == 1


def by_repository(*repositories: tuple[BehindRepository, float], left_out: int = 0) -> Metrics:
    behind = Behind(repositories, left_out)
    return Metrics([rule()], nothing_known, lambda: behind)


def test_breakdown_by_repository_is_there_only_where_asked_for() -> None:
    app = BehindRepository("platform", "fra", "app", pending=5, failed=2, oldest_pending=0.0)
    metrics = by_repository((app, 42.0), left_out=7)
    scraped = Scraped(metrics)
    assert {name: labels for name, labels in scraped.labels.items() if "repositor" in name} == BY_REPOSITORY
    place = {"rule": "platform", "destination": "fra", "repository": "app"}
    assert scraped.value("replicator_repository_lag_seconds", **place) == 42
    assert scraped.value("replicator_repository_tags", **place, state="pending") == 3
    assert scraped.value("replicator_repository_tags", **place, state="failed") == 2
    assert scraped.value("replicator_repositories_left_out") == 7
    unasked = Metrics([rule()], nothing_known, lambda: None)
    assert b"repositor" not in unasked.expose()
    assert b"repositor" not in fed(*EVERYTHING).expose()


def test_a_hostile_repository_name_cannot_forge_a_series() -> None:
    name = 'app"} 1\nreplicator_lag_seconds{rule="platform",destination="fra"} 0\n\\'
    app = BehindRepository("platform", "fra", name, pending=1, failed=0, oldest_pending=0.0)
    assert label_values(by_repository((app, 1.0)), "repository") == {name}
