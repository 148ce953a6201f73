"""Writes the recorded series and alerts of grafana/ as the Prometheus operator's resource, to stdout."""

from __future__ import annotations

from pathlib import Path
from typing import Final

GRAFANA: Final = Path(__file__).parents[1] / "grafana"
HEADER: Final = """\
# From grafana/rules.yml and grafana/alerts.yml, by `make reference`. docs/runbook.md has an entry for each alert.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: replicator
  labels:
    app.kubernetes.io/name: replicator
spec:
  groups:
"""


def groups(text: str) -> str:
    """The groups of a file of rules, as they are written, indented for the resource."""
    _, _, listed = text.partition("\ngroups:\n")
    return "".join(f"  {line}" if line.strip() else line for line in listed.splitlines(keepends=True))


def rule() -> str:
    """The whole resource."""
    return HEADER + "".join(groups((GRAFANA / name).read_text()) for name in ("rules.yml", "alerts.yml"))


if __name__ == "__main__":
    print(rule(), end="")
