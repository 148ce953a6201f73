"""`replicator list`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

import click

from replicator.cli.names import complete_repository, complete_site
from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.cli.places import open_sites, site_settings
from replicator.cli.runner import run_async
from replicator.cli.watch import Watch
from replicator.errors import SiteError
from replicator.model.descriptor import Descriptor
from replicator.model.names import parse_repository
from replicator.ports import Repository, Site
from replicator.report import natural, table

_AT_ONCE: Final = 64
"""Maximum number of tags being resolved; the limits of the site are usually lower."""


@click.command("list")
@click.argument("site", shell_complete=complete_site)
@click.argument("repository", required=False, shell_complete=complete_repository)
@click.option("--digests", is_flag=True, help="Show the digest of each tag.")
@click.option("--insecure", is_flag=True, help="If SITE is a host: allow plain HTTP and unverified TLS.")
@everywhere
@click.pass_obj
def command(
    invocation: Invocation, site: str, repository: str | None, *, digests: bool, insecure: bool
) -> int:
    """Show the repositories of a site, or the tags of one repository.

    SITE is the name of a site in the config, the host of a registry (HOST[:PORT]), s3://BUCKET[/PREFIX], file:///PATH
    or oci:DIR.
    """
    if repository is not None:
        try:
            parse_repository(repository)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="REPOSITORY") from None
    return run_async(_list(invocation, site, repository, digests=digests, insecure=insecure))


async def _list(
    invocation: Invocation, name: str, repository: str | None, *, digests: bool, insecure: bool
) -> int:
    watch = Watch.start(invocation)
    settings = await site_settings(invocation, name, watch, insecure=insecure)
    async with open_sites([settings], watch) as sites:
        site = sites[settings.name]
        if repository is None:
            return await _show_repositories(site, as_json=invocation.json)
        if digests:
            return await _show_digests(site.repository(repository), as_json=invocation.json)
        return await _show_tags(site.repository(repository), as_json=invocation.json)


async def _show_repositories(site: Site, *, as_json: bool) -> int:
    names = await _collect(site.repositories())
    if as_json:
        print_json({"version": 1, "site": site.name, "repositories": names})
    else:
        _print(names)
    return 0


async def _show_tags(repository: Repository, *, as_json: bool) -> int:
    tags = await _collect(repository.tags())
    if as_json:
        print_json(
            {
                "version": 1,
                "site": repository.site,
                "repository": repository.name,
                "tags": [{"tag": tag} for tag in tags],
            }
        )
    else:
        _print(tags)
    return 0


async def _collect(pages: AsyncIterator[Sequence[str]]) -> list[str]:
    """All names, in order; raises if the listing is incomplete."""
    return sorted([name async for page in pages for name in page], key=natural)


def _print(names: Sequence[str]) -> None:
    if names:
        click.echo("\n".join(names))


async def _show_digests(repository: Repository, *, as_json: bool) -> int:
    """Tags with their digests. A tag that cannot be resolved is reported on stderr, and the exit code is 1."""
    tags = [tag async for page in repository.tags() for tag in page]
    slots = asyncio.Semaphore(_AT_ONCE)
    found: dict[str, Descriptor] = {}
    failures: dict[str, str] = {}

    async def resolve(tag: str) -> None:
        async with slots:
            try:
                found[tag] = await repository.resolve(tag)
            except SiteError as error:
                failures[tag] = str(error)

    async with asyncio.TaskGroup() as group:
        for tag in tags:
            group.create_task(resolve(tag))
    if as_json:
        print_json(_digests_json(repository, found, failures))
    else:
        rows = [(tag, found[tag].digest, found[tag].media_type) for tag in sorted(found, key=natural)]
        for line in table(rows):
            click.echo(line)
    for tag in sorted(failures, key=natural):
        click.echo(f"error: {tag}: {failures[tag]}", err=True)
    return 1 if failures else 0


def _digests_json(
    repository: Repository, found: dict[str, Descriptor], failures: dict[str, str]
) -> dict[str, object]:
    return {
        "version": 1,
        "site": repository.site,
        "repository": repository.name,
        "tags": [
            {
                "tag": tag,
                "digest": found[tag].digest,
                "size": found[tag].size,
                "mediaType": found[tag].media_type,
            }
            for tag in sorted(found, key=natural)
        ],
        "failures": [{"tag": tag, "cause": failures[tag]} for tag in sorted(failures, key=natural)],
    }
