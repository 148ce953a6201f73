"""`replicator check`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import click
from msgspec.structs import replace

from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.cli.places import open_sites
from replicator.cli.rules import read_config
from replicator.cli.runner import run_async
from replicator.cli.watch import Watch
from replicator.config.starter import credentials_hint
from replicator.errors import ReplicatorError
from replicator.flow.thread import run_in_thread
from replicator.policy.rule import Rule
from replicator.ports import Site, SiteCheck
from replicator.report import table
from replicator.sites.layouts.settings import LayoutSettings
from replicator.sites.objects.settings import LocalSettings
from replicator.sites.open import SiteSettings
from replicator.sites.registry.settings import RegistrySettings
from replicator.state.place import EXTRA, PostgresPlace


@click.command("check")
@click.option(
    "--push",
    metavar="REPOSITORY",
    help="Also start and cancel an upload to this repository of each destination. Quay creates missing repositories.",
)
@everywhere
@click.pass_obj
def command(invocation: Invocation, push: str | None) -> int:
    """Validate the config, then check every site: credentials, permissions, capabilities, clock; and a state on PostgreSQL."""
    return run_async(run_check(invocation, push))


async def run_check(invocation: Invocation, push: str | None) -> int:
    """Checks the config and all sites, prints what was found, and returns the exit code. Raises ConfigError."""
    watch = Watch.start(invocation)
    loaded = read_config(invocation, watch)
    destinations = {name for rule in loaded.rules for name in rule.destinations}
    read_from = {name for rule in loaded.rules for name in (rule.source, *rule.mirrors)}
    unmade = {
        name: made
        for name, settings in loaded.sites.items()
        if name not in read_from and (made := _unmade(settings)) is not None
    }
    there = [settings for name, settings in loaded.sites.items() if name not in unmade]
    async with open_sites(there, watch) as sites, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_reach(site, loaded.rules, push if name in destinations else None))
            for name, site in sites.items()
        ]
    found = unmade | {task.result().site: task.result() for task in tasks}
    checks = [found[name] for name in loaded.sites]
    # A file is found in order, or replaced, by whoever opens it.
    place = loaded.agent.state
    database = [await _state(place)] if isinstance(place, PostgresPlace) else []
    shown = [*checks, *database]
    bad = sum(bool(check.problems) for check in shown)
    if invocation.json:
        print_json(
            {
                "version": 1,
                "outcome": "ok" if not bad else "failed" if bad == len(shown) else "partial",
                "sites": [{"site": check.site, **_answer(check)} for check in checks],
                **{check.site: _answer(check) for check in database},
            }
        )
    else:
        click.echo("\n".join(line for check in shown for line in _lines(check)))
        for line in _next(bad=bad, has_rules=bool(loaded.rules), urls=_registries(checks, loaded.sites)):
            click.echo(line, err=True)
    return 1 if bad else 0


def _answer(check: SiteCheck) -> dict[str, object]:
    return {"ok": not check.problems, "findings": dict(check.findings), "problems": check.problems}


async def _state(place: PostgresPlace) -> SiteCheck:
    """The findings of the state's database."""
    try:
        from replicator.state.postgres.checking import check_database  # noqa: PLC0415 - an extra
    except ImportError:
        return SiteCheck("state", (), (f"{place}: {EXTRA}",))
    findings, problems = await run_in_thread(lambda: check_database(place))
    return SiteCheck("state", findings, tuple(f"{place}: {problem}" for problem in problems))


def _unmade(settings: SiteSettings) -> SiteCheck | None:
    """The result for a directory that does not exist yet and is only written to; None for any other site."""
    if not isinstance(settings, LayoutSettings) or not isinstance(settings.store, LocalSettings):
        return None
    path = settings.store.path
    if os.path.lexists(path):
        return None
    if settings.store.must_exist:
        problem = f"{path} does not exist, though must_exist = true: is its file system mounted?"
        return SiteCheck(settings.name, (), (f"{settings.name}: check directory: {problem}",))
    above = next(folder for folder in path.parents if folder.exists())
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return SiteCheck(settings.name, (("directory", "does not exist yet, will be created"),), ())
    problem = f"{settings.name}: check directory: {path} does not exist and {above} is not writable"
    return SiteCheck(settings.name, (), (problem,))


async def _reach(site: Site, rules: Iterable[Rule], push: str | None) -> SiteCheck:
    """The site's findings. A site that cannot be reached has failed."""
    try:
        found = await site.check(repositories=_sources(rules, site.name), push=push)
    except ReplicatorError as error:
        return SiteCheck(site.name, (), (str(error),))
    sparse = [rule.name for rule in rules if site.name in rule.destinations and _is_sparse(rule)]
    if not sparse:
        return found
    # Asked for last: the checks have told which registry it is.
    answer = _sparse_answer(sparse, is_accepted=site.capabilities.sparse)
    return replace(found, findings=(*found.findings, ("sparse indexes", answer)))


def _is_sparse(rule: Rule) -> bool:
    return rule.platforms is not None and not rule.platforms.rewrites


def _sparse_answer(rules: Sequence[str], *, is_accepted: bool | None) -> str:
    """Whether indexes without some of their platforms are accepted, as these rules write them."""
    if is_accepted:
        return "accepted"
    remedy = f'set platform_mode = "rewrite" in rule {", ".join(rules)}'
    if is_accepted is None:
        return f"not known until the first push; if they are refused, {remedy}"
    return f"refused, such images are held; {remedy}"


def _sources(rules: Iterable[Rule], site: str) -> list[str]:
    """Repositories that rules read here by exact name. Patterns are not checked."""
    return list(
        dict.fromkeys(
            glob.exact
            for rule in rules
            if site == rule.source
            for glob in rule.repositories.include
            if glob.exact is not None
        )
    )


def _registries(checks: Iterable[SiteCheck], sites: Mapping[str, SiteSettings]) -> list[str]:
    """The URLs of registries with problems that use docker's logins."""
    found = [sites[check.site] for check in checks if check.problems]
    return [
        each.url
        for each in found
        if isinstance(each, RegistrySettings)
        and each.login is None
        and each.identity is None
        and each.docker_config
    ]


def _next(*, bad: int, has_rules: bool, urls: Iterable[str]) -> Iterator[str]:
    """What to do next."""
    if not bad:
        yield "next: replicator plan" if has_rules else "next: add a [[rule]] to the config"
        return
    for url in urls:
        yield f"if credentials are missing: {credentials_hint(url)}"
    yield "next: solve the problems above, then run replicator check again"


def _lines(check: SiteCheck) -> list[str]:
    rows = [(f"  {what}", answer) for what, answer in check.findings]
    return [
        f"{check.site}: {'failed' if check.problems else 'ok'}",
        *table(rows),
        *(f"  problem: {problem}" for problem in check.problems),
    ]
