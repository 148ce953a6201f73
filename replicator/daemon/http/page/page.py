"""The status page: complete without JavaScript, kept up to date with it.

The script asks for this same page again when the stream says that something changed, and replaces the sections that
differ. So HTML is made in one place, by Jinja2 with autoescape, which escapes everything that a registry said.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Final
from urllib.parse import urlencode

from aiohttp import hdrs, web
from jinja2 import Environment, PackageLoader, StrictUndefined

from replicator.daemon.http.api.agents import moment
from replicator.daemon.http.api.facts import BEHIND_SECONDS, Facts
from replicator.daemon.http.api.shapes import (
    AgentInfo,
    RuleDestination,
    RuleInfo,
    RunInfo,
    RunProgress,
    Status,
)
from replicator.daemon.http.page.sitemap import draw
from replicator.daemon.http.routes import Route
from replicator.fleet.roster import SKEW_SECONDS
from replicator.ports import Clock
from replicator.report import format_bytes, format_seconds

_STATIC: Final = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
_REPOSITORIES_SHOWN: Final = 3
_NOW_SECONDS: Final = 0.95
"""What is nearer than this is "now"."""

_COLOURS: Final = {"working": "ok", "draining": "behind", "lost": "failing", "unknown": "paused"}


class Page:
    """The page and its files."""

    def __init__(self, facts: Facts, clock: Clock) -> None:
        self._facts = facts
        self._clock = clock
        folder = files("replicator.daemon.http.page") / "static"
        self._static = {name: (folder / name).read_bytes() for name in _STATIC}

    def routes(self) -> list[Route]:
        """What serves them."""
        return [
            Route("GET", "/", self.serve, "read", "The status page", "text/html", hidden=True),
            Route("GET", "/static/{name}", self.serve_static, "read", "Its files", "text/css", hidden=True),
        ]

    async def serve(self, _: web.Request) -> web.Response:
        """The page as it is now."""
        text = render(self._facts.status(), self._clock.now())
        return web.Response(
            text=text, content_type="text/html", charset="utf-8", headers={hdrs.CACHE_CONTROL: "no-store"}
        )

    async def serve_static(self, request: web.Request) -> web.Response:
        """One of its files; a client that has it is answered 304."""
        name = request.match_info["name"]
        if name not in self._static:
            raise web.HTTPNotFound
        body = self._static[name]
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        headers = {hdrs.ETAG: tag, hdrs.CACHE_CONTROL: "no-cache"}
        if request.headers.get(hdrs.IF_NONE_MATCH) == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type=_STATIC[name], charset="utf-8", headers=headers)


@dataclass(frozen=True, slots=True)
class Summary:
    """The overall state in a word or two; `kind` is its colour."""

    word: str
    kind: str


@dataclass(frozen=True, slots=True)
class RunRow:
    """A row of the table of runs in progress. `at` None: its progress is unknown, or known only by its shards."""

    run: RunInfo
    to: str
    at: RunProgress | None
    cause: str


@dataclass(frozen=True, slots=True)
class AgentRow:
    """A row of the table of the fleet's agents. `skew`: what is wrong with its clock; None: nothing."""

    agent: AgentInfo
    kind: str
    skew: str | None


@dataclass(frozen=True, slots=True)
class RuleRow:
    """A row of the table of rules.

    `shards`: in a fleet, how far the run of the rule is, or how the last one ended. `cause`: why it fails, even if its run is
    no longer remembered. `why`: the page that explains the tag that has been pending longest, or what is pending.
    """

    rule: RuleInfo
    at: RuleDestination
    state: str
    kind: str
    cause: str | None
    lag: str
    why: str
    shards: str | None


def render(status: Status, now: float) -> str:
    """The whole page, as of `now` (epoch seconds)."""
    return render_template(
        "status.html",
        status=status,
        now=now,
        summary=summarize(status),
        map=draw(status.sites, status.flows),
        quotas=[site for site in status.sites if site.pulls_left is not None],
        running=[row for run in status.running for row in _run_rows(run)],
        rules=list(_rule_rows(status)),
        agents=[AgentRow(each, _COLOURS[each.state], _skew(each)) for each in status.agents],
    )


def render_template(name: str, **facts: object) -> str:
    """A page of the templates, everything in it escaped."""
    return _templates.get_template(name).render(**facts)


