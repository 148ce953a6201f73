"""The dashboard is one that Grafana imports, it asks only for what there is, and alerts and docs fit together."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prometheus.queries import (
    GRAFANA,
    ROOT,
    alerts,
    dashboard,
    panel_queries,
    panels,
    recorded,
    substituted,
    variable_queries,
    variables,
)
from tests.unit.metrics.test_metrics import BY_REPOSITORY, PROMISED
from tests.unit.metrics.test_metrics_fleet import IN_A_FLEET

KNOWN = {**PROMISED, **BY_REPOSITORY, **IN_A_FLEET}
BUILT_IN = {"__rate_interval": "1m", "__range": "1h"}
TYPES = {"row", "stat", "timeseries", "table"}
"""Panels that every Grafana from 10 on has by itself."""
METRIC = re.compile(r"\breplicator_\w+")
SELECTION = re.compile(r"\b(replicator_\w+)\{([^}]*)\}")
GROUPING = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")


def expressions() -> list[str]:
    queries = [query.expression for query in panel_queries()]
    queries += [query.expression for query, _ in variable_queries().values()]
    return [*queries, *(each["expr"] for each in alerts().values()), *recorded().values()]


def base(metric: str) -> str:
    """The metric that a series of a histogram belongs to."""
    return metric if metric in KNOWN else re.sub(r"_(bucket|sum|count)$", "", metric)


def test_every_query_asks_for_metrics_and_labels_that_there_are() -> None:
    for expression in expressions():
        for metric in METRIC.findall(expression):
            assert base(metric) in KNOWN, expression
        for metric, selection in SELECTION.findall(expression):
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selection))
            assert labels <= KNOWN[base(metric)] | {"instance", "job"}, expression
        labels = {name.strip() for group in GROUPING.findall(expression) for name in group.split(",")}
        every = set().union(*(KNOWN[base(metric)] for metric in METRIC.findall(expression)))
        assert labels <= every | {"instance", "job", "le"}, expression


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {base(metric) for query in panel_queries() for metric in METRIC.findall(query.expression)}
    assert shown == KNOWN.keys()


def test_variables_of_queries_exist() -> None:
    values = {**BUILT_IN, **dict.fromkeys(variables(), "x")}
    for query in panel_queries():
        substituted(query.expression, values)  # raises KeyError
    for panel in panels():
        substituted(panel["title"], values)


def things_with_a_datasource(node: Any) -> list[Any]:
    if isinstance(node, list):
        return [found for each in node for found in things_with_a_datasource(each)]
    if not isinstance(node, dict):
        return []
    own = [node["datasource"]] if "datasource" in node else []
    return own + [found for each in node.values() for found in things_with_a_datasource(each)]


def test_no_datasource_is_wired_in() -> None:
    found = things_with_a_datasource(dashboard())
    assert len(found) > len(panels())
    assert all(each == {"type": "prometheus", "uid": "${datasource}"} for each in found)
    assert variables()["datasource"]["type"] == "datasource"
    assert variables()["datasource"]["query"] == "prometheus"


def test_dashboard_has_the_shape_that_grafana_10_imports() -> None:
    board = dashboard()
    assert board["id"] is None
    assert board["uid"]
    assert board["title"]
    assert 36 <= board["schemaVersion"] <= 39  # Grafana 10.0 to 11; newer ones migrate it
    for panel in board["panels"]:
        assert panel["type"] in TYPES
        assert panel["title"]
        assert set(panel["gridPos"]) == {"h", "w", "x", "y"}
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


def test_panels_do_not_lie_on_each_other() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_every_panel_says_what_it_shows_and_in_which_unit() -> None:
    titles = [panel["title"] for panel in panels()]
    assert len(set(titles)) == len(titles)
    for panel in panels():
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


def test_provisioning_is_what_grafana_reads() -> None:
    folder = GRAFANA / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    (provider,) = yaml.safe_load((folder / "dashboards" / "replicator.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert Path(provider["options"]["path"]).is_absolute()


# --- alerts and docs ---


def anchors(path: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_how_bad_it_is_what_it_is_and_what_to_do(name: str) -> None:
    alert = alerts()[name]
    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert all(alert["annotations"].values())
    page, anchor = alert["annotations"]["runbook_url"].split("#")
    assert page == "docs/runbook.md"
    assert anchor == name.lower()
    assert anchor in anchors(ROOT / page)


def test_the_runbook_has_an_entry_for_each_alert_and_no_other() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    assert re.findall(r"^## (Replicator\w+)$", text, re.MULTILINE) == list(alerts())
    for entry in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        if entry.startswith("Replicator"):
            for part in ("**Means**", "**Look**", "**Do**"):
                assert part in entry, entry.splitlines()[0]


def test_commands_of_the_runbook_exist() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    headings = re.findall(r"^## `.+$", (ROOT / "docs" / "commands.md").read_text(), re.MULTILINE)
    documented = {command for heading in headings for command in re.findall(r"`([a-z]+)\b", heading)}
    commands = set(re.findall(r"(?:`|^)replicator ([a-z]+)", text, re.MULTILINE))
    assert {"status", "check"} <= commands <= documented


def test_the_docs_have_each_metric_with_its_labels_and_no_other() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(replicator_\w+)(?:\{([\w,]*)\})?` \|", text, re.MULTILINE)
    documented = {
        name: set(filter(None, labels.split(","))) for name, labels in rows if "_serve_" not in name
    }
    assert documented == KNOWN
