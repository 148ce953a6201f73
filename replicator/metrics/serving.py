"""What `serve` tells of itself."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from replicator.metrics import buckets


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
            buckets=buckets.REQUEST,
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
