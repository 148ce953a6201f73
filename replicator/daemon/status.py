"""How rules are, and the sentence that `systemctl status` shows. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from replicator.policy.rule import Rule
from replicator.ports import Standing
from replicator.runs.current import Run


@dataclass(frozen=True, slots=True)
class RuleStatus:
    """One rule as it is now.

    `next_run` in epoch seconds, None if nothing is scheduled; `backing_off`: destinations that wait after repeated
    failures, with the time of the next attempt. `untrusted`: by destination, tags that are held there because their
    images are not trusted, as `repository:tag`, and why.
    """

    rule: Rule
    paused: bool
    next_run: float | None
    backing_off: Mapping[str, float]
    untrusted: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class _Rule(Protocol):
    @property
    def rule(self) -> Rule: ...
    @property
    def paused(self) -> bool: ...
    @property
    def next_run(self) -> float | None: ...


def sentence(
    rules: Sequence[_Rule],
    standings: Sequence[tuple[Standing, float]],
    running: Sequence[Run],
    config_problem: str | None,
    stuck: Sequence[str] = (),
    shared: str | None = None,
) -> str:
    """The state of everything, the worst first; `shared`: what is wrong with a fleet. Without durations that grow: it is sent only when it changes."""
    pairs = sum(len(each.rule.destinations) for each in rules)
    failing = [each for each, _ in standings if each.last_error or each.failed]
    behind = [each for each, seconds in standings if seconds > 0 and each not in failing]
    parts = [] if shared is None else [shared]
    if stuck:
        parts.append(f"stuck: {', '.join(stuck[:3])}")
    if failing:
        names = ", ".join(f"{each.rule} -> {each.destination}" for each in failing[:3])
        more = f" and {len(failing) - 3} more" if len(failing) > 3 else ""
        parts.append(f"failing: {names}{more}")
    if behind:
        parts.append(f"{len(behind)} behind")
    parts.append(f"{pairs - len(failing) - len(behind)} of {pairs} in step")
    if running:
        parts.append(f"running: {', '.join(sorted({run.rule for run in running})[:5])}")
    if paused := sum(each.paused for each in rules):
        parts.append(f"{paused} paused")
    nexts = [(each.next_run, each.rule.name) for each in rules if each.next_run is not None]
    if nexts and not running:
        at, name = min(nexts)
        parts.append(f"next: {name} at {dt.datetime.fromtimestamp(at, dt.UTC):%H:%M:%S} UTC")
    if config_problem:
        parts.append(config_problem)
    return "; ".join(parts)
