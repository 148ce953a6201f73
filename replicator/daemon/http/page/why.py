"""The page that explains why an image is, or is not, at its destinations. A plain form and links."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

from replicator.daemon.http.agent import Agent
from replicator.daemon.http.page.page import render_template
from replicator.daemon.http.routes import Route

_BEHIND_SHOWN: Final = 50
"""Repositories with pending tags that the page lists."""


class WhyPage:
    """The page."""

    def __init__(self, app: Agent) -> None:
        self._app = app

    def routes(self) -> list[Route]:
        """What serves it."""
        return [
            Route(
                "GET",
                "/why",
                self.serve,
                "read",
                "Why an image is, or is not, at a destination",
                "text/html",
                hidden=True,
            )
        ]

    async def serve(self, request: web.Request) -> web.Response:
        """The form, the answer if something was asked, and what is pending at the destination."""
        field = request.query.get
        reference, at, rule = (field(name, "").strip() for name in ("reference", "at", "rule"))
        answer, problem = None, ""
        if reference:
            try:
                answer = await self._app.why(reference, at or None, fresh=False)
            except ValueError as error:
                problem = str(error)
        behind = [
            each
            for each in await self._app.state.behind()
            if each.destination == at and rule in {"", each.rule}
        ]
        text = render_template(
            "why.html",
            agent=self._app.config.agent.name,
            now=self._app.clock.now(),
            reference=reference,
            at=at,
            rule=rule,
            sites=list(dict.fromkeys(to for each in self._app.rules for to in each.rule.destinations)),
            answer=answer,
            problem=problem,
            behind=behind[:_BEHIND_SHOWN] if not reference else [],
            more=max(0, len(behind) - _BEHIND_SHOWN),
        )
        return web.Response(
            text=text, content_type="text/html", charset="utf-8", headers={hdrs.CACHE_CONTROL: "no-store"}
        )
