"""The JSON API, health checks and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain, islice
from typing import Any, Final

import msgspec
from aiohttp import hdrs, web

from replicator.daemon.http.agent import Agent
from replicator.daemon.http.api.agents import moment
from replicator.daemon.http.api.facts import Facts
from replicator.daemon.http.api.openapi import document
from replicator.daemon.http.api.shapes import (
    Accepted,
    Agents,
    Lags,
    Nothing,
    RuleInfo,
    Rules,
    RuleSyncOrder,
    RunDetail,
    RunsList,
    Sites,
    Status,
    SyncOrder,
    Wanted,
)
from replicator.daemon.http.auth import Doorkeeper
from replicator.daemon.http.bodies import read_json
from replicator.daemon.http.problems import Problem
from replicator.daemon.http.routes import Parameter, Route
from replicator.daemon.runs import RUNS_KEPT

_NAME: Final = Parameter("name", "path", "Name of the rule", {"type": "string", "minLength": 1})
_ID: Final = Parameter("id", "path", "Id of the run", {"type": "string", "minLength": 1})
_RULE: Final = Parameter("rule", "query", "Only runs of this rule", {"type": "string"})
_LIMIT: Final = Parameter(
    "limit",
    "query",
    "Maximum number of runs",
    {"type": "integer", "minimum": 1, "maximum": RUNS_KEPT, "default": 50},
)
_NO_RULE: Final = {404: "Unknown rule"}


class API:
    """The API's routes."""

    def __init__(self, app: Agent, facts: Facts, door: Doorkeeper) -> None:
        self._app = app
        self._facts = facts
        self._door = door

    def routes(self) -> list[Route]:
        """All routes except events and webhooks."""
        return [
            Route("GET", "/healthz", self.healthz, "health", "Whether the process is alive", "text/plain"),
            Route("GET", "/readyz", self.readyz, "health", "Whether the agent can replicate", "text/plain",
                  refuses={503: "The agent cannot replicate"}),
            Route("GET", "/metrics", self.metrics, "metrics", "Prometheus metrics, OpenMetrics where accepted",
                  "text/plain"),
            Route("GET", "/api/v1/status", self.status, "read", "Everything that the status page shows", Status),
            Route("GET", "/api/v1/rules", self.rules, "read", "The rules", Rules),
            Route("GET", "/api/v1/rules/{name}", self.rule, "read", "One rule", RuleInfo,
                  parameters=(_NAME,), refuses=_NO_RULE),
            Route("GET", "/api/v1/runs", self.runs, "read", "Runs in progress, and the latest that ended", RunsList,
                  parameters=(_RULE, _LIMIT), refuses={400: "Invalid query"}),
            Route("GET", "/api/v1/runs/{id}", self.run, "read", "One run with its report", RunDetail,
                  parameters=(_ID,), refuses={404: "Unknown run, or one that is no longer remembered"}),
            Route("GET", "/api/v1/sites", self.sites, "read", "The sites of the rules", Sites),
            Route("GET", "/api/v1/lag", self.lag, "read", "Lag of each destination", Lags),
            Route("GET", "/api/v1/agents", self.agents, "read", "The agents of the fleet", Agents),
            Route("POST", "/api/v1/sync", self.sync, "change", "Run rules as soon as possible", Accepted,
                  status=202, takes=SyncOrder, refuses={**_NO_RULE, 409: "No rule accepts the request"}),
            Route("POST", "/api/v1/rules/{name}/sync", self.sync_rule, "change", "Run a rule as soon as possible",
                  Accepted, status=202, takes=RuleSyncOrder, parameters=(_NAME,),
                  refuses={**_NO_RULE, 409: "The rule does not accept the request"}),
            Route("POST", "/api/v1/rules/{name}/pause", self.pause, "change", "Pause a rule: no run starts until `resume`",
                  RuleInfo, takes=Nothing, parameters=(_NAME,), refuses=_NO_RULE),
            Route("POST", "/api/v1/rules/{name}/resume", self.resume, "change", "Resume a paused rule",
                  RuleInfo, takes=Nothing, parameters=(_NAME,), refuses=_NO_RULE),
        ]  # fmt: skip

    async def healthz(self, _: web.Request) -> web.Response:
        """200 while the process is alive and schedules runs, else 503."""
        return web.Response(text="ok\n") if self._app.health() is None else _plain(503, "unhealthy\n")

    async def readyz(self, request: web.Request) -> web.Response:
        """200 if nothing prevents replication; else 503, with the reasons for clients that may read them."""
        reasons = self._app.ready()
        if not reasons:
            return web.Response(text="ready\n")
        told = self._door.trusts(request, self._app.config.http)
        return _plain(503, "\n".join(["not ready", *(reasons if told else ())]) + "\n")

    async def metrics(self, request: web.Request) -> web.Response:
        """The metrics in the format that the scraper accepts."""
        self._app.metrics.know_hooks(self._app.config.webhooks)
        accept = request.headers.get(hdrs.ACCEPT, "")
        # A thousand rules are megabytes of text and most of a second, so not on the event loop.
        body, content_type = await asyncio.to_thread(self._app.metrics.negotiate, accept)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})

    async def status(self, _: web.Request) -> web.Response:
        """Everything that the status page shows."""
        return _json(self._facts.status())

    async def rules(self, _: web.Request) -> web.Response:
        """The rules."""
        return _json(Rules(self._facts.rules()))

    async def rule(self, request: web.Request) -> web.Response:
        """One rule."""
        return _json(self._named(request))

    async def runs(self, request: web.Request) -> web.Response:
        """Runs in progress, then those that ended, latest first."""
        rule, limit = request.query.get("rule"), _limit(request)
        wanted = (
            each
            for each in chain(self._facts.runs.running(), self._facts.runs.ended())
            if rule is None or each.rule == rule
        )
        return _json(RunsList(list(islice(wanted, limit))))

    async def run(self, request: web.Request) -> web.Response:
        """One run with its report."""
        detail = await self._facts.runs.detail(request.match_info["id"])
        if detail is None:
            raise Problem(404, "unknown run, or one that is no longer remembered")
        return _json(detail)

    async def sites(self, _: web.Request) -> web.Response:
        """The sites."""
        return _json(Sites(self._facts.sites()))

    async def lag(self, _: web.Request) -> web.Response:
        """The lag of each rule at each destination."""
        return _json(Lags(self._facts.lag()))

    async def agents(self, _: web.Request) -> web.Response:
        """The agents of the fleet."""
        return _json(Agents(self._facts.agents()))

    async def sync(self, request: web.Request) -> web.Response:
        """Runs rules as soon as possible."""
        order = await read_json(request, SyncOrder)
        known = [each.rule.name for each in self._app.rules]
        if unknown := set(order.rules or ()).difference(known):
            raise Problem(404, f"unknown rule {min(unknown)!r}")
        names = known if order.rules is None else list(dict.fromkeys(order.rules))
        return self._submit(order, names)

    async def sync_rule(self, request: web.Request) -> web.Response:
        """Runs one rule as soon as possible."""
        name = self._named(request).rule
        return self._submit(await read_json(request, RuleSyncOrder), [name])

    async def pause(self, request: web.Request) -> web.Response:
        """Starts no run of the rule until `resume`."""
        await read_json(request, Nothing)
        await self._app.pause(self._named(request).rule)
        return _json(self._named(request))

    async def resume(self, request: web.Request) -> web.Response:
        """Runs the rule again."""
        await read_json(request, Nothing)
        await self._app.resume(self._named(request).rule)
        return _json(self._named(request))

    def _submit(self, order: RuleSyncOrder, names: Sequence[str]) -> web.Response:
        if problem := order.problem():
            raise Problem(400, problem)
        tags = None if order.tags is None else frozenset(order.tags)
        at = self._app.clock.now()
        taken = {
            name
            for name in names
            if self._app.triggers.submit(
                name,
                cause="api",
                repositories=None if order.repository is None else {order.repository: tags},
                destinations=order.destinations,
                recheck=order.recheck,
            )
        }
        if not taken:
            raise Problem(
                409,
                "no rule accepts the request: each is paused, or does not select the repository or the destinations",
            )
        wanted = [
            Wanted(each.rule.name, _destinations(each.rule.destinations, order.destinations))
            for each in self._app.rules
            if each.rule.name in taken
        ]
        return _json(Accepted(moment(at), wanted, [name for name in names if name not in taken]), status=202)

    def _named(self, request: web.Request) -> RuleInfo:
        rule = self._facts.rule(request.match_info["name"])
        if rule is None:
            raise Problem(404, "unknown rule")
        return rule


def openapi(routes: Sequence[Route]) -> Route:
    """The route of the document that describes these routes, and itself."""

    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    own = Route("GET", "/api/v1/openapi.json", serve, "read", "This document", "application/json")
    body = msgspec.json.format(msgspec.json.encode(document([*routes, own])), indent=1)
    return own


def _destinations(all_of_them: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    return [each for each in all_of_them if wanted is None or each in wanted]


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", "50")
    if not text.isascii() or not text.isdecimal() or len(text) > 4 or not 1 <= int(text) <= RUNS_KEPT:
        raise Problem(400, f"limit must be a number from 1 to {RUNS_KEPT}")
    return int(text)


def _json(shape: Any, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode(shape),
        content_type="application/json",
        headers={hdrs.CACHE_CONTROL: "no-store"},
    )


def _plain(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text)
