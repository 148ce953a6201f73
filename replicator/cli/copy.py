"""`replicator copy`."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from replicator.cli.archives import open_archive, write_archive
from replicator.cli.console import shown
from replicator.cli.images import ONE, ImageName, parse_image
from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.cli.places import image_settings, open_sites
from replicator.cli.platforms import child_for
from replicator.cli.runner import draining, exit_code, run_async
from replicator.cli.watch import Watch
from replicator.engine.engine import Engine
from replicator.engine.result import DestinationResult, Failure, RuleResult
from replicator.errors import NotFound, SiteError
from replicator.events import Failed, Warned
from replicator.model.descriptor import Platform
from replicator.model.names import is_tag
from replicator.policy.pattern import Glob
from replicator.policy.platforms import parse_platform, platform_text
from replicator.policy.rule import Pin, Rename, Replacement, RepositorySelection, Rule, TagSelection
from replicator.ports import Repository, Site
from replicator.report import combine, render_copy
from replicator.sites.archive.names import called, name_of
from replicator.sites.layouts.oci.entries import digest_in, tag_of
from replicator.sites.layouts.settings import Layout
from replicator.state.memory import MemoryState

if TYPE_CHECKING:
    from replicator.sites.archive.writer import ArchiveWriter
    from replicator.sites.layouts.oci.repository import OciRepository
    from replicator.sites.open import SiteSettings

_RULE: Final = "copy"
_BY_NAME: Final = ("layout", "archive")
"""Kinds of places where an image is found by its name in an index, or as the only one."""
_NAMES_TOLD: Final = 5
_LAYOUTS: Final = click.Choice(["distribution", "oci"])
_LAYOUT_OPTIONS: Final = ("--source-layout", "--destination-layout")
_FOUND: Final = "[default: detected, else distribution for a bucket, oci for a directory]"
_Parsed = TypeVar("_Parsed")


@dataclass(frozen=True)
class _Request:
    """What to copy where. `layouts`: those of source and destination, as far as the user specified them."""

    source: ImageName
    destination: ImageName
    all_tags: bool
    platform: Platform | None
    insecure: bool
    layouts: tuple[Layout | None, Layout | None]


@click.command("copy")
@click.argument("source")
@click.argument("destination")
@click.option("--all-tags", is_flag=True, help="Copy all tags of the repository, under the same names.")
@click.option(
    "--platform",
    metavar="OS[(VERSION)]/ARCH[/VARIANT]",
    help="Copy only this platform from a multi-platform index. The tag's digest will differ from the index's.",
)
@click.option("--insecure", is_flag=True, help="Allow plain HTTP and unverified TLS at both ends.")
@click.option("--source-layout", type=_LAYOUTS, help=f"Layout of a source bucket or directory.  {_FOUND}")
@click.option(
    "--destination-layout", type=_LAYOUTS, help=f"Layout of a destination bucket or directory.  {_FOUND}"
)
@everywhere
@click.pass_obj
def command(invocation: Invocation, /, source: str, destination: str, **options: Any) -> int:
    """Copy one image, or all tags of a repository, between registries, buckets, directories and archives.

    SOURCE and DESTINATION are one of

    \b
      [HOST[:PORT]/]REPOSITORY[:TAG]         a registry, as in docker: without a host, Docker Hub
      s3://BUCKET[/PREFIX/]/REPOSITORY[:TAG] a bucket; // ends the prefix
      file:///PATH//REPOSITORY[:TAG]         a directory; // ends its path
      oci:DIR[:TAG]                          one OCI image layout
      oci-archive:FILE[:NAME]                one in a tar, from docker save, podman save, skopeo or export

    SOURCE may end in @DIGEST. If SOURCE has no tag, `latest` is used, or the only image of a layout or archive. If
    DESTINATION has no tag, the source's tag is used. The credentials are those of docker and podman, for buckets those
    of the AWS tools. No config and no state are used. Registries on loopback may use plain HTTP.
    """  # noqa: D301 - \b is click's: keep these lines
    platform = options["platform"]
    request = _Request(
        source=_parsed("SOURCE", parse_image, source),
        destination=_parsed("DESTINATION", parse_image, destination),
        all_tags=options["all_tags"],
        platform=None if platform is None else _parsed("--platform", parse_platform, platform),
        insecure=options["insecure"],
        layouts=(options["source_layout"], options["destination_layout"]),
    )
    return run_async(_copy(invocation, _completed(request)))


def _parsed(what: str, parse: Callable[[str], _Parsed], text: str) -> _Parsed:
    try:
        return parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=what) from None


def _completed(request: _Request) -> _Request:
    """The request with the tags that can be filled in without a request; raises click's usage errors."""
    source, destination = request.source, request.destination
    if destination.digest:
        raise click.BadParameter(
            "a digest is not allowed here; it follows from SOURCE", param_hint="DESTINATION"
        )
    if destination.tag and not is_tag(destination.tag):
        raise click.BadParameter(f"invalid tag {destination.tag!r}", param_hint="DESTINATION")
    if source.kind == "archive" and source.path == destination.path:
        raise click.UsageError("SOURCE and DESTINATION are the same archive")
    for layout, image, option in zip(request.layouts, (source, destination), _LAYOUT_OPTIONS, strict=True):
        if layout is not None and image.kind != "store":
            raise click.UsageError(f"{option} applies only to s3:// and file://, not to {image.site}")
    if request.all_tags:
        if source.tag or source.digest or destination.tag:
            raise click.UsageError("--all-tags keeps all tags; give repositories without a tag or digest")
        return request
    if source.kind in _BY_NAME:
        return request  # the name in the index is looked up when the place is open
    if not source.tag and not source.digest:
        source = source.tagged("latest")
    return replace(request, source=source, destination=destination.tagged(destination.tag or source.tag))


