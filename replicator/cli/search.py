"""`replicator search` and `replicator where`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import click
import msgspec

from replicator.cli.names import complete_reference, complete_site
from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import iso, print_json
from replicator.cli.places import looks_like_host, open_sites
from replicator.cli.runner import run_async
from replicator.cli.watch import Watch
from replicator.config.load import load
from replicator.config.settings import Loaded
from replicator.discovery.fresh import Answer, ask
from replicator.discovery.query import parse_query
from replicator.discovery.rows import Route, Row, about_site, columns, limited, missing_at, rows
from replicator.errors import ConfigError
from replicator.lists.sites import sites_by_host
from replicator.model.digest import Digest
from replicator.model.names import parse_reference
from replicator.ports.search import ImageFacts, Query
from replicator.report import format_bytes, table
from replicator.runs.indexing import read_facts
from replicator.runs.wiring import site_names
from replicator.sites.registry.settings import RegistrySettings
from replicator.state.store import StoredState, open_state

LIMIT: Final = 1_000
_SHORT: Final = 19
_SIGN: Final = {"held": "yes", "missing": "-", "differs": "differs"}

_fresh = click.option("--fresh", is_flag=True, help="Ask the sites now, instead of what runs have seen.")


@click.command("search")
@click.argument("query", nargs=-1, required=True)
@click.option(
    "--missing-at",
    metavar="SITE",
    help="Only what this site lacks or has with another digest.",
    shell_complete=complete_site,
)
@click.option(
    "--limit",
    default=LIMIT,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Show at most this many tags.",
)
@_fresh
@everywhere
@click.pass_obj
def command(
    invocation: Invocation, query: tuple[str, ...], missing_at: str | None, *, limit: int, fresh: bool
) -> int:
    """Find images by name, digest, layer, platform, label, annotation or age, sites side by side.

    QUERY is words, each part of REPOSITORY:TAG or the beginning of a word of a label or annotation, and conditions
    KEY:VALUE: repo, tag, digest, layer, platform, label, annotation, type, before, after, site. Everything must hold.
    Quotes keep spaces: 'label:title="my app"'. The answer comes from what runs have seen; no request is sent, but with
    --fresh. Exit code 0 if something was found, else 1.
    """
    try:
        parsed = msgspec.structs.replace(parse_query(query), missing_at=missing_at or "")
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="QUERY") from None
    return run_async(_search(invocation, parsed, limit, fresh=fresh))


@click.command("where")
@click.argument("reference", shell_complete=complete_reference)
@_fresh
@everywhere
@click.pass_obj
def where_command(invocation: Invocation, reference: str, *, fresh: bool) -> int:
    """Show which sites hold an image, under which names and since when.

    REFERENCE is a repository with or without a tag or digest, as at the source or at a destination, with or without the
    site's name or host before it; or a digest, of an image or of a layer. Exit code 0 if some site holds it, else 1.
    """
    return run_async(_where(invocation, reference, fresh=fresh))


@dataclass(frozen=True)
class _Found:
    """What was found. `more`: there are more tags than these rows."""

    rows: Sequence[Row]
    facts: Mapping[Digest, ImageFacts]
    sites: Sequence[str]
    more: bool
    problems: Sequence[str] = ()


async def _search(invocation: Invocation, query: Query, limit: int, *, fresh: bool) -> int:
    watch = Watch.start(invocation)
    loaded = load(invocation.config, os.environ)
    found = await _find(loaded, watch, query, limit, fresh=fresh)
    if invocation.json:
        print_json({"version": 1, "images": [_row_json(row, found) for row in found.rows]})
    else:
        _print(found)
    return _ended(found, limit)


async def _where(invocation: Invocation, text: str, *, fresh: bool) -> int:
    watch = Watch.start(invocation)
    loaded = load(invocation.config, os.environ)
    try:
        query = _named(text, loaded)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="REFERENCE") from None
    found = await _find(loaded, watch, query, LIMIT, fresh=fresh)
    if not query.repository and not found.rows:
        layer = msgspec.structs.replace(query, digest="", layer=query.digest)
        found = await _find(loaded, watch, layer, LIMIT, fresh=fresh)
    if invocation.json:
        print_json({"version": 1, "images": [_row_json(row, found) for row in found.rows]})
    else:
        for line in table([line for row in found.rows for line in _where_lines(row)]):
            click.echo(line)
    return _ended(found, LIMIT)


def _named(text: str, loaded: Loaded) -> Query:
    """The query for a reference: a digest, or a name without its site."""
    if text.startswith(("sha256:", "sha512:")):
        return parse_query([text])
    name, at, digest = text.partition("@")
    head, slash, rest = name.partition("/")
    if slash and head in loaded.sites:
        name = rest
    elif slash and looks_like_host(head):
        urls = {each.name: each.url for each in loaded.sites.values() if isinstance(each, RegistrySettings)}
        reference = parse_reference(name)
        if reference.host not in sites_by_host(urls):
            raise ValueError(f"{text}: no site has the host {reference.host}")
        name = f"{reference.repository}:{reference.tag}" if reference.tag else reference.repository
    name, colon, tag = name.partition(":")
    if not name or (colon and not tag):
        raise ValueError(f"{text!r}: expected REPOSITORY[:TAG][@DIGEST] or a digest")
    query = parse_query([f"digest:{digest}"]) if at else Query()
    return msgspec.structs.replace(query, repository=_literal(name), tag=_literal(tag))


def _literal(text: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in text)


async def _find(loaded: Loaded, watch: Watch, query: Query, limit: int, *, fresh: bool) -> _Found:
    routes = {rule.name: Route(rule.source, rule.destinations) for rule in loaded.rules}
    try:
        query = about_site(query, routes)
    except ValueError as error:
        raise ConfigError([str(error)]) from None
    if fresh:
        answer = await _ask(loaded, watch, query)
        found = missing_at(rows(answer.holdings, routes), query.missing_at)
        failures = [str(error) for error in answer.failures]
        return _Found(found[:limit], answer.facts, columns(found, routes), len(found) > limit, failures)
    async with _state(loaded, watch) as state:
        holdings = await state.search(query, limit + 1)
        found, more = limited(holdings, missing_at(rows(holdings, routes), query.missing_at), limit)
        facts = await state.facts(list({row.digest for row in found if row.digest is not None}))
    return _Found(found, facts, columns(found, routes), more)


async def _ask(loaded: Loaded, watch: Watch, query: Query) -> Answer:
    settings = [loaded.sites[name] for name in site_names(loaded.rules)]
    async with open_sites(settings, watch) as sites:
        return await ask(loaded.rules, sites, query, now=watch.clock.now(), read_facts=read_facts)


@contextlib.asynccontextmanager
async def _state(loaded: Loaded, watch: Watch) -> AsyncIterator[StoredState]:
    state = await open_state(loaded.agent.state, clock=watch.clock, read_only=True)
    try:
        yield state
    finally:
        await state.aclose()


def _print(found: _Found) -> None:
    lines = [("IMAGE", "DIGEST", "SIZE", *found.sites)]
    for row in found.rows:
        facts = found.facts.get(row.digest) if row.digest else None
        size = format_bytes(facts.size) if facts else "-"
        digest = row.digest[:_SHORT] if row.digest else "-"
        lines.append(
            (
                f"{row.repository}:{row.tag}",
                digest,
                size,
                *(_SIGN[row.state_at(site)] for site in found.sites),
            )
        )
    if found.rows:
        for line in table(lines):
            click.echo(line)


def _where_lines(row: Row) -> list[tuple[str, ...]]:
    return [
        (
            f"{at.site}/{at.repository}:{row.tag}",
            at.digest or "-",
            _SIGN[row.state_at(site)] + (f": {at.error}" if at.error else ""),
            "" if at.since is None else f"since {iso(at.since)}",
        )
        for site, at in row.sites.items()
    ]


def _row_json(row: Row, found: _Found) -> dict[str, object]:
    facts = found.facts.get(row.digest) if row.digest else None
    return {
        "repository": row.repository,
        "tag": row.tag,
        "source": row.source or None,
        "digest": row.digest,
        "sites": {
            site: {
                "state": row.state_at(site),
                "repository": at.repository if at else None,
                "digest": at.digest if at else None,
                "since": None if at is None or at.since is None else iso(at.since),
                "error": (at.error or None) if at else None,
            }
            for site in found.sites
            for at in [row.sites.get(site)]
        },
        "facts": None
        if facts is None
        else {
            "created": None if facts.created is None else iso(facts.created),
            "artifact_type": facts.artifact_type or None,
            "platforms": list(facts.platforms),
            "labels": dict(facts.labels),
            "annotations": dict(facts.annotations),
            "bytes": facts.size,
            "layers": [{"digest": digest, "size": size} for digest, size in facts.layers],
        },
    }


def _ended(found: _Found, limit: int) -> int:
    for problem in found.problems:
        click.echo(f"error: {problem}", err=True)
    if not found.rows:
        click.echo("nothing found", err=True)
    elif found.more:
        click.echo(f"more than {limit} tags match; these are the first (--limit)", err=True)
    return 0 if found.rows and not found.problems else 1
