"""Prometheus metrics. docs/metrics.md explains each of them.

No tag or digest is ever a label, and a repository only where the config asks for it.
"""

from replicator.metrics.fleet import FLEET, FleetMetrics
from replicator.metrics.replication import Metrics
from replicator.metrics.serving import ServeMetrics
from replicator.metrics.standings import Behind, Standings

__all__ = ["FLEET", "Behind", "FleetMetrics", "Metrics", "ServeMetrics", "Standings"]
