"""`replicator copy`."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import click

from replicator.cli.console import shown
from replicator.cli.nostate import NoState
from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.cli.places import open_sites, registry_at
from replicator.cli.platforms import child_for, parse_platform
from replicator.cli.runner import draining, run_async
from replicator.cli.watch import Watch
from replicator.engine.result import DestinationResult, Failure, RuleResult
from replicator.engine.run import Engine
from replicator.errors import SiteError
from replicator.events import Failed, Warned
from replicator.model.descriptor import Platform
from replicator.model.names import Reference, parse_reference
from replicator.policy.pattern import Glob
from replicator.policy.rule import Pin, Rename, Replacement, RepositorySelection, Rule, TagSelection
from replicator.ports import Repository
from replicator.report import combine, failed, render_copy

_RULE: Final = "copy"
_Parsed = TypeVar("_Parsed")


@dataclass(frozen=True)
class _Request:
    """What is to be copied where. `source` has a tag or digest, and `destination` its tag, unless `all_tags`."""

    source: Reference
    destination: Reference
    all_tags: bool
    platform: Platform | None
    insecure: bool


@click.command("copy")
@click.argument("source")
@click.argument("destination")
@click.option("--all-tags", is_flag=True, help="All tags of the repository, under their own names.")
@click.option(
    "--platform",
    metavar="OS/ARCH[/VARIANT]",
    help="Of an index, only this platform's image, under the tag; its digest is another than the index's.",
)
@click.option("--insecure", is_flag=True, help="Plain HTTP, or TLS that is not verified, at both ends.")
@everywhere
@click.pass_obj
def command(
    invocation: Invocation,
    source: str,
    destination: str,
    *,
    all_tags: bool,
    platform: str | None,
    insecure: bool,
) -> int:
    """Copies one image, or all tags of a repository, from registry to registry.

    SOURCE and DESTINATION are [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST] as docker reads them: no host is Docker Hub,
    no tag of SOURCE is latest, no tag of DESTINATION is the source's. Credentials are docker's and podman's. Neither
    config nor state are needed. Loopback may speak plain HTTP.
    """
    request = _Request(
        source=_parsed("SOURCE", parse_reference, source),
        destination=_parsed("DESTINATION", parse_reference, destination),
        all_tags=all_tags,
        platform=None if platform is None else _parsed("--platform", parse_platform, platform),
        insecure=insecure,
    )
    return run_async(_copy(invocation, _completed(request)))


def _parsed(what: str, parse: Callable[[str], _Parsed], text: str) -> _Parsed:
    try:
        return parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=what) from None


def _completed(request: _Request) -> _Request:
    """The request with tags filled in; raises click's usage errors for what does not go together."""
    source, destination = request.source, request.destination
    if destination.digest:
        raise click.BadParameter(
            "a digest cannot be chosen, it follows from SOURCE", param_hint="DESTINATION"
        )
    if request.all_tags:
        if source.tag or source.digest or destination.tag:
            raise click.UsageError("--all-tags copies every tag under its own name: give repositories alone")
        return request
    if not source.tag and not source.digest:
        source = replace(source, tag="latest")
    return replace(
        request, source=source, destination=replace(destination, tag=destination.tag or source.tag)
    )


async def _copy(invocation: Invocation, request: _Request) -> int:
    watch = Watch.start(invocation)
    source, destination = request.source, request.destination
    started_at, started = watch.clock.now(), time.monotonic()
    settings = [
        await registry_at(host, insecure=request.insecure)
        for host in dict.fromkeys((source.host, destination.host))
    ]
    async with open_sites(settings, watch) as sites:
        repository = sites[source.host].repository(source.repository)
        tags, failures = await _selected(request, repository, watch)
        engine = Engine(
            sites=sites,
            state=NoState(source.host, source.repository),
            events=watch.events,
            clock=watch.clock,
            spool=None,
        )
        results = [RuleResult(_RULE, source.host, [DestinationResult(destination.host, "failed")])]
        with draining(engine.drain) as drain:
            if tags is not None:
                async with shown(watch.progress, display=watch.display):
                    results = await engine.sync([_rule(request, tags)])
    _include(failures, results[0].destinations[0])
    result = combine(results, watch.tally, started_at=started_at, seconds=time.monotonic() - started)
    if invocation.json:
        print_json(result)
    else:
        click.echo(render_copy(result))
    if drain.code is not None:
        return drain.code
    return 1 if failed(result) else 0


def _rule(request: _Request, tags: TagSelection) -> Rule:
    """The copy as a rule: one repository, renamed to the other."""
    source, destination = request.source, request.destination
    whole = re.compile(rf"\A{re.escape(source.repository)}\Z")
    return Rule(
        _RULE,
        source=source.host,
        destinations=(destination.host,),
        repositories=RepositorySelection((Glob.parse(source.repository),)),
        tags=(tags,),
        rename_repository=Rename(replacements=(Replacement(whole, destination.repository),)),
    )


async def _selected(
    request: _Request, repository: Repository, watch: Watch
) -> tuple[TagSelection | None, list[SiteError]]:
    """What is to be copied, and which tags lack the platform; None where nothing is left.

    Raises:
        SiteError: the one image is not there, or the tags cannot be listed.
    """
    if not request.all_tags:
        reference = request.source.digest or request.source.tag or ""
        return TagSelection(pins=(await _pin(request, repository, reference, watch),)), []
    if request.platform is None:
        return TagSelection(), []
    tasks = []
    async with asyncio.TaskGroup() as group:
        async for page in repository.tags():
            tasks += [group.create_task(_pin_or_error(request, repository, tag, watch)) for tag in page]
    outcomes = [task.result() for task in tasks]
    pins = tuple(each for each in outcomes if isinstance(each, Pin))
    failures = [each for each in outcomes if isinstance(each, SiteError)]
    return (TagSelection(pins=pins) if pins else None), failures


async def _pin_or_error(request: _Request, repository: Repository, tag: str, watch: Watch) -> Pin | SiteError:
    try:
        return await _pin(request, repository, tag, watch)
    except SiteError as error:
        cause, host = f"tag {tag}: {error.cause}", request.destination.host
        watch.events.emit(
            Failed(_RULE, host, error.site, error.repository, error.operation, error.reason, cause)
        )
        error.cause = cause
        return error


async def _pin(request: _Request, repository: Repository, reference: str, watch: Watch) -> Pin:
    """The image of one reference, narrowed to the platform, and the tag it gets."""
    tag = reference if request.all_tags else request.destination.tag
    if request.platform is None:
        return Pin((await repository.resolve(reference)).digest, tag)
    manifest = await repository.read_manifest(reference)
    child = child_for(manifest, request.platform, site=repository.site, repository=repository.name)
    watch.events.emit(
        Warned(repository.site, _told(request.platform, reference, manifest.digest, child.digest))
    )
    return Pin(child.digest, tag)


def _told(platform: Platform, reference: str, root: str, child: str) -> str:
    if root == child:
        return f"{reference} is no index: it is copied as it is, whatever its platform"
    return f"{reference}: only {platform} is copied, as {child}; the digest of the whole is {root}"


def _include(failures: list[SiteError], result: DestinationResult) -> None:
    """Adds the tags that never came to the engine."""
    result.failures += [
        Failure(each.site, each.repository, each.operation, each.cause, each.reason) for each in failures
    ]
    result.totals.tags.failed += len(failures)
    if failures and result.outcome == "ok":
        result.outcome = "partial"
