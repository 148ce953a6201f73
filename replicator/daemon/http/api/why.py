"""`/api/v1/why`: why an image is, or is not, at its destinations; the page shows the same."""

from __future__ import annotations

import msgspec
from aiohttp import web

from replicator.daemon.http.agent import Agent
from replicator.daemon.http.api.shapes import WhyOrder
from replicator.daemon.http.bodies import read_json
from replicator.daemon.http.problems import Problem
from replicator.daemon.http.routes import Parameter, Route
from replicator.runs.why import Answer

_REFERENCE = Parameter(
    "reference",
    "query",
    "[SITE/]REPOSITORY[:TAG], at the source or at a destination, or a digest",
    {"type": "string", "minLength": 1, "maxLength": 1000},
)
_AT = Parameter("at", "query", "Only this destination", {"type": "string", "maxLength": 64})


class WhyAPI:
    """The routes of the API."""

    def __init__(self, app: Agent) -> None:
        self._app = app

    def routes(self) -> list[Route]:
        """From the state for readers; from the sites, which costs requests, for whoever may change things."""
        refuses = {
            400: "Not a reference, or an unknown site",
            503: "The state or the sites could not be asked",
        }
        return [
            Route("GET", "/api/v1/why", self.serve, "read", "Why an image is, or is not, at its destinations", Answer,
                  parameters=(_REFERENCE, _AT), refuses=refuses),
            Route("POST", "/api/v1/why", self.serve_fresh, "change", "The same, from what the sites answer now", Answer,
                  takes=WhyOrder, refuses=refuses),
        ]  # fmt: skip

    async def serve(self, request: web.Request) -> web.Response:
        """The answer from the state."""
        reference = request.query.get("reference", "")
        return await self._answer(reference, request.query.get("at") or None, fresh=False)

    async def serve_fresh(self, request: web.Request) -> web.Response:
        """The answer from the sites."""
        order = await read_json(request, WhyOrder)
        return await self._answer(order.reference, order.at, fresh=True)

    async def _answer(self, reference: str, at: str | None, *, fresh: bool) -> web.Response:
        try:
            answer = await self._app.why(reference, at, fresh=fresh)
        except ValueError as error:
            raise Problem(400, str(error)) from None
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")
