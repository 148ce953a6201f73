"""`replicator search` and `replicator where`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import click
import msgspec

from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import iso, print_json
from replicator.cli.places import open_sites
from replicator.cli.runner import run_async
from replicator.cli.watch import Watch
from replicator.config.build import Loaded
from replicator.config.load import load
from replicator.discovery.fresh import Answer, ask
from replicator.discovery.query import parse_query
from replicator.discovery.rows import Route, Row, columns, missing_at, rows
from replicator.errors import ConfigError
from replicator.model.digest import Digest
from replicator.ports.search import ImageFacts, Query
from replicator.report import format_bytes, table
from replicator.runs.indexing import read_facts
from replicator.runs.wiring import site_names
from replicator.state.store import SqliteState, open_state

LIMIT: Final = 1_000
_SHORT: Final = 19
_SIGN: Final = {"held": "yes", "missing": "-", "differs": "differs"}

_fresh = click.option("--fresh", is_flag=True, help="Ask the sites now, instead of what runs have seen.")


@click.command("search")
@click.argument("query", nargs=-1, required=True)
@click.option("--missing-at", metavar="SITE", help="Only what this site lacks or has with another digest.")
@click.option(
    "--limit", default=LIMIT, show_default=True, type=click.IntRange(1, 100_000), help="At most so many tags."
)
@_fresh
@everywhere
@click.pass_obj
def command(
    invocation: Invocation, query: tuple[str, ...], missing_at: str | None, *, limit: int, fresh: bool
) -> int:
    """Find images by name, digest, layer, platform, label or age, sites side by side.

    QUERY is words, each part of a repository's or tag's name or the beginning of a word of a label, and conditions
    KEY:VALUE: repo, tag, digest, layer, platform, label, type, before, after, site. Everything must hold. The answer comes
    from what runs have seen; no request is sent, but with --fresh. Exit code 0 if something was found, else 1.
    """
    try:
        parsed = parse_query(query)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="QUERY") from None
    return run_async(_search(invocation, parsed, missing_at, limit, fresh=fresh))


@click.command("where")
@click.argument("reference")
@_fresh
@everywhere
@click.pass_obj
def where_command(invocation: Invocation, reference: str, *, fresh: bool) -> int:
    """Show which sites hold an image, under which names and since when.

    REFERENCE is a repository with or without a tag, as at the source or at a destination, with or without the site's name
    before it; or a digest, of an image or of a layer. Exit code 0 if some site holds it, else 1.
    """
    try:
        query = parse_query([reference]) if _is_digest(reference) else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="REFERENCE") from None
    return run_async(_where(invocation, reference, query, fresh=fresh))


def _is_digest(text: str) -> bool:
    return text.startswith(("sha256:", "sha512:"))


@dataclass(frozen=True)
class _Found:
    rows: Sequence[Row]
    facts: Mapping[Digest, ImageFacts]
    sites: Sequence[str]
    problems: Sequence[str] = ()


async def _search(
    invocation: Invocation, query: Query, lacking: str | None, limit: int, *, fresh: bool
) -> int:
    watch = Watch.start(invocation)
    loaded = load(invocation.config, os.environ)
    for name in (query.destination, lacking):
        if name and name not in loaded.sites:
            raise ConfigError([f"{name}: no such site; the config has {', '.join(sorted(loaded.sites))}"])
    found = await _find(loaded, watch, query, limit, fresh=fresh)
    if lacking is not None:
        found = _Found(missing_at(found.rows, lacking), found.facts, found.sites, found.problems)
    if invocation.json:
        print_json({"version": 1, "images": [_row_json(row, found) for row in found.rows]})
    else:
        _print(found)
    return _ended(found, limit)


async def _where(invocation: Invocation, text: str, query: Query | None, *, fresh: bool) -> int:
    watch = Watch.start(invocation)
    loaded = load(invocation.config, os.environ)
    found = await _find(loaded, watch, query or _named(text, loaded), LIMIT, fresh=fresh)
    if query is not None and not found.rows:
        layer = msgspec.structs.replace(query, digest="", layer=query.digest)
        found = await _find(loaded, watch, layer, LIMIT, fresh=fresh)
    if invocation.json:
        print_json({"version": 1, "images": [_row_json(row, found) for row in found.rows]})
    else:
        for line in table([line for row in found.rows for line in _where_lines(row)]):
            click.echo(line)
    return _ended(found, LIMIT)


def _named(text: str, loaded: Loaded) -> Query:
    head, slash, rest = text.partition("/")
    if slash and head in loaded.sites:
        text = rest
    name, _, tag = text.partition("@")[0].partition(":")
    return Query(repository=_literal(name), tag=_literal(tag))


def _literal(text: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in text)


async def _find(loaded: Loaded, watch: Watch, query: Query, limit: int, *, fresh: bool) -> _Found:
    routes = {rule.name: Route(rule.source, rule.destinations) for rule in loaded.rules}
    if fresh:
        answer = await _ask(loaded, watch, query)
        found = rows(answer.holdings, routes)
        return _Found(found, answer.facts, columns(found, routes), [str(error) for error in answer.failures])
    async with _state(loaded, watch) as state:
        holdings = await state.search(query, limit)
        found = rows(holdings, routes)
        facts = await state.facts(list({row.digest for row in found if row.digest is not None}))
    return _Found(found, facts, columns(found, routes))


async def _ask(loaded: Loaded, watch: Watch, query: Query) -> Answer:
    settings = [loaded.sites[name] for name in site_names(loaded.rules)]
    async with open_sites(settings, watch) as sites:
        return await ask(loaded.rules, sites, query, now=watch.clock.now(), read_facts=read_facts)


@contextlib.asynccontextmanager
async def _state(loaded: Loaded, watch: Watch) -> AsyncIterator[SqliteState]:
    state = await open_state(loaded.agent.state_path, clock=watch.clock, read_only=True)
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
            row.state_at(site) + (f": {at.error}" if at.error else ""),
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
            "bytes": facts.size,
            "layers": [{"digest": digest, "size": size} for digest, size in facts.layers],
        },
    }


def _ended(found: _Found, limit: int) -> int:
    for problem in found.problems:
        click.echo(f"error: {problem}", err=True)
    if not found.rows:
        click.echo("nothing found", err=True)
    elif len(found.rows) >= limit:
        click.echo(f"more than {limit} tags match; these are the first (--limit)", err=True)
    return 0 if found.rows and not found.problems else 1
