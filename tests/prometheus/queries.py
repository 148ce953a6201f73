"""What the dashboard, the alerts and the recording rules ask Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
GRAFANA: Final = ROOT / "grafana"
ALERTS: Final = GRAFANA / "alerts.yml"
RULES: Final = GRAFANA / "rules.yml"


@dataclass(frozen=True, slots=True)
class Query:
    """One expression as Grafana or Prometheus has it, and where it stands."""

    place: str
    expression: str


@cache
def dashboard() -> Any:
    return json.loads((GRAFANA / "replicator.json").read_text())


def panels() -> list[Any]:
    """All panels but rows, those inside collapsed rows too."""
    found: list[Any] = []
    for panel in dashboard()["panels"]:
        found += panel.get("panels", []) if panel["type"] == "row" else [panel]
    return found


def panel_queries() -> list[Query]:
    queries = [
        Query(f"panel {panel['title']!r}", target["expr"])
        for panel in panels()
        for target in panel["targets"]
    ]
    annotations = dashboard()["annotations"]["list"]
    return queries + [Query(f"annotation {each['name']!r}", each["expr"]) for each in annotations]


def variables() -> Mapping[str, Any]:
    """The dashboard's variables by name."""
    return {each["name"]: each for each in dashboard()["templating"]["list"]}


def variable_queries() -> dict[str, tuple[Query, str]]:
    """For each variable that asks Prometheus: what it asks for, and the label that it wants of that."""
    found = {}
    for name, variable in variables().items():
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"], re.DOTALL)
            assert match is not None, variable["query"]
            found[name] = (Query(f"variable {name!r}", match[1]), match[2])
    return found


def _rules(path: Path) -> Iterator[Any]:
    for group in yaml.safe_load(path.read_text())["groups"]:
        yield from group["rules"]


def alerts() -> dict[str, Any]:
    """The alerts by name."""
    return {each["alert"]: each for each in _rules(ALERTS)}


def recorded() -> dict[str, str]:
    """The expressions of the recording rules, by what they record."""
    return {each["record"]: each["expr"] for each in _rules(RULES)}


def without_conditions(expression: str) -> list[str]:
    """What an alert looks at, without when it fires: each side of `and` and `unless`, without comparisons."""
    sides = [side.strip() for side in re.split(r"\b(?:and|unless)\b", expression)]
    return [_uncompared(re.sub(r"^absent\((.*)\)$", r"\1", side)) for side in sides]


def _uncompared(expression: str) -> str:
    bare, found = re.subn(r"(?<![=!<>~])(==|<=|>=|<|>)\s*(\d+)(\)?)$", r"\3", expression)
    return bare if found else expression


def substituted(expression: str, values: Mapping[str, str]) -> str:
    """The expression with Grafana's variables filled in; fails where one is not among the values."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: values[match[1] or match[2]], expression)
