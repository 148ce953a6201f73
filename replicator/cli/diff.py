"""`replicator diff`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from replicator.cli.names import complete_repository, complete_site
from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.cli.places import open_sites, site_settings
from replicator.cli.runner import run_async
from replicator.cli.watch import Watch
from replicator.discovery.compare import Compared, Difference, compare_sites, repositories_of
from replicator.errors import ConfigError
from replicator.model.names import parse_repository
from replicator.report import format_count, table


@click.command("diff")
@click.argument("here", metavar="SITE", shell_complete=complete_site)
@click.argument("there", metavar="SITE", shell_complete=complete_site)
@click.argument("repositories", nargs=-1, metavar="[REPOSITORY]...", shell_complete=complete_repository)
@click.option("--insecure", is_flag=True, help="If SITE is a host: allow plain HTTP and unverified TLS.")
@everywhere
@click.pass_obj
def command(
    invocation: Invocation, here: str, there: str, repositories: tuple[str, ...], *, insecure: bool
) -> int:
    """Compare two sites tag by tag, without any rule.

    SITE is written as for `list`. Names are compared as they are; renames of rules do not count. Exit code 0 if both sites
    hold the same, 3 if they differ, 1 if something could not be compared.
    """
    try:
        names = [parse_repository(name) for name in repositories]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="REPOSITORY") from None
    return run_async(_diff(invocation, here, there, names, insecure=insecure))


async def _diff(
    invocation: Invocation, here: str, there: str, names: Sequence[str], *, insecure: bool
) -> int:
    watch = Watch.start(invocation)
    settings = [await site_settings(invocation, name, watch, insecure=insecure) for name in (here, there)]
    if settings[0].name == settings[1].name:
        raise ConfigError([f"{here} and {there} are the same site"])
    compared: list[Compared] = []
    async with open_sites(settings, watch) as sites:
        ours, theirs = (sites[each.name] for each in settings)
        async for each in compare_sites(ours, theirs, names or await repositories_of([ours, theirs])):
            compared.append(each)
            if not invocation.json:
                _print(each, ours.name, theirs.name)
    failures = [error for each in compared for error in each.failures]
    if invocation.json:
        print_json(_as_json(compared, settings[0].name, settings[1].name))
    else:
        _summarize(compared)
    for error in failures:
        click.echo(f"error: {error}", err=True)
    if failures:
        return 1
    return 3 if any(each.differences for each in compared) else 0


def _print(compared: Compared, here: str, there: str) -> None:
    rows = [(f"{each.repository}:{each.tag}", *_said(each, here, there)) for each in compared.differences]
    for line in table(rows):
        click.echo(line)


def _said(difference: Difference, here: str, there: str) -> tuple[str, ...]:
    match difference.kind:
        case "only_here":
            return (f"only at {here}",)
        case "only_there":
            return (f"only at {there}",)
        case "different":
            return (f"{here} {difference.here}", f"{there} {difference.there}")


def _summarize(compared: Sequence[Compared]) -> None:
    same = sum(each.same for each in compared)
    different = sum(len(each.differences) for each in compared)
    click.echo(
        f"{format_count(len(compared), 'repository', 'repositories')}: {format_count(same, 'tag')} the same, "
        f"{different} different",
        err=True,
    )


def _as_json(compared: Sequence[Compared], here: str, there: str) -> dict[str, object]:
    return {
        "version": 1,
        "sites": [here, there],
        "same": sum(each.same for each in compared),
        "differences": [
            {
                "repository": each.repository,
                "tag": each.tag,
                "difference": each.kind,
                "digests": {here: each.here, there: each.there},
            }
            for repository in compared
            for each in repository.differences
        ],
        "failures": [
            {
                "site": error.site,
                "repository": error.repository,
                "operation": error.operation,
                "cause": error.cause,
            }
            for repository in compared
            for error in repository.failures
        ],
    }