def summarize(status: Status) -> Summary:
    """The worst state of any flow."""
    states = [flow.state for flow in status.flows]
    if status.problems:
        return Summary("problems", "failing")
    if failing := states.count("failing"):
        return Summary(f"{failing} failing", "failing")
    if behind := states.count("behind"):
        return Summary(f"{behind} behind", "behind")
    if "new" in states:
        return Summary("starting", "new")
    if set(states) - {"paused"}:
        return Summary("in step", "ok")
    return Summary("paused" if states else "no rules", "paused")


def _skew(agent: AgentInfo) -> str | None:
    seconds = agent.clock_skew_seconds
    if abs(seconds) <= SKEW_SECONDS:
        return None
    return f"clock {format_seconds(abs(seconds))} {'ahead' if seconds > 0 else 'behind'}"


def _run_rows(run: RunInfo) -> list[RunRow]:
    if not run.progress:
        return [RunRow(run, ", ".join(run.destinations), None, _cause(run))]
    return [RunRow(run, at.destination, at, _cause(run)) for at in run.progress]


def _cause(run: RunInfo) -> str:
    if run.repositories is None:
        return run.cause
    shown = ", ".join(run.repositories[:_REPOSITORIES_SHOWN])
    more = len(run.repositories) - _REPOSITORIES_SHOWN
    return f"{run.cause}: {shown}{f' and {more} more' if more > 0 else ''}"


def _rule_rows(status: Status) -> Iterator[RuleRow]:
    for rule in status.rules:
        for at in rule.destinations:
            state, kind = _state(rule, at)
            yield RuleRow(
                rule, at, state, kind, _cause_of(at, kind), _lag(at), _why(rule, at), _shards(rule, at)
            )


def _shards(rule: RuleInfo, at: RuleDestination) -> str | None:
    run = rule.latest
    if run is None or run.shards is None or at.destination not in run.destinations:
        return None
    if run.ended_at is None:
        return f"{run.shards.ended} of {run.shards.count} shards"
    return f"last run: {run.outcome}, by {', '.join(run.agents)}"


def _why(rule: RuleInfo, at: RuleDestination) -> str:
    oldest = {"reference": f"{at.destination}/{at.oldest_pending}"} if at.oldest_pending else {}
    return "/why?" + urlencode(oldest | {"at": at.destination, "rule": rule.rule})


def _cause_of(at: RuleDestination, kind: str) -> str | None:
    """What keeps it from being in step: the last error, the tag that holds the lag, and images that are not trusted."""
    parts = [at.last_error] if kind == "failing" and at.last_error else []
    if at.oldest_pending and kind in {"failing", "behind"}:
        parts.append(f"oldest pending tag: {at.oldest_pending}")
    if at.untrusted:
        others = f" (and {at.untrusted - 1} more)" if at.untrusted > 1 else ""
        parts.append(f"not trusted, held: {at.untrusted_reason}{others}")
    return "; ".join(parts) or None


def _lag(at: RuleDestination) -> str:
    if at.lag_seconds is None:
        return "-"
    return format_seconds(at.lag_seconds) if at.lag_seconds else "0 s"


def _state(rule: RuleInfo, at: RuleDestination) -> tuple[str, str]:
    """The state in a word or two, and its colour. A failing rule is shown as failing while it is retried, too."""
    if rule.paused:
        return "paused", "paused"
    if at.last_error or (at.tags is not None and at.tags.failed):
        return f"failing{', runs' if at.running else ', waits' if at.backing_off_until else ''}", "failing"
    if at.running:
        return "running", "moving"
    if at.lag_seconds is None:
        return "not scanned yet", "new"
    if at.lag_seconds > BEHIND_SECONDS or (at.tags is not None and at.tags.pending):
        return "behind", "behind"
    return "in step", "ok"


def _apart(at: dt.datetime, now: float) -> str:
    apart = at.timestamp() - now
    if abs(apart) < _NOW_SECONDS:
        return "now"
    return f"in {format_seconds(apart)}" if apart > 0 else f"{format_seconds(-apart)} ago"


def _clock_time(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%H:%M:%S UTC")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("replicator.daemon.http.page"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {
        "apart": _apart,
        "bytes": format_bytes,
        "clock": _clock_time,
        "moment": moment,
        "number": "{:g}".format,
        "rfc3339": lambda at: at.isoformat(timespec="milliseconds"),
        "seconds": lambda seconds: format_seconds(max(0.0, seconds)),
    }
    return environment


_templates: Final = _environment()
