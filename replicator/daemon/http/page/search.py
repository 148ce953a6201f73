"""The search page, and a page for one image. Plain forms and links: both work without JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import hdrs, web

from replicator.daemon.http.agent import Agent
from replicator.daemon.http.api.finding import Finder, FoundImage
from replicator.daemon.http.page.page import render_template
from replicator.daemon.http.problems import Problem
from replicator.daemon.http.routes import Route
from replicator.ports.search import Move


@dataclass(frozen=True, slots=True)
class Asked:
    """What the form was filled in with."""

    query: str
    site: str
    missing_at: str
    platform: str
    behind: bool

    @property
    def whole(self) -> str:
        """The query with what the other fields add to it."""
        fields = (("site", self.site), ("platform", self.platform))
        return " ".join([self.query, *(f'{key}:"{value}"' for key, value in fields if value)]).strip()


class SearchPage:
    """The pages."""

    def __init__(self, app: Agent, finder: Finder) -> None:
        self._app = app
        self._finder = finder

    def routes(self) -> list[Route]:
        """What serves them."""
        return [
            Route("GET", "/search", self.serve, "read", "The search page", "text/html", hidden=True),
            Route(
                "GET", "/image", self.serve_image, "read", "The page of one image", "text/html", hidden=True
            ),
        ]

    async def serve(self, request: web.Request) -> web.Response:
        """The form with what it finds."""
        field = request.query.get
        asked = Asked(
            field("q", "").strip(),
            field("site", ""),
            field("missing_at", ""),
            field("platform", "").strip(),
            "behind" in request.query,
        )
        found, problem = None, ""
        if asked.whole or asked.missing_at or asked.behind:
            try:
                found = await self._finder.find(asked.whole, asked.missing_at, behind=asked.behind)
            except ValueError as error:
                problem = str(error)
        return self._page("search.html", asked=asked, found=found, problem=problem, sites=self._sites())

    async def serve_image(self, request: web.Request) -> web.Response:
        """One image: its layers, where it is, and what its tag has named."""
        repository, tag = request.query.get("repository", ""), request.query.get("tag", "")
        try:
            found = await self._finder.find(f"repo:{_literal(repository)} tag:{_literal(tag)}")
        except ValueError as error:
            raise Problem(400, str(error)) from None
        image = next(
            (each for each in found.images if (each.repository, each.tag) == (repository, tag)), None
        )
        if image is None:
            raise Problem(404, "unknown image, or one that no run has seen")
        moves = [await self._moves(image, at.site, at.repository) for at in image.sites if at.repository]
        return self._page("image.html", image=image, moves=[each for each in moves if each])

    async def _moves(self, image: FoundImage, site: str, repository: str) -> Sequence[Move]:
        return await self._app.index.moves(site, repository, image.tag)

    def _sites(self) -> list[str]:
        rules = [each.rule for each in self._app.rules]
        return list(dict.fromkeys([name for rule in rules for name in (rule.source, *rule.destinations)]))

    def _page(self, name: str, **facts: object) -> web.Response:
        text = render_template(name, agent=self._app.config.agent.name, now=self._app.clock.now(), **facts)
        return web.Response(
            text=text, content_type="text/html", charset="utf-8", headers={hdrs.CACHE_CONTROL: "no-store"}
        )


def _literal(text: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in text)
