"""`replicator status`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

import click

from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import iso, print_json
from replicator.cli.remote import remote_option, remote_status
from replicator.cli.rules import lag_of, served_rules
from replicator.cli.runner import run_async
from replicator.cli.watch import Watch
from replicator.config.load import load
from replicator.policy.rule import Rule
from replicator.ports import Standing
from replicator.report import format_seconds, table
from replicator.state.store import open_state

_Standings = Mapping[tuple[str, str], Standing]


@click.command("status")
@remote_option
@everywhere
@click.pass_obj
def command(invocation: Invocation, remote: str | None) -> int:
    """Show the status of each rule at each destination, from the state alone: no requests are sent to sites.

    Lag is the age of the oldest change that a destination lacks, as of the last run.
    """
    if remote is not None:
        return run_async(remote_status(invocation, remote))
    return run_async(_status(invocation))


async def _status(invocation: Invocation) -> int:
    watch = Watch.start(invocation)
    loaded = load(invocation.config, os.environ)
    state = await open_state(loaded.agent.state, clock=watch.clock, read_only=True)
    try:
        known = {(each.rule, each.destination): each for each in await state.standings()}
    finally:
        await state.aclose()
    rules, now = served_rules(loaded), watch.clock.now()
    if invocation.json:
        print_json({"version": 1, "rules": [_rule_json(rule, known, now) for rule in rules]})
    else:
        click.echo("\n".join(_lines(rules, known, now)))
    return 0


def _rule_json(rule: Rule, known: _Standings, now: float) -> dict[str, object]:
    return {
        "rule": rule.name,
        "source": rule.source,
        "destinations": [
            _destination_json(rule, destination, known.get((rule.name, destination)), now)
            for destination in rule.destinations
        ],
    }


def _destination_json(
    rule: Rule, destination: str, standing: Standing | None, now: float
) -> dict[str, object]:
    """All values are null if the rule has never run with this destination."""
    if standing is None:
        return {
            "destination": destination,
            "last_success": None,
            "last_look": None,
            "lag_seconds": None,
            "tags": None,
            "oldest_pending": None,
            "last_error": None,
        }
    return {
        "destination": destination,
        "last_success": None if standing.last_success is None else iso(standing.last_success),
        "last_look": None if standing.last_look is None else iso(standing.last_look),
        "lag_seconds": round(lag_of(rule, standing, now), 1),
        "tags": {
            "in_step": standing.in_step,
            "held": standing.held,
            "pending": standing.untried,
            "failed": standing.failed,
            "unknown": standing.unknown,
        },
        "oldest_pending": _oldest(standing),
        "last_error": standing.last_error or None,
    }


def _lines(rules: Sequence[Rule], known: _Standings, now: float) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [
        ("RULE", "DESTINATION", "LAST SUCCESS", "LAG", "IN STEP", "HELD", "PENDING", "FAILED", "UNKNOWN")
    ]
    errors: list[str] = []
    for rule in rules:
        for destination in rule.destinations:
            standing = known.get((rule.name, destination))
            if standing is None:
                rows.append((rule.name, destination, "never run", *("-",) * 6))
                continue
            success = standing.last_success
            rows.append(
                (
                    rule.name,
                    destination,
                    "never" if success is None else f"{format_seconds(max(0.0, now - success))} ago",
                    format_seconds(lag_of(rule, standing, now)),
                    *(str(n) for n in _counts(standing)),
                )
            )
            if standing.oldest_tag:
                oldest = f"{standing.oldest_repository}:{standing.oldest_tag}"
                errors.append(f"oldest pending tag: {rule.name} -> {destination}: {oldest}")
            if standing.last_error:
                errors.append(f"last error: {rule.name} -> {destination}: {standing.last_error}")
    yield from table(rows, right=frozenset(range(3, 9)))
    yield from errors


def _counts(standing: Standing) -> tuple[int, ...]:
    return standing.in_step, standing.held, standing.untried, standing.failed, standing.unknown


def _oldest(standing: Standing) -> dict[str, object] | None:
    """The tag that holds the lag."""
    if standing.oldest_pending is None or not standing.oldest_tag:
        return None
    return {
        "repository": standing.oldest_repository,
        "tag": standing.oldest_tag,
        "since": iso(standing.oldest_pending),
    }
