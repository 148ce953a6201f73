"""`replicator plan`."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from replicator.cli.console import shown
from replicator.cli.imageoption import images_option, take_images
from replicator.cli.names import complete_rule
from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.cli.rules import read_config, select_rules
from replicator.cli.runner import run_async
from replicator.cli.watch import Watch
from replicator.cli.wiring import wire
from replicator.config.settings import Loaded
from replicator.engine.result import RunResult
from replicator.policy.rule import Rule
from replicator.report import combine, drift, failed, render_plan


@click.command("plan")
@click.option(
    "--rule",
    "rules",
    metavar="NAME",
    multiple=True,
    help="Only this rule; repeatable.",
    shell_complete=complete_rule,
)
@images_option
@click.option("--exit-code", is_flag=True, help="Exit 3 if sync would change anything.")
@everywhere
@click.pass_obj
def command(
    invocation: Invocation, rules: tuple[str, ...], images: tuple[str, ...], *, exit_code: bool
) -> int:
    """Show what sync would do, without changing anything: neither sites nor state are written."""
    return run_async(_plan(invocation, rules, images, exit_code=exit_code))


async def _plan(
    invocation: Invocation, names: Sequence[str], images: Sequence[str], *, exit_code: bool
) -> int:
    watch = Watch.start(invocation)
    loaded = read_config(invocation, watch)
    listed = take_images(loaded, select_rules(loaded, names, ()), images)
    result = await look(loaded, listed.rules, watch)
    if invocation.json:
        print_json(result)
    else:
        click.echo(render_plan(result))
    if failed(result) or listed.has_problems:
        return 1
    return 3 if exit_code and drift(result) else 0


async def look(loaded: Loaded, rules: Sequence[Rule], watch: Watch) -> RunResult:
    """Plans the rules. Raises StateError."""
    started_at, started = watch.clock.now(), time.monotonic()
    async with (
        wire(loaded, rules, watch, claim=None) as wired,
        shown(watch.progress, display=watch.display),
    ):
        results = await wired.engine.plan(rules)
    return combine(results, watch.counts, started_at=started_at, seconds=time.monotonic() - started)
