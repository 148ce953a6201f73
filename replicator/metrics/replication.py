"""What replication tells of itself: counted from events, and what the state remembers as of each scrape."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from replicator import __version__, errors
from replicator.events import (
    BlobDone,
    BytesRead,
    BytesSaved,
    BytesWritten,
    CredentialsRenewed,
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
    TagUntrusted,
)
from replicator.events.agent import ConfigRead, RunStuck, WebhookOutcome, WebhookSeen
from replicator.metrics import buckets
from replicator.metrics.names import Names
from replicator.metrics.standings import Behind, RepositoriesCollector, Standings, StandingsCollector
from replicator.policy.rule import Rule

_OUTCOMES: Final = ("ok", "partial", "failed", "interrupted")
_BLOB_OUTCOMES: Final = ("copied", "mounted", "present", "failed")
_SAVED_REASONS: Final = ("present", "mounted", "shared_read", "server_side")
_RETRY_REASONS: Final = (errors.Throttled.reason, errors.Unavailable.reason)
_ERROR_REASONS: Final = (
    "command",  # the one before a run
    "internal",
    *(
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
            errors.TagMoved,
        )
    ),
)

_Wrapper = TypeVar("_Wrapper", Counter, Gauge, Histogram)

# The `_created` series beside each counter and histogram are none of the names that we promise.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(slots=True)
class _OpenRun:
    """A run in progress: the destinations that are not done yet, and how long the others took."""

    left: set[str]
    seconds: float = 0.0


class Metrics:
    """A subscriber to `Events` with a registry of its own.

    Args:
        rules: what label combinations exist from the start.
        standings: asked at each scrape; those of rules that are not in `rules` are left out.
        behind: the breakdown by repository, asked at each scrape; None, by itself or as answer: without it.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        standings: Standings,
        behind: Callable[[], Behind | None] | None = None,
    ) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._children: dict[tuple[object, ...], Any] = {}
        self._open: dict[str, list[_OpenRun]] = {}
        self._observed: dict[str, float] = {}
        self._held: dict[tuple[str, str], set[str]] = {}
        self._known = Names(rules)
        self._gone = Names(())
        self._limits_told: dict[tuple[str, str], LimitChanged] = {}
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
            TagUntrusted: self._tag_untrusted,
            Observed: self._note_observed,
            RunStarted: self._run_started,
            RunEnded: self._run_ended,
            RunStuck: self._run_stuck,
            Failed: lambda event: self._child(
                self._errors, event.rule, event.destination, event.reason
            ).inc(),
            LimitChanged: lambda event: self._child(self._limit, event.site, event.kind).set(event.limit),
            InFlight: lambda event: self._child(self._in_flight, event.site, event.kind).inc(event.change),
            QuotaSeen: lambda event: self._child(self._quota, event.site).set(event.remaining),
            CredentialsRenewed: self._credentials_renewed,
            ConfigRead: self._config_read,
            WebhookSeen: lambda event: self._child(self._webhooks, event.hook, event.outcome).inc(),
        }
        self._config: tuple[Gauge, Gauge] | None = None
        self._start(rules)
        self._collector = StandingsCollector(rules, standings, self._observed)
        self.registry.register(self._collector)
        if behind is not None:
            self.registry.register(RepositoriesCollector(behind))

    def __call__(self, event: Event) -> None:
        """Takes one event. One of a rule or site that is gone, from a run that goes on, makes no series again."""
        feed = self._feeds.get(type(event))
        if feed is None:
            return
        if not self._gone.has(event):
            feed(event)
        elif isinstance(event, LimitChanged):  # told once when a site opens, before it is known to be back
            self._limits_told[event.site, event.kind] = event

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
        known, hooks = Names(rules), set(hooks)
        self._gone = (self._gone | self._known) - known
        self._known = known
        for metric, *values in list(self._children):
            names: tuple[str, ...] = metric._labelnames  # type: ignore[attr-defined] # noqa: SLF001
            labels = dict(zip(names, map(str, values), strict=True))
            if labels.get("hook") not in {None, *hooks} or self._gone.names(labels):
                del self._children[(metric, *values)]
                metric.remove(*values)  # type: ignore[attr-defined]
        for rule in self._gone.rules:
            self._open.pop(rule, None)
            self._observed.pop(rule, None)
        self._held = {place: tags for place, tags in self._held.items() if place in self._known.pairs}
        self._start(rules)
        self.know_hooks(hooks)
        self._collector.follow(rules)
        for event in tuple(self._limits_told.values()):
            self(event)

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
        histogram = functools.partial(Histogram, registry=self.registry)
        counter = functools.partial(Counter, registry=self.registry)
        gauge = functools.partial(Gauge, registry=self.registry)
        self._delay = histogram(
            "replicator_delay_seconds",
            "From when a change was seen until its tag was visible at the destination.",
            ["rule", "destination"],
            buckets=buckets.DELAY,
        )
        self._runs = counter("replicator_runs_total", "Runs by outcome.", ["rule", "destination", "outcome"])
        self._stuck_runs = counter(
            "replicator_stuck_runs_total", "Runs that were ended for making no progress.", ["rule"]
        )
        self._untrusted = gauge(
            "replicator_untrusted_tags",
            "Tags that are held because their images are not trusted.",
            ["rule", "destination"],
        )
        self._run_duration = histogram(
            "replicator_run_duration_seconds", "How long runs took.", ["rule"], buckets=buckets.RUN
        )
        self._blobs = counter(
            "replicator_blobs_total", "Blob transfers by outcome.", ["source", "destination", "outcome"]
        )
        self._bytes = counter("replicator_bytes_total", "Payload bytes written.", ["source", "destination"])
        self._source_bytes = counter(
            "replicator_source_bytes_total", "Payload bytes read from a site.", ["source"]
        )
        self._saved = counter(
            "replicator_bytes_saved_total",
            "Payload bytes that did not have to move.",
            ["destination", "reason"],
        )
        self._webhooks = counter(
            "replicator_webhooks_total", "Refused webhooks, and events of accepted ones.", ["hook", "outcome"]
        )
        gauge("replicator_build_info", "The running version.", ["version"]).labels(__version__).set(1)
        self._make_sites(histogram, counter, gauge)

    def _make_sites(
        self,
        histogram: Callable[..., Histogram],
        counter: Callable[..., Counter],
        gauge: Callable[..., Gauge],
    ) -> None:
        self._requests = counter(
            "replicator_requests_total", "Requests to a site.", ["site", "operation", "code"]
        )
        self._request_duration = histogram(
            "replicator_request_duration_seconds",
            "How long requests took.",
            ["site", "operation"],
            buckets=buckets.REQUEST,
        )
        self._retries = counter("replicator_retries_total", "Retries by reason.", ["site", "reason"])
        self._errors = counter(
            "replicator_errors_total", "What failed for good in a run.", ["rule", "destination", "reason"]
        )
        self._in_flight = gauge("replicator_in_flight", "Requests in progress.", ["site", "kind"])
        self._limit = gauge(
            "replicator_concurrency_limit", "Requests allowed at once, as adapted.", ["site", "kind"]
        )
        self._quota = gauge("replicator_rate_limit_remaining", "Pulls that the site still grants.", ["site"])
        self._expiry = gauge(
            "replicator_credentials_expiry_timestamp_seconds",
            "When the credentials that a cloud issued expire.",
            ["site"],
        )
        self._renewals = counter(
            "replicator_credential_renewals_total",
            "Credentials asked for from a cloud.",
            ["site", "outcome"],
        )

    def _start(self, rules: Sequence[Rule]) -> None:
        """Makes the known combinations exist, so that a first increase is seen as one."""
        for rule in rules:
            self._child(self._run_duration, rule.name)
            self._child(self._stuck_runs, rule.name)
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
        self._child(self._untrusted, rule, destination)
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

    def _credentials_renewed(self, event: CredentialsRenewed) -> None:
        self._child(self._expiry, event.site).set(event.expires_at)
        for outcome in ("ok", "failed"):
            self._child(self._renewals, event.site, outcome)
        self._child(self._renewals, event.site, event.outcome).inc()

    def _config_read(self, event: ConfigRead) -> None:
        """Makes its two metrics when an agent first tells: without an agent they would be false alarms."""
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
        place, tag = (event.rule, event.destination), f"{event.repository}:{event.tag}"
        if event.outcome == "copied" and tag in self._held.get(place, ()):
            self._held[place].discard(tag)
            self._tell_held(place)

    def _tag_untrusted(self, event: TagUntrusted) -> None:
        place = (event.rule, event.destination)
        self._held.setdefault(place, set()).add(f"{event.target}:{event.key}")
        self._tell_held(place)

    def _tell_held(self, place: tuple[str, str]) -> None:
        self._child(self._untrusted, *place).set(len(self._held[place]))

    def _note_observed(self, event: Observed) -> None:
        self._observed[event.rule] = max(event.at, self._observed.get(event.rule, 0.0))

    def _run_started(self, event: RunStarted) -> None:
        self._open.setdefault(event.rule, []).append(_OpenRun(set(event.destinations)))

    def _run_stuck(self, event: RunStuck) -> None:
        self._child(self._stuck_runs, event.rule).inc()

    def _run_ended(self, event: RunEnded) -> None:
        """Counts the run at its destination; it lasted until its last destination was through.

        An agent runs each destination on its own, so a rule may have several runs in progress: the oldest that is not
        through with this destination is meant. (Where runs for single events meet a whole one, it may be another; the
        count is right all the same.)
        """
        self._child(self._runs, event.rule, event.destination, event.outcome).inc()
        if event.untrusted is not None:
            place = (event.rule, event.destination)
            kept = {tag for tag in self._held.get(place, ()) if not event.forgets(tag)}
            self._held[place] = kept | event.untrusted
            self._tell_held(place)
        runs = self._open.get(event.rule, [])
        run = next((each for each in runs if event.destination in each.left), None)
        if run is None:  # a command before it kept it from starting
            self._child(self._run_duration, event.rule).observe(event.seconds)
            return
        run.left.discard(event.destination)
        run.seconds = max(run.seconds, event.seconds)
        if not run.left:
            runs.remove(run)
            self._child(self._run_duration, event.rule).observe(run.seconds)
