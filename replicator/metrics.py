"""Prometheus metrics, fed by events; the names and labels are design.md's ("Metrics").

Lag and the other facts that the state remembers are computed when somebody scrapes, from standings that the
constructor is told how to get. No tag, digest or repository is ever a label.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from replicator import __version__, errors
from replicator.events import (
    BlobDone,
    BytesRead,
    BytesSaved,
    BytesWritten,
    ConfigRead,
    Event,
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
    WebhookOutcome,
    WebhookSeen,
)
from replicator.policy.rule import Rule
from replicator.ports import Standing

Standings = Callable[[], Iterable[tuple[Standing, float]]]
"""Where rules stand now, each with its lag in seconds."""

_OUTCOMES: Final = ("ok", "partial", "failed", "interrupted")
_BLOB_OUTCOMES: Final = ("copied", "mounted", "present", "failed")
_SAVED_REASONS: Final = ("present", "mounted", "shared_read", "server_side")
_RETRY_REASONS: Final = (errors.Throttled.reason, errors.Unavailable.reason)
_ERROR_REASONS: Final = tuple(
    each.reason
    for each in (
        errors.NotFound,
        errors.Denied,
        errors.AuthFailed,
        errors.Throttled,
        errors.Unavailable,
        errors.Rejected,
        errors.Corrupt,
        errors.Unsupported,
        errors.MissingReference,
    )
)
_DELAY_BUCKETS: Final = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 10800, 43200, 86400)
_RUN_BUCKETS: Final = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 10800)
_REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

_Wrapper = TypeVar("_Wrapper", Counter, Gauge, Histogram)

# The `_created` series beside each counter and histogram are none of the names that we promise.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """A subscriber to `Events` with a registry of its own.

    Args:
        rules: what label combinations exist from the start.
        standings: asked at each scrape; those of rules that are not in `rules` are left out.
    """

    def __init__(self, rules: Sequence[Rule], standings: Standings) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._children: dict[tuple[object, ...], Any] = {}
        self._unfinished: dict[str, tuple[set[str], float]] = {}
        self._observed: dict[str, float] = {}
        self._make()
        self._feeds: dict[type, Callable[[Any], None]] = {
            RequestDone: self._request_done,
            RetryPlanned: lambda event: self._child(self._retries, event.site, event.reason).inc(),
            BytesRead: lambda event: self._child(self._source_bytes, event.source).inc(event.count),
            BytesWritten: lambda event: self._child(self._bytes, event.source, event.destination).inc(
                event.count
            ),
            BytesSaved: lambda event: self._child(self._saved, event.destination, event.reason).inc(
                event.count
            ),
            BlobDone: lambda event: self._child(
                self._blobs, event.source, event.destination, event.outcome
            ).inc(),
            TagDone: self._tag_done,
            Observed: self._note_observed,
            RunStarted: self._run_started,
            RunEnded: self._run_ended,
            Failed: lambda event: self._child(
                self._errors, event.rule, event.destination, event.reason
            ).inc(),
            LimitChanged: lambda event: self._child(self._limit, event.site, event.kind).set(event.limit),
            InFlight: lambda event: self._child(self._in_flight, event.site, event.kind).inc(event.change),
            QuotaSeen: lambda event: self._child(self._quota, event.site).set(event.remaining),
            ConfigRead: self._config_read,
            WebhookSeen: lambda event: self._child(self._webhooks, event.hook, event.outcome).inc(),
        }
        self._config: tuple[Gauge, Gauge] | None = None
        self._start(rules)
        self._collector = _StandingsCollector(rules, standings, self._observed)
        self.registry.register(self._collector)

    def __call__(self, event: Event) -> None:
        """Takes one event."""
        feed = self._feeds.get(type(event))
        if feed is not None:
            feed(event)

    def expose(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return prometheus_client.generate_latest(self.registry)

    def negotiate(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the best format that an `Accept` header names, text where it names none; with its type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def know_hooks(self, hooks: Iterable[str]) -> None:
        """Makes the series of these webhooks exist from now on."""
        for hook, outcome in product(hooks, get_args(WebhookOutcome)):
            self._child(self._webhooks, hook, outcome)

    def follow(self, rules: Sequence[Rule], hooks: Iterable[str]) -> None:
        """Only these rules and webhooks are there from now on: theirs exist, all that names another disappears."""
        pairs = {(rule.name, destination) for rule in rules for destination in rule.destinations}
        sites = {site for rule in rules for site in (rule.source, *rule.mirrors, *rule.destinations)}
        known = {"rule": {rule for rule, _ in pairs}, "hook": set(hooks)}
        known |= dict.fromkeys(("source", "destination", "site"), sites)
        for metric, *values in list(self._children):
            labels = dict(zip(metric._labelnames, values, strict=True))  # type: ignore[attr-defined] # noqa: SLF001
            pair = (labels.get("rule", ""), labels.get("destination", ""))
            if any(value not in known.get(name, {value}) for name, value in labels.items()) or (
                {"rule", "destination"} <= labels.keys() and pair not in pairs
            ):
                del self._children[(metric, *values)]
                metric.remove(*values)  # type: ignore[attr-defined]
        self._start(rules)
        self.know_hooks(known["hook"])
        self._collector.follow(rules)

    def write_file(self, path: Path) -> None:
        """Writes the metrics for node_exporter's textfile collector, which must never see half a file.

        Raises OSError; the file is then what it was before.
        """
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self.expose())
                os.fchmod(file.fileno(), 0o644)  # mkstemp gives 0600; node_exporter is another user
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _make(self) -> None:
        def histogram(name: str, text: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
            return Histogram(name, text, labels, registry=self.registry, buckets=buckets)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=self.registry)

        self._delay = histogram(
            "replicator_delay_seconds",
            "From when a change was seen until its tag was visible at the destination.",
            ["rule", "destination"],
            _DELAY_BUCKETS,
        )
        self._runs = counter("replicator_runs_total", "Runs by outcome.", "rule", "destination", "outcome")
        self._run_duration = histogram(
            "replicator_run_duration_seconds", "How long runs took.", ["rule"], _RUN_BUCKETS
        )
        self._blobs = counter(
            "replicator_blobs_total", "Blob transfers by outcome.", "source", "destination", "outcome"
        )
        self._bytes = counter("replicator_bytes_total", "Payload bytes written.", "source", "destination")
        self._source_bytes = counter(
            "replicator_source_bytes_total", "Payload bytes read from a site.", "source"
        )
        self._saved = counter(
            "replicator_bytes_saved_total",
            "Payload bytes that did not have to move.",
            "destination",
            "reason",
        )
        self._requests = counter(
            "replicator_requests_total", "Requests to a site.", "site", "operation", "code"
        )
        self._request_duration = histogram(
            "replicator_request_duration_seconds",
            "How long requests took.",
            ["site", "operation"],
            _REQUEST_BUCKETS,
        )
        self._retries = counter("replicator_retries_total", "Retries by reason.", "site", "reason")
        self._errors = counter(
            "replicator_errors_total", "What failed for good in a run.", "rule", "destination", "reason"
        )
        self._in_flight = gauge("replicator_in_flight", "Requests under way.", "site", "kind")
        self._limit = gauge(
            "replicator_concurrency_limit", "Requests allowed at once, as adapted.", "site", "kind"
        )
        self._quota = gauge("replicator_rate_limit_remaining", "Pulls that the site still grants.", "site")
        self._webhooks = counter(
            "replicator_webhooks_total", "Refused webhooks, and events of accepted ones.", "hook", "outcome"
        )
        gauge("replicator_build_info", "The running version.", "version").labels(__version__).set(1)

    def _start(self, rules: Sequence[Rule]) -> None:
        """Makes the known combinations exist, so that a first increase is seen as one."""
        for rule in rules:
            self._child(self._run_duration, rule.name)
            sources = (rule.source, *rule.mirrors)
            for source in sources:
                self._child(self._source_bytes, source)
            for site, reason in product((*sources, *rule.destinations), _RETRY_REASONS):
                self._child(self._retries, site, reason)
            for source, destination in product(sources, rule.destinations):
                self._child(self._bytes, source, destination)
                for outcome in _BLOB_OUTCOMES:
                    self._child(self._blobs, source, destination, outcome)
            for destination in rule.destinations:
                self._start_destination(rule.name, destination)

    def _start_destination(self, rule: str, destination: str) -> None:
        self._child(self._delay, rule, destination)
        for outcome in _OUTCOMES:
            self._child(self._runs, rule, destination, outcome)
        for reason in _ERROR_REASONS:
            self._child(self._errors, rule, destination, reason)
        for reason in _SAVED_REASONS:
            self._child(self._saved, destination, reason)

    def _child(self, metric: _Wrapper, *labels: str) -> _Wrapper:
        """The metric with its labels; kept, since `labels()` takes a lock and events come with every chunk."""
        key = (metric, *labels)
        child: _Wrapper | None = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def _config_read(self, event: ConfigRead) -> None:
        """Makes its two metrics when an agent first tells: where there is none, they would be false alarms."""
        if self._config is None:
            self._config = (
                Gauge(
                    "replicator_config_last_reload_successful",
                    "Whether the config could be used when it was last read.",
                    registry=self.registry,
                ),
                Gauge(
                    "replicator_config_last_reload_success_timestamp_seconds",
                    "When the config in force was read.",
                    registry=self.registry,
                ),
            )
        successful, at = self._config
        successful.set(event.successful)
        if event.successful:
            at.set(event.at)

    def _request_done(self, event: RequestDone) -> None:
        self._child(self._requests, event.site, event.operation, event.code).inc()
        self._child(self._request_duration, event.site, event.operation).observe(event.seconds)

    def _tag_done(self, event: TagDone) -> None:
        if event.delay is not None:
            self._child(self._delay, event.rule, event.destination).observe(event.delay)

    def _note_observed(self, event: Observed) -> None:
        self._observed[event.rule] = max(event.at, self._observed.get(event.rule, 0.0))

    def _run_started(self, event: RunStarted) -> None:
        destinations, seconds = self._unfinished.get(event.rule, (set(), 0.0))
        self._unfinished[event.rule] = (destinations | set(event.destinations), seconds)

    def _run_ended(self, event: RunEnded) -> None:
        """Counts the run at its destination; it lasted until its last destination was through."""
        self._child(self._runs, event.rule, event.destination, event.outcome).inc()
        destinations, seconds = self._unfinished.pop(event.rule, (set(), 0.0))
        left, longest = destinations - {event.destination}, max(seconds, event.seconds)
        if left:
            self._unfinished[event.rule] = (left, longest)
        else:
            self._child(self._run_duration, event.rule).observe(longest)


class ServeMetrics:
    """What `serve` tells of itself, in the registry of a `Metrics`.

    Args:
        registry: where the metrics are put.
        connections: asked at each scrape.
        limit: how many connections there may be.
    """

    def __init__(self, registry: CollectorRegistry, connections: Callable[[], int], limit: int) -> None:
        self._requests = Counter(
            "replicator_serve_requests_total", "Requests answered.", ["operation", "code"], registry=registry
        )
        self._duration = Histogram(
            "replicator_serve_request_duration_seconds",
            "From a request's head to the last byte of its answer.",
            ["operation"],
            registry=registry,
            buckets=_REQUEST_BUCKETS,
        )
        self._bytes = Counter(
            "replicator_serve_bytes_total", "Bytes of bodies sent.", ["operation"], registry=registry
        )
        now = Gauge("replicator_serve_connections", "Clients connected.", registry=registry)
        now.set_function(connections)
        Gauge("replicator_serve_connections_limit", "Clients allowed at once.", registry=registry).set(limit)

    def sent(self, operation: str, count: int) -> None:
        """Bytes went out."""
        self._bytes.labels(operation).inc(count)

    def answered(self, operation: str, code: int, seconds: float) -> None:
        """A request ended."""
        self._requests.labels(operation, str(code)).inc()
        self._duration.labels(operation).observe(seconds)


class _StandingsCollector(Collector):
    """What the state remembers, read at scrape. A pair that the state does not know yet shows zeros."""

    def __init__(self, rules: Sequence[Rule], standings: Standings, observed: dict[str, float]) -> None:
        self._pairs: list[tuple[str, str]] = []
        self._standings = standings
        self._observed = observed
        self.follow(rules)

    def follow(self, rules: Sequence[Rule]) -> None:
        """Shows these rules from now on."""
        self._pairs = [(rule.name, destination) for rule in rules for destination in rule.destinations]

    def collect(self) -> Iterator[Metric]:
        """The families of lag, tags, last success and last look."""
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
            for state in ("in_step", "held", "pending", "failed"):
                tags.add_metric((*pair, state), getattr(standing, state))
        for rule, at in looks.items():
            observed.add_metric((rule,), at)
        yield from (lag, tags, success, observed)
