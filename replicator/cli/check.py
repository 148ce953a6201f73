"""`replicator check`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import click

from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.cli.places import open_sites
from replicator.cli.rules import read_config
from replicator.cli.runner import run_async
from replicator.cli.watch import Watch
from replicator.errors import ReplicatorError
from replicator.policy.rule import Rule
from replicator.ports import Site, SiteCheck
from replicator.report import table


@click.command("check")
@click.option(
    "--push",
    metavar="REPOSITORY",
    help="Also start and cancel an upload in this existing repository of each destination.",
)
@everywhere
@click.pass_obj
def command(invocation: Invocation, push: str | None) -> int:
    """Reads the config, then reaches every site at once: credentials, rights, what it can do, its clock."""
    return run_async(_check(invocation, push))


async def _check(invocation: Invocation, push: str | None) -> int:
    watch = Watch.start(invocation)
    loaded = read_config(invocation, watch)
    destinations = {name for rule in loaded.rules for name in rule.destinations}
    async with open_sites(loaded.sites.values(), watch) as sites, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                _reach(site, _sources(loaded.rules, name), push if name in destinations else None)
            )
            for name, site in sites.items()
        ]
    checks = [task.result() for task in tasks]
    bad = sum(bool(check.problems) for check in checks)
    if invocation.json:
        print_json(
            {
                "version": 1,
                "outcome": "ok" if not bad else "failed" if bad == len(checks) else "partial",
                "sites": [
                    {
                        "site": check.site,
                        "ok": not check.problems,
                        "findings": dict(check.findings),
                        "problems": check.problems,
                    }
                    for check in checks
                ],
            }
        )
    else:
        click.echo("\n".join(line for check in checks for line in _lines(check)))
    return 1 if bad else 0


async def _reach(site: Site, repositories: list[str], push: str | None) -> SiteCheck:
    """The site's own findings; a site that cannot even be asked has failed, too."""
    try:
        return await site.check(repositories=repositories, push=push)
    except ReplicatorError as error:
        return SiteCheck(site.name, (), (str(error),))


def _sources(rules: Iterable[Rule], site: str) -> list[str]:
    """Repositories that rules name as they are and want to read here; patterns are not looked up."""
    return list(
        dict.fromkeys(
            glob.exact
            for rule in rules
            if site == rule.source
            for glob in rule.repositories.include
            if glob.exact is not None
        )
    )


def _lines(check: SiteCheck) -> list[str]:
    rows = [(f"  {what}", answer) for what, answer in check.findings]
    return [
        f"{check.site}: {'failed' if check.problems else 'ok'}",
        *table(rows),
        *(f"  problem: {problem}" for problem in check.problems),
    ]