async def _copy(invocation: Invocation, request: _Request) -> int:
    watch = Watch.start(invocation)
    started_at, started = watch.clock.now(), time.monotonic()
    async with _opened(request, watch) as (sites, writer):
        request = await _settled(request, sites[request.source.site])
        source, destination = request.source, request.destination
        repository = sites[source.site].repository(source.repository)
        tags, failures = await _selected(request, repository, watch)
        engine = Engine(
            sites=sites,
            state=MemoryState(
                watch.clock, hint=lambda site, _: source.repository if site == source.site else None
            ),
            events=watch.events,
            clock=watch.clock,
            spool=None,
        )
        results = [RuleResult(_RULE, source.site, [DestinationResult(destination.site, "failed")])]
        with draining(engine.drain) as drain:
            if tags is not None:
                async with shown(watch.progress, display=watch.display):
                    results = await engine.sync([_rule(request, tags)], recheck=True)
        _include(failures, results[0].destinations[0])
        if writer is not None and results[0].destinations[0].totals.tags.copied:
            await writer.finish()
    result = combine(results, watch.counts, started_at=started_at, seconds=time.monotonic() - started)
    if invocation.json:
        print_json(result)
    else:
        click.echo(render_copy(result))
    return exit_code(result, drain)


@contextlib.asynccontextmanager
async def _opened(
    request: _Request, watch: Watch
) -> AsyncIterator[tuple[Mapping[str, Site], ArchiveWriter | None]]:
    """Both sites by name, and the writer to finish if the destination is an archive."""
    source, destination = request.source, request.destination
    settings: dict[str, SiteSettings] = {}
    sites: dict[str, Site] = {}
    writer = None
    async with contextlib.AsyncExitStack() as stack:
        if source.kind == "archive":
            opened = open_archive(source.path, source.site, watch, only=ONE)
            sites[source.site] = (await stack.enter_async_context(opened))[1]
        for image, layout in zip((source, destination), request.layouts, strict=True):
            if image.kind != "archive" and image.site not in settings:
                settings[image.site] = await image_settings(image, layout, watch, insecure=request.insecure)
        sites |= await stack.enter_async_context(open_sites(settings.values(), watch))
        if destination.kind == "archive":
            written = write_archive(destination.path, destination.site, watch, only=ONE)
            writer, sites[destination.site] = await stack.enter_async_context(written)
        yield sites, writer


async def _settled(request: _Request, site: Site) -> _Request:
    """The request with the image of a layout or archive found by its name, or as the only image.

    Raises:
        SiteError: no image has the name, or several do.
    """
    source = request.source
    repository = cast("OciRepository", site.repository(source.repository))
    if request.all_tags or source.digest or source.kind not in _BY_NAME:
        return request
    entries = [each for each in await repository.entries() if not source.tag or called(each, source.tag)]
    digests = {each.get("digest"): each for each in entries}
    known = ", ".join(sorted(name_of(each) for each in await repository.entries())[:_NAMES_TOLD])
    if not digests:
        raise NotFound(
            source.site, "find image", f"{source.tag or 'image'} not found; images: {known or 'none'}"
        )
    if len(digests) > 1:
        raise NotFound(source.site, "find image", f"there are several images, specify one: {known}")
    entry = next(iter(digests.values()))
    digest = digest_in(entry)
    if digest is None:
        raise NotFound(source.site, "find image", f"{name_of(entry)} has no valid digest")
    tag = request.destination.tag or tag_of(entry) or "latest"
    source = replace(source, digest=digest)
    return replace(request, source=source, destination=request.destination.tagged(tag))


def _rule(request: _Request, tags: TagSelection) -> Rule:
    """The copy as a rule: one repository, renamed to the other."""
    source, destination = request.source, request.destination
    whole = re.compile(rf"\A{re.escape(source.repository)}\Z")
    return Rule(
        _RULE,
        source=source.site,
        destinations=(destination.site,),
        repositories=RepositorySelection((Glob.parse(source.repository),)),
        tags=(tags,),
        rename_repository=Rename(replacements=(Replacement(whole, destination.repository),)),
    )


async def _selected(
    request: _Request, repository: Repository, watch: Watch
) -> tuple[TagSelection | None, list[SiteError]]:
    """The tags to copy (None if there are none), and the failures of tags without the platform.

    Raises:
        SiteError: the image does not exist, or the tags cannot be listed.
    """
    if not request.all_tags:
        reference = request.source.digest or request.source.tag or ""
        try:
            return TagSelection(pins=(await _pin(request, repository, reference, watch),)), []
        except SiteError as error:
            if error.repository is None:
                raise  # it is about the site, whatever is asked for
            raise error.about(reference) from None
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
        cause, host = f"tag {tag}: {error.cause}", request.destination.site
        watch.events.emit(
            Failed(_RULE, host, error.site, error.repository, error.operation, error.reason, cause)
        )
        error.cause = cause
        return error


async def _pin(request: _Request, repository: Repository, reference: str, watch: Watch) -> Pin:
    """The image of one reference, limited to the platform, and its tag at the destination."""
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
        return f"{reference} is not an index: copied unchanged, whatever its platform"
    return f"{reference}: copying only {platform_text(platform)}, which is {child}; the index is {root}"


def _include(failures: list[SiteError], result: DestinationResult) -> None:
    """Adds the failures of tags that were not passed to the engine."""
    result.failures += [
        Failure(each.site, each.repository, each.operation, each.cause, each.reason) for each in failures
    ]
    result.totals.tags.failed += len(failures)
    if failures and result.outcome == "ok":
        result.outcome = "partial"
