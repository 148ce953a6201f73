"""Results: what was measured, as a table of ratios to the best peer, and as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.measure import Usage
from bench.peers import OURS


@dataclass(frozen=True, slots=True)
class Row:
    """What one program cost in one scenario, run by run. `payload_bytes` is what had to be moved once."""

    scenario: str
    program: str
    runs: Sequence[Usage]
    reach: float | None = None
    payload_bytes: int = 0
    notes: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None

    @property
    def seconds(self) -> float:
        """Median wall time."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def cpu_seconds(self) -> float:
        """Median CPU time."""
        return statistics.median(run.cpu_seconds for run in self.runs)

    @property
    def servers_cpu_seconds(self) -> float:
        """Median CPU time of the registries, links and stores meanwhile."""
        return statistics.median(run.servers_cpu_seconds for run in self.runs)

    @property
    def peak_bytes(self) -> int:
        """The largest peak."""
        return max(run.peak_bytes for run in self.runs)


HEAD = (
    "scenario",
    "program",
    "median s",
    "spread s",
    "of best peer",
    "reach",
    "CPU s",
    "CPU s/GB",
    "servers' CPU s",
    "peak MB",
    "notes",
)


def render(rows: Iterable[Row]) -> str:
    """The table, in Markdown."""
    rows = list(rows)
    lines = [HEAD, tuple("---" if name in {"scenario", "program", "notes"} else "---:" for name in HEAD)]
    lines += [_cells(row, _best_peer(rows, row.scenario)) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def save(rows: Iterable[Row], path: Path, about: Mapping[str, object]) -> None:
    """Writes the rows, and what they were measured with, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {"about": about, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(body, indent=1) + "\n")


def load(path: Path) -> list[Row]:
    """The rows of a file that `save` wrote."""
    rows = json.loads(path.read_text())["rows"]
    return [Row(**{**row, "runs": [Usage(**run) for run in row["runs"]]}) for row in rows]


def _best_peer(rows: Iterable[Row], scenario: str) -> float | None:
    peers = [row.seconds for row in rows if row.scenario == scenario and row.program != OURS and row.runs]
    return min(peers, default=None)


def _cells(row: Row, best: float | None) -> tuple[str, ...]:
    failure = [row.failure.splitlines()[-1][:90]] if row.failure else []
    if not row.runs:
        return (row.scenario, row.program, *[""] * 8, *(failure or ["did not run"]))
    seconds = [run.seconds for run in row.runs]
    notes = [f"{name} {value:,.6g}" for name, value in row.notes.items()]
    return (
        row.scenario,
        row.program,
        f"{row.seconds:.2f}",
        f"{min(seconds):.2f}-{max(seconds):.2f}",
        f"{row.seconds / best:.2f}" if best else "",
        f"{row.reach:.2f}" if row.reach and row.program == OURS else "",
        f"{row.cpu_seconds:.2f}",
        f"{row.cpu_seconds / row.payload_bytes * 1e9:.1f}" if row.payload_bytes > 1e8 else "",
        f"{row.servers_cpu_seconds:.1f}" if row.servers_cpu_seconds else "",
        f"{row.peak_bytes / 1e6:.0f}",
        ", ".join(notes + failure),
    )
