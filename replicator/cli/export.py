"""`replicator export`."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click
from msgspec.structs import replace

from replicator.cli.archives import write_archive
from replicator.cli.console import shown
from replicator.cli.imageoption import images_option, take_images
from replicator.cli.logs import log
from replicator.cli.names import complete_file, complete_rule
from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.cli.places import open_sites
from replicator.cli.rules import named_rules, read_config
from replicator.cli.runner import draining, exit_code, run_async
from replicator.cli.watch import Watch
from replicator.config.settings import Loaded
from replicator.engine.engine import Engine
from replicator.engine.result import RunResult
from replicator.errors import ConfigError
from replicator.model.digest import Digest
from replicator.policy.mapping import static_collisions
from replicator.policy.rule import Rule
from replicator.report import combine, render_run
from replicator.sites.archive.inventory import read_inventory
from replicator.state.memory import MemoryState

_STDOUT = "-"


@click.command("export")
@click.option(
    "--rule",
    "rules",
    metavar="NAME",
    multiple=True,
    required=True,
    help="Rule to export; repeatable.",
    shell_complete=complete_rule,
)
@click.option(
    "--have",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="INVENTORY",
    help="Leave out the blobs in this inventory, which the other site already has.",
)
@images_option
@click.argument("out", metavar="OUT.tar|-", shell_complete=complete_file)
@everywhere
@click.pass_obj
def command(
    invocation: Invocation, rules: tuple[str, ...], images: tuple[str, ...], have: Path | None, out: str
) -> int:
    """Export the images selected by rules to an archive, for air-gapped sites.

    The archive is an OCI image layout in a tar. It contains each blob once, and uses the names that the rules give
    repositories and tags at their destinations. It is written completely or not at all. Tags that fail are left out and
    reported, and the exit code is 1. With -, the archive goes to stdout and the report to stderr.
    """
    if out == _STDOUT and sys.stdout.isatty():
        raise click.UsageError("- writes the archive to stdout: redirect it to a pipe or a file")
    path = None if out == _STDOUT else Path(out).absolute()
    return run_async(_export(invocation, rules, images, have, path))


async def _export(
    invocation: Invocation, names: Sequence[str], images: Sequence[str], have: Path | None, out: Path | None
) -> int:
    watch = Watch.start(invocation)
    loaded = read_config(invocation, watch)
    place = f"oci-archive:{out or _STDOUT}"
    listed = take_images(loaded, _rules(loaded, names, place), images)
    rules = listed.rules
    started_at, started = watch.clock.now(), time.monotonic()
    async with write_archive(out, place, watch, have=_inventory(have)) as (writer, archive):
        wanted = sorted({name for rule in rules for name in (rule.source, *rule.mirrors)})
        async with open_sites([loaded.sites[name] for name in wanted], watch) as sites:
            engine = Engine(
                sites={**sites, place: archive},
                state=MemoryState(watch.clock),
                events=watch.events,
                clock=watch.clock,
                spool=None,
            )
            with draining(engine.drain) as drain:
                async with shown(watch.progress, display=watch.display):
                    results = await engine.sync(rules)
        result = combine(results, watch.counts, started_at=started_at, seconds=time.monotonic() - started)
        if result.outcome in {"ok", "partial"}:
            await writer.finish()
        else:
            log(logging.ERROR, f"{out or 'stdout'}: the archive is incomplete and was discarded")
    _tell(invocation, result, to_stderr=out is None)
    return exit_code(result, drain) or (1 if listed.has_problems else 0)


def _rules(loaded: Loaded, names: Sequence[str], place: str) -> list[Rule]:
    """The rules with the archive as their only destination. Raises ConfigError."""
    rules = [replace(rule, destinations=(place,)) for rule in named_rules(loaded.rules, names)]
    problems = [*_sparse(rules), *static_collisions(rules)]
    if problems:
        raise ConfigError(problems)
    return rules


def _sparse(rules: Sequence[Rule]) -> Iterator[str]:
    """The rules whose archive `import` would refuse: there an image without one of its children is a damaged one."""
    for rule in rules:
        if rule.platforms is not None and rule.platforms.mode == "sparse":
            yield (
                f'--rule {rule.name}: its platform_mode "sparse" leaves indexes incomplete, which import refuses; export a'
                ' rule with platform_mode = "rewrite"'
            )


def _inventory(path: Path | None) -> Mapping[Digest, int]:
    if path is None:
        return {}
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return read_inventory(file, str(path))
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None


def _tell(invocation: Invocation, result: RunResult, *, to_stderr: bool) -> None:
    if to_stderr:
        click.echo(render_run(result), err=True)
    elif invocation.json:
        print_json(result)
    else:
        click.echo(render_run(result))
