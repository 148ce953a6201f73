"""`replicator sync`."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from replicator.cli.console import shown
from replicator.cli.imageoption import images_option, take_images
from replicator.cli.logs import log
from replicator.cli.names import complete_destination, complete_rule
from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.cli.remote import remote_option, remote_sync
from replicator.cli.rules import read_config, select_rules
from replicator.cli.runner import Drain, draining, exit_code, run_async
from replicator.cli.watch import Watch
from replicator.cli.wiring import wire
from replicator.config.settings import Loaded
from replicator.policy.rule import Rule
from replicator.report import combine, render_run
from replicator.runs.hooks import RunHooks
from replicator.runs.once import CommandedRuns
from replicator.state.locks import hold
from replicator.state.place import Claim

if TYPE_CHECKING:
    from replicator.cli.metricsfile import MetricsFile
    from replicator.engine.context import RunScope
    from replicator.engine.result import RunResult


@click.command("sync")
@click.option(
    "--rule",
    "rules",
    metavar="NAME",
    multiple=True,
    help="Only this rule; repeatable.",
    shell_complete=complete_rule,
)
@click.option(
    "--destination",
    "destinations",
    metavar="SITE",
    multiple=True,
    help="Only to this site; repeatable.",
    shell_complete=complete_destination,
)
@images_option
@click.option(
    "--recheck",
    is_flag=True,
    help="Check every tag at the destinations, and all that it refers to, regardless of the state.",
)
@click.option(
    "--metrics-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write Prometheus metrics here at the end, for node_exporter's textfile collector.",
)
@remote_option
@everywhere
@click.pass_obj
def command(
    invocation: Invocation,
    rules: tuple[str, ...],
    destinations: tuple[str, ...],
    *,
    images: tuple[str, ...],
    recheck: bool,
    metrics_file: Path | None,
    remote: str | None,
) -> int:
    """Bring the destinations of all rules up to date with their sources, then exit.

    A failure does not stop the rest: it is in the report, and the exit code is 1. The next run continues where this one
    stopped. SIGINT and SIGTERM stop gracefully: transfers in progress have 25 s to finish; a second signal stops
    immediately.
    """
    if remote is not None:
        if images:
            raise click.UsageError(
                "--images cannot be combined with --remote; the agent cannot read files from here"
            )
        if metrics_file is not None:
            raise click.UsageError(
                "--metrics-file cannot be combined with --remote; the agent serves its metrics at /metrics"
            )
        return run_async(remote_sync(invocation, remote, rules, destinations, recheck=recheck))
    if metrics_file is not None and not metrics_file.absolute().parent.is_dir():
        raise click.BadParameter(
            f"{metrics_file.absolute().parent} is not a directory", param_hint="--metrics-file"
        )
    return run_async(
        _sync(invocation, rules, destinations, images=images, recheck=recheck, metrics_file=metrics_file)
    )


async def _sync(
    invocation: Invocation,
    names: Sequence[str],
    destinations: Sequence[str],
    *,
    images: Sequence[str],
    recheck: bool,
    metrics_file: Path | None,
) -> int:
    watch = Watch.start(invocation)
    loaded = read_config(invocation, watch)
    listed = take_images(loaded, select_rules(loaded, names, destinations), images)
    rules = listed.rules
    metrics = None if metrics_file is None else _metrics(metrics_file, rules, watch)
    result, drain = await replicate(
        loaded, rules, watch, recheck=recheck, metrics=metrics, scope=listed.scope
    )
    if invocation.json:
        print_json(result)
    else:
        click.echo(render_run(result))
    code = exit_code(result, drain) or (1 if listed.has_problems else 0)
    if metrics is not None:
        try:
            metrics.write()
        except OSError as error:  # the run is complete; the file is unchanged
            log(logging.ERROR, f"metrics file {metrics_file}: {error.strerror}")
            code = code or 1
    return code


def _metrics(path: Path, rules: Sequence[Rule], watch: Watch) -> MetricsFile:
    from replicator.cli.metricsfile import MetricsFile  # noqa: PLC0415 - prometheus_client takes its time

    return MetricsFile(path, rules, watch)


async def replicate(
    loaded: Loaded,
    rules: Sequence[Rule],
    watch: Watch,
    *,
    recheck: bool = False,
    metrics: MetricsFile | None = None,
    scope: RunScope | None = None,
) -> tuple[RunResult, Drain]:
    """Runs the rules once, showing progress and handling signals. `metrics` reads the state but is not written.

    Raises:
        StateError: the state is in use or cannot be used.
    """
    started_at, started = watch.clock.now(), time.monotonic()
    claim = Claim("sync", tuple(rule.name for rule in rules))
    with hold(loaded.agent.state, claim):
        async with wire(loaded, rules, watch, claim=claim) as wired:
            hooks = RunHooks(loaded.commands, state=wired.state, events=watch.events, clock=watch.clock)
            runs = CommandedRuns(
                wired.engine, hooks, watch.events, loaded.commands.keys(), recheck=recheck, scope=scope
            )
            with draining(runs.drain) as drain:
                async with shown(watch.progress, display=watch.display):
                    results = await runs.run(rules)
            if metrics is not None:
                await metrics.look(wired.state)
    result = combine(results, watch.counts, started_at=started_at, seconds=time.monotonic() - started)
    return result, drain
