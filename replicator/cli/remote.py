"""`--remote`: status, sync and why through a running agent."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

from replicator.cli.options import Invocation
from replicator.cli.output import print_json
from replicator.config.load import load
from replicator.config.secrets import TOKEN_VARIABLE
from replicator.engine.result import RuleResult
from replicator.errors import ConfigError, NotFound, Rejected
from replicator.report import RunCounts, combine, failed, format_seconds, render_run, table

if TYPE_CHECKING:
    from replicator.cli.client import RemoteAgent
    from replicator.daemon.http.api.shapes import RuleDestination, RuleInfo, RunDetail
    from replicator.runs.why import Answer

remote_option = click.option(
    "--remote",
    metavar="URL",
    help=f"Use the running agent at this URL, with the token in ${TOKEN_VARIABLE} or in [http] of the config.",
)


async def remote_status(invocation: Invocation, url: str) -> int:
    """Shows the status of an agent's rules."""
    async with _agent(invocation, url) as agent:
        rules = await agent.rules()
    if invocation.json:
        print_json({"version": 1, "rules": rules})
    else:
        click.echo("\n".join(_lines(rules, time.time())))
    return 0


async def remote_sync(
    invocation: Invocation, url: str, rules: Sequence[str], destinations: Sequence[str], *, recheck: bool
) -> int:
    """Runs rules through an agent and prints the report."""
    from replicator.daemon.http.api.shapes import SyncOrder  # noqa: PLC0415 - only here, and never for --version

    order = SyncOrder(rules=list(rules) or None, destinations=list(destinations) or None, recheck=recheck)
    started_at, started = time.time(), time.monotonic()
    async with _agent(invocation, url) as agent:
        try:
            accepted = await agent.sync(order)
        except NotFound as error:  # an unknown rule or site: as without --remote
            raise ConfigError([str(error)]) from error
        for name in accepted.skipped:
            click.echo(
                f"warning: {name}: skipped by the agent: paused, or it does not serve these destinations",
                err=True,
            )
        runs = await agent.finished(accepted)
    counts = RunCounts(
        requests=sum(run.report.totals.requests for run in runs if run.report),
        retries=sum(run.report.totals.retries for run in runs if run.report),
        bytes_read=sum(run.report.totals.bytes.read for run in runs if run.report),
    )
    result = combine(_by_rule(runs), counts, started_at=started_at, seconds=time.monotonic() - started)
    broken = [run.run for run in runs if run.run.error is not None]
    if broken:
        result.outcome = "failed" if len(broken) == len(runs) else "partial"
    if invocation.json:
        print_json(result)
    else:
        click.echo(render_run(result))
    for run in broken:
        click.echo(f"error: {run.rule}: {run.error}", err=True)
    return 1 if broken or failed(result) else 0


async def remote_why(
    invocation: Invocation, url: str, reference: str, at: str | None, *, fresh: bool
) -> Answer:
    """Has an agent explain why an image is, or is not, at its destinations.

    Raises:
        ConfigError: the agent does not understand the reference, or does not know the site.
    """
    async with _agent(invocation, url) as agent:
        try:
            return await agent.why(reference, at, fresh=fresh)
        except Rejected as error:
            if error.status == 400:  # the reference is malformed, or the site is unknown: as without --remote
                raise ConfigError([error.cause]) from error
            raise


@asynccontextmanager
async def _agent(invocation: Invocation, url: str) -> AsyncIterator[RemoteAgent]:
    from replicator.cli.client import remote_agent, sends_in_the_clear  # noqa: PLC0415 - aiohttp takes its time

    token = _token(invocation)
    async with remote_agent(url, token) as agent:
        if token is not None and sends_in_the_clear(url):
            click.echo("warning: --remote: sends the token unencrypted; use https://", err=True)
        yield agent


def _by_rule(runs: Sequence[RunDetail]) -> list[RuleResult]:
    """One result per rule. Its destinations may come from several runs."""
    rules: dict[str, RuleResult] = {}
    for run in runs:
        for each in run.report.rules if run.report else ():
            known = rules.setdefault(each.rule, RuleResult(each.rule, each.source, []))
            known.destinations += each.destinations
    return list(rules.values())


def _token(invocation: Invocation) -> str | None:
    """The token from the environment, else from the config; None if neither has one.

    Raises:
        ConfigError: the config given with --config is invalid. A config in the default place is only tried: the
            user may not be allowed to read the agent's secrets.
    """
    if token := os.environ.get(TOKEN_VARIABLE):
        return token
    try:
        loaded = load(invocation.config, os.environ)
    except ConfigError:
        if invocation.config is not None:
            raise
        return None
    return None if loaded.http.token is None else loaded.http.token()


def _lines(rules: Sequence[RuleInfo], now: float) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [
        (
            "RULE",
            "DESTINATION",
            "STATE",
            "LAST SUCCESS",
            "NEXT RUN",
            "LAG",
            "IN STEP",
            "HELD",
            "PENDING",
            "FAILED",
            "UNKNOWN",
        )
    ]
    errors: list[str] = []
    for rule in rules:
        for each in rule.destinations:
            rows.append(
                (rule.rule, each.destination, _state(rule, each), *_times(rule, each, now), *_numbers(each))
            )
            if each.oldest_pending:
                errors.append(f"oldest pending tag: {rule.rule} -> {each.destination}: {each.oldest_pending}")
            if each.last_error:
                errors.append(f"last error: {rule.rule} -> {each.destination}: {each.last_error}")
    yield from table(rows, right=frozenset(range(5, 11)))
    yield from errors


def _state(rule: RuleInfo, at: RuleDestination) -> str:
    if rule.paused:
        return "paused"
    if at.running:
        return "running"
    return "backing off" if at.backing_off_until else "waiting"


def _times(rule: RuleInfo, at: RuleDestination, now: float) -> tuple[str, str]:
    success = (
        "never"
        if at.last_success is None
        else f"{format_seconds(max(0.0, now - at.last_success.timestamp()))} ago"
    )
    following = (
        "-" if rule.next_run is None else f"in {format_seconds(max(0.0, rule.next_run.timestamp() - now))}"
    )
    return success, following


def _numbers(at: RuleDestination) -> tuple[str, ...]:
    lag = "-" if at.lag_seconds is None else format_seconds(at.lag_seconds)
    if at.tags is None:
        return (lag, *("-",) * 5)
    tags = at.tags
    return (lag, *(str(n) for n in (tags.in_step, tags.held, tags.pending, tags.failed, tags.unknown)))
