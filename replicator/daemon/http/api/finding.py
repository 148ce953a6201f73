"""`/api/v1/search`: images as the index knows them; the search page shows the same."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from aiohttp import web

from replicator.daemon.http.agent import Agent
from replicator.daemon.http.api.agents import moment
from replicator.daemon.http.problems import Problem
from replicator.daemon.http.routes import Parameter, Route
from replicator.discovery.query import KEYS, parse_query
from replicator.discovery.rows import HeldState, Row, about_site, columns, limited, missing_at, rows
from replicator.discovery.rows import Route as RuleRoute
from replicator.model.digest import Digest
from replicator.ports.search import ImageFacts

MAX_QUERY: Final = 1_000
MAX_FOUND: Final = 500
"""Tags of one answer; a narrower query shows the others."""


class FoundAt(msgspec.Struct, frozen=True):
    """What one site has of a tag. `since`: when that was last confirmed, or since when it is pending."""

    site: str
    state: HeldState
    repository: str | None
    digest: str | None
    since: dt.datetime | None
    error: str | None


class Layer(msgspec.Struct, frozen=True):
    """A layer with its size in bytes."""

    digest: str
    size: int


class FoundImage(msgspec.Struct, frozen=True):
    """One tag, sites side by side. What is said of the image is empty where it did not pass through."""

    repository: str
    tag: str
    source: str | None
    digest: str | None
    sites: list[FoundAt]
    created: dt.datetime | None
    artifact_type: str | None
    platforms: list[str]
    labels: dict[str, str]
    annotations: dict[str, str]
    bytes: int | None
    layers: list[Layer]


class Found(msgspec.Struct, frozen=True):
    """What a query found. `more`: there are more than these."""

    sites: list[str]
    images: list[FoundImage]
    more: bool


class Finder:
    """Answers queries from the index; no site is asked."""

    def __init__(self, app: Agent) -> None:
        self._app = app

    def routes(self) -> list[Route]:
        """The route of the API."""
        keys = ", ".join(KEYS)
        return [
            Route(
                "GET",
                "/api/v1/search",
                self.serve,
                "read",
                "Finds images",
                Found,
                parameters=(
                    Parameter(
                        "q",
                        "query",
                        f"Words and conditions KEY:VALUE ({keys})",
                        {"type": "string", "maxLength": MAX_QUERY},
                    ),
                    Parameter(
                        "missing_at",
                        "query",
                        "Only what this site lacks",
                        {"type": "string", "maxLength": 64},
                    ),
                ),
                refuses={400: "Not a query"},
            )
        ]

    async def serve(self, request: web.Request) -> web.Response:
        """The answer as JSON."""
        try:
            found = await self.find(request.query.get("q", ""), request.query.get("missing_at", ""))
        except ValueError as error:
            raise Problem(400, str(error)) from None
        return web.Response(body=msgspec.json.encode(found), content_type="application/json")

    async def find(self, text: str, lacking: str = "", *, behind: bool = False) -> Found:
        """What a query finds; all there is, bounded, for an empty one.

        Args:
            text: the query.
            lacking: only what this site lacks.
            behind: only what some site lacks or has otherwise than its source.

        Raises:
            ValueError: it is not a query, or no site has this name; says what would be right.
        """
        if len(text) > MAX_QUERY:
            raise ValueError(f"a query may have {MAX_QUERY} characters")
        routes = {
            each.rule.name: RuleRoute(each.rule.source, each.rule.destinations) for each in self._app.rules
        }
        query = msgspec.structs.replace(parse_query([text]), missing_at=lacking, behind=behind)
        holdings = await self._app.index.search(about_site(query, routes), MAX_FOUND + 1)
        found = missing_at(rows(holdings, routes), lacking)
        if behind:
            found = [row for row in found if row.is_behind]
        shown, more = limited(holdings, found, MAX_FOUND)
        facts = await self._app.index.facts(list({row.digest for row in shown if row.digest is not None}))
        names = columns(found, routes)
        images = [_image(row, names, facts) for row in shown]
        return Found(names, images, more=more)


def _image(row: Row, sites: Sequence[str], known: Mapping[Digest, ImageFacts]) -> FoundImage:
    facts = known.get(row.digest) if row.digest is not None else None
    return FoundImage(
        repository=row.repository,
        tag=row.tag,
        source=row.source or None,
        digest=row.digest,
        sites=[_at(row, site) for site in sites],
        created=None if facts is None or facts.created is None else moment(facts.created),
        artifact_type=(facts.artifact_type or None) if facts else None,
        platforms=list(facts.platforms) if facts else [],
        labels=dict(facts.labels) if facts else {},
        annotations=dict(facts.annotations) if facts else {},
        bytes=facts.size if facts else None,
        layers=[Layer(digest, size) for digest, size in facts.layers] if facts else [],
    )


def _at(row: Row, site: str) -> FoundAt:
    at = row.sites.get(site)
    state = row.state_at(site)
    if at is None:
        return FoundAt(site, state, None, None, None, None)
    since = None if at.since is None else moment(at.since)
    return FoundAt(site, state, at.repository, at.digest, since, at.error or None)
