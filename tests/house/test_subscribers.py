"""A subscriber gets the events that it asks for. Those are what it has code for: no case is missing, and none is idle."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Final, get_args

import pytest

from replicator.daemon.http.api.live import WATCHED, Live
from replicator.daemon.untrusted import HOLDING, UntrustedTags
from replicator.daemon.watchdog import PROGRESS, ProgressWatchdog
from replicator.engine.accounting import COUNTED_REQUESTS, count_request
from replicator.events import Event
from replicator.metrics import FLEET, FleetMetrics
from replicator.report import COUNTED, RunCounts
from replicator.runs.indexing import INDEXED, Indexer
from replicator.runs.progress import FOLLOWED, Progress

EVENTS: Final = {kind.__name__: kind for kind in get_args(Event)}
SUBSCRIBERS: Final[dict[str, tuple[Callable[..., None], frozenset[type]]]] = {
    "counts of a run": (RunCounts.__call__, COUNTED),
    "requests of a rule": (count_request, COUNTED_REQUESTS),
    "progress": (Progress.__call__, FOLLOWED),
    "index": (Indexer.__call__, INDEXED),
    "tags held for trust": (UntrustedTags.__call__, HOLDING),
    "watchdog": (ProgressWatchdog.__call__, PROGRESS),
    "metrics of a fleet": (FleetMetrics.__call__, FLEET),
}


def handled(subscriber: Callable[..., None]) -> set[type]:
    """The events that the code of a subscriber tells apart."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(subscriber)))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.MatchClass):
            names.add(ast.unparse(node.cls))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            names |= {each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)}
    return {EVENTS[name] for name in names & EVENTS.keys()}


@pytest.mark.parametrize(("subscriber", "events"), SUBSCRIBERS.values(), ids=SUBSCRIBERS)
def test_a_subscriber_asks_for_what_it_has_code_for(
    subscriber: Callable[..., None], events: frozenset[type]
) -> None:
    assert handled(subscriber) == events


def test_the_live_view_asks_for_what_its_progress_follows_too() -> None:
    assert handled(Live.__call__) | FOLLOWED == WATCHED
