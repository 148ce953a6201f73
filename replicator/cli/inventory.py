"""`replicator inventory`."""

from __future__ import annotations

import click

from replicator.cli.names import complete_site
from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.cli.places import open_sites, site_settings
from replicator.cli.runner import run_async
from replicator.cli.watch import Watch
from replicator.errors import SiteError
from replicator.model.digest import Digest
from replicator.sites.archive.inventory import HEADER, held


@click.command("inventory")
@click.argument("site", shell_complete=complete_site)
@click.option("--insecure", is_flag=True, help="If SITE is a host: allow plain HTTP and unverified TLS.")
@everywhere
@click.pass_obj
def command(invocation: Invocation, site: str, *, insecure: bool) -> int:
    """List all blobs of a site with their sizes, for export --have on the other side.

    Buckets and directories are listed; in a registry, the manifests of all tags are read. What cannot be read is left
    out and reported, and the exit code is 1; an export then only contains more than necessary. SITE is as for list.
    """
    return run_async(_inventory(invocation, site, insecure=insecure))


async def _inventory(invocation: Invocation, name: str, *, insecure: bool) -> int:
    watch = Watch.start(invocation)
    settings = await site_settings(invocation, name, watch, insecure=insecure)
    blobs: dict[Digest, int] = {}
    failures: list[SiteError] = []
    async with open_sites([settings], watch) as sites:
        async for _, page in held(sites[settings.name], failures.append):
            blobs.update(page)
    if invocation.json:
        print_json(
            {
                "version": 1,
                "site": settings.name,
                "blobs": [{"digest": digest, "size": blobs[digest]} for digest in sorted(blobs)],
                "failures": [str(failure) for failure in failures],
            }
        )
    else:
        click.echo(HEADER)
        for digest in sorted(blobs):
            click.echo(f"{digest} {blobs[digest]}")
    for failure in failures:
        click.echo(f"error: {failure}", err=True)
    return 1 if failures else 0
