"""`replicator import`."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import click

from replicator.cli.archives import open_archive
from replicator.cli.console import shown
from replicator.cli.names import complete_file, complete_site
from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.cli.places import open_sites, site_settings
from replicator.cli.runner import draining, exit_code, run_async
from replicator.cli.watch import Watch
from replicator.engine.engine import Engine
from replicator.errors import NotFound, SiteError
from replicator.events import Warned
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.policy.pattern import Glob
from replicator.policy.rule import Pin, RepositorySelection, Rule, TagSelection
from replicator.ports import Repository, Site
from replicator.report import combine, format_count, render_run
from replicator.sites.archive.inventory import held
from replicator.sites.archive.verify import Contents, verify
from replicator.state.memory import Hint, MemoryState

_RULE: Final = "import"
_TOLD: Final = 3

_Absent = dict[Digest, tuple[Descriptor, tuple[str, ...]]]
"""Blobs that the archive leaves out, with the repositories that need them."""


@click.command("import")
@click.argument("file", metavar="IN.tar|-", shell_complete=complete_file)
@click.argument("site", shell_complete=complete_site)
@click.option("--insecure", is_flag=True, help="If SITE is a host: allow plain HTTP and unverified TLS.")
@everywhere
@click.pass_obj
def command(invocation: Invocation, file: str, site: str, *, insecure: bool) -> int:
    """Import all images of an archive into a site, under the names that they have in the archive.

    The whole archive is read and verified before anything is written; a truncated or modified archive is refused.
    Content that already exists is not written again, so the command can be repeated after a failure. SITE is as for
    list. With -, the archive is read from stdin and stored in $TMPDIR first.
    """
    path = None if file == "-" else Path(file).absolute()
    return run_async(_import(invocation, path, site, insecure=insecure))


async def _import(invocation: Invocation, path: Path | None, name: str, *, insecure: bool) -> int:
    watch = Watch.start(invocation)
    started_at, started = watch.clock.now(), time.monotonic()
    place = f"oci-archive:{path or '-'}"
    settings = await site_settings(invocation, name, watch, insecure=insecure)
    async with (
        open_archive(path, place, watch) as (reader, archive),
        open_sites([settings], watch) as sites,
    ):
        contents = await verify(reader, archive)
        target = sites[settings.name]
        elsewhere = await _found(contents, target, place, watch)
        for digest, repository in elsewhere.items():
            reader.supplement(repository.blob(contents.absent[digest][0]))
        engine = Engine(
            sites={**sites, place: archive},
            state=MemoryState(watch.clock, hint=_in(elsewhere)),
            events=watch.events,
            clock=watch.clock,
            spool=None,
        )
        with draining(engine.drain) as drain:
            async with shown(watch.progress, display=watch.display):
                results = await engine.sync(_rules(reader.repositories, contents, place, settings.name))
    result = combine(results, watch.counts, started_at=started_at, seconds=time.monotonic() - started)
    if invocation.json:
        print_json(result)
    else:
        click.echo(render_run(result))
    return exit_code(result, drain)


def _in(elsewhere: Mapping[Digest, Repository]) -> Hint:
    """Where the site has what was left out of the archive."""

    def hint(site: str, digest: Digest) -> str | None:
        repository = elsewhere.get(digest)
        return repository.name if repository is not None and repository.site == site else None

    return hint


def _rules(repositories: tuple[str, ...], contents: Contents, source: str, destination: str) -> list[Rule]:
    """A rule for all tags of all repositories, and one for each repository with images that have no tag."""

    def rule(name: str, repositories: tuple[str, ...], tags: TagSelection) -> Rule:
        globs = tuple(Glob.parse(each) for each in repositories)
        return Rule(name, source, (destination,), RepositorySelection(globs), (tags,))

    pinned = [
        rule(f"{_RULE} {name}", (name,), TagSelection(pins=tuple(Pin(digest) for digest in digests)))
        for name, digests in contents.untagged.items()
    ]
    tagged = tuple(name for name in repositories if name not in contents.only_untagged)
    return ([rule(_RULE, tagged, TagSelection())] if tagged else []) + pinned


async def _found(contents: Contents, target: Site, archive: str, watch: Watch) -> Mapping[Digest, Repository]:
    """The repositories where the site has the blobs that the archive leaves out.

    Raises:
        NotFound: the site lacks some of them. Nothing has been written.
    """
    wanted = dict(contents.absent)
    found: dict[Digest, Repository] = {}
    for digest, (descriptor, repositories) in contents.absent.items():
        for name in repositories:
            repository = target.repository(name)
            if await _has(repository, digest, descriptor.size):
                found[digest] = repository
                del wanted[digest]
                break
    why = ""
    if wanted:
        try:
            await _search(target, wanted, found, watch)
        except NotFound as error:  # such as a directory that is created on the first write
            why = f" ({error.operation}: {error.cause})"
    if wanted:
        raise NotFound(archive, "verify archive", _lacking(wanted, target.name, why))
    return found


async def _search(target: Site, wanted: _Absent, found: dict[Digest, Repository], watch: Watch) -> None:
    """Moves blobs that exist anywhere at the site from `wanted` to `found`. Raises SiteError if listing fails."""
    async for holder, page in held(target, lambda error: watch.events.emit(Warned(error.site, str(error)))):
        for digest, size in page:
            if digest in wanted and wanted[digest][0].size in (None, size):
                _, repositories = wanted.pop(digest)
                found[digest] = target.repository(holder or repositories[0])
        if not wanted:
            break


def _lacking(digests: Collection[Digest], site: str, why: str) -> str:
    listed = ", ".join(sorted(digests)[:_TOLD])
    more = f" and {len(digests) - _TOLD} more" if len(digests) > _TOLD else ""
    return (
        f"the archive leaves out {format_count(len(digests), 'blob')} that {site} does not have{why}: {listed}{more};"
        f" export again without --have, or with a new inventory of {site}"
    )


async def _has(repository: Repository, digest: Digest, size: int | None) -> bool:
    try:
        return await repository.has_blob(digest, size)
    except SiteError:
        return False  # if the error persists, the run reports it
