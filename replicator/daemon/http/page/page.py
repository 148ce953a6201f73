"""The status page: facts without JavaScript, kept up to date with it.

The script asks for this same page again when the stream says that something changed, and replaces the sections that
differ: markup is made in one place, and everything in it that a registry said is escaped there.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from aiohttp import hdrs, web

from replicator.daemon.http.api.facts import BEHIND_SECONDS, Facts
from replicator.daemon.http.api.shapes import (
    FailureInfo,
    RuleDestination,
    RuleInfo,
    RunInfo,
    RunProgress,
    Status,
)
from replicator.daemon.http.page.markup import Child, Markup, element, join
from replicator.daemon.http.page.sitemap import draw
from replicator.daemon.http.routes import Route
from replicator.ports import Clock
from replicator.report import format_bytes, format_seconds

_STATIC: Final = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
_WHOLE: Final = 20


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
        """One of its files; asked for again, it is not sent again."""
        name = request.match_info["name"]
        if name not in self._static:
            raise web.HTTPNotFound
        body = self._static[name]
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        headers = {hdrs.ETAG: tag, hdrs.CACHE_CONTROL: "no-cache"}
        if request.headers.get(hdrs.IF_NONE_MATCH) == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type=_STATIC[name], charset="utf-8", headers=headers)


def render(status: Status, now: float) -> str:
    """The whole page."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{_summary(status)[0]} · {status.agent} · replicator"),
        element("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
        element("link", rel="stylesheet", href="/static/page.css"),
        element("script", src="/static/page.js", defer=True),
    )
    body = element(
        "body",
        element("a", "To the rules", href="#rules", class_="skip"),
        _header(status, now),
        element(
            "main",
            _problems(status),
            _map(status),
            _running(status, now),
            _rules(status, now),
            _failures(status, now),
        ),
        element(
            "footer",
            "Also here: ",
            element("a", "metrics", href="/metrics"),
            ", ",
            element("a", "API", href="/api/v1/openapi.json"),
            ".",
        ),
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en")


def _header(status: Status, now: float) -> Markup:
    word, kind = _summary(status)
    up = format_seconds(max(0.0, now - _epoch(status.started_at)))
    return element(
        "header",
        element("h1", "replicator ", element("span", status.agent)),
        element("p", word, class_=f"pill {kind}", id="summary", role="status"),
        element("p", f"{status.version} · up {up}", class_="quiet", id="uptime"),
        element("p", "as of ", _clock_time(now), class_="quiet", id="as-of"),
    )


def _summary(status: Status) -> tuple[str, str]:
    """The whole in a word or two, and its colour."""
    states = [flow.state for flow in status.flows]
    if status.problems:
        return "in trouble", "failing"
    if failing := states.count("failing"):
        return f"{failing} failing", "failing"
    if behind := states.count("behind"):
        return f"{behind} behind", "behind"
    if "new" in states:
        return "starting", "new"
    return ("in step", "ok") if set(states) - {"paused"} else ("paused" if states else "no rules", "paused")


def _problems(status: Status) -> Markup:
    items = [element("li", each) for each in status.problems]
    return element("section", element("ul", items) if items else None, id="problems", class_="problems")


def _map(status: Status) -> Markup:
    quotas = [
        element("li", f"{site.site}: {site.pulls_left} pulls left in its quota")
        for site in status.sites
        if site.pulls_left is not None
    ]
    return element(
        "section",
        element("h2", "Sites"),
        element(
            "div",
            draw(status.sites, status.flows),
            class_="wide",
            tabindex="0",
            role="region",
            aria_label="Map of sites",
        ),
        element("ul", quotas, class_="quiet") if quotas else None,
        id="sites",
    )


def _running(status: Status, now: float) -> Markup:
    rows = [_running_row(run, each, now) for run in status.running for each in run.progress]
    content = (
        _table(("Rule", "To", "Because of", "For", "Tags", "Bytes", "Rate"), rows)
        if rows
        else element("p", "Nothing is running.", class_="quiet")
    )
    return element("section", element("h2", "Running"), content, id="running")


def _running_row(run: RunInfo, at: RunProgress, now: float) -> Sequence[Child]:
    what = run.cause if run.repositories is None else f"{run.cause}: {', '.join(run.repositories[:3])}"
    if run.repositories is not None and len(run.repositories) > 3:
        what += f" and {len(run.repositories) - 3} more"
    if at.done:
        tags = join((f"{at.tags_done}, done",))
    elif at.tags_planned:
        text = f"{at.tags_done} of {at.tags_planned}"
        bar = element(
            "progress",
            text,
            value=at.tags_done,
            max=at.tags_planned,
            aria_label=f"Tags copied to {at.destination}",
        )
        tags = element("span", bar, " ", text)
    else:
        tags = element("span", "looking", class_="quiet")
    if at.tags_failed:
        tags = element("span", tags, " ", element("span", f"{at.tags_failed} failed", class_="failing"))
    return (
        _whole(run.rule),
        _whole(at.destination),
        what,
        format_seconds(max(0.0, now - _epoch(run.started_at))),
        tags,
        _bytes(at),
        "-" if at.done else f"{format_bytes(at.bytes_per_second)}/s",
    )


def _bytes(at: RunProgress) -> str:
    """What has moved, and at most how much will: what the destination has already does not move."""
    written = format_bytes(at.bytes_written)
    if at.done or at.bytes_planned <= at.bytes_written:
        return written
    return f"{written} of at most {format_bytes(at.bytes_planned)}"


def _rules(status: Status, now: float) -> Markup:
    rows = [_rule_row(rule, each, now) for rule in status.rules for each in rule.destinations]
    return element(
        "section",
        element("h2", "Rules"),
        _table(("Rule", "From", "To", "State", "Lag", "Tags", "Last success", "Next run"), rows)
        if rows
        else element("p", "No rule has a destination that this agent serves.", class_="quiet"),
        id="rules",
    )


def _rule_row(rule: RuleInfo, at: RuleDestination, now: float) -> Sequence[Child]:
    return (
        element("strong", _whole(rule.rule)),
        _whole(rule.source),
        _whole(at.destination),
        _state(rule, at),
        _whole(
            "-" if at.lag_seconds is None else format_seconds(at.lag_seconds) if at.lag_seconds else "0 s"
        ),
        _tags(at),
        _moment(at.last_success, now, "never"),
        "paused" if rule.paused else join((_moment(rule.next_run, now, "-"), _schedule(rule))),
    )


def _schedule(rule: RuleInfo) -> Markup | None:
    return element("small", _whole(rule.schedule), class_="quiet") if rule.schedule else None


def _state(rule: RuleInfo, at: RuleDestination) -> Markup:
    """The state, and why where it fails: its run may be long forgotten, or of an agent before this one."""
    word, kind = _state_words(rule, at)
    failing = kind == "failing" and at.last_error
    cause = element("small", at.last_error, class_="cause long") if failing else None
    return join((element("span", word, class_=f"pill {kind}"), cause))


def _state_words(rule: RuleInfo, at: RuleDestination) -> tuple[str, str]:
    """The state in a word or two, and its colour. That it fails is said while it is tried again, too."""
    if rule.paused:
        return "paused", "paused"
    if at.last_error or (at.tags is not None and at.tags.failed):
        return f"failing{', runs' if at.running else ', waits' if at.backing_off_until else ''}", "failing"
    if at.running:
        return "running", "moving"
    if at.lag_seconds is None:
        return "not looked yet", "new"
    if at.lag_seconds > BEHIND_SECONDS or (at.tags is not None and at.tags.pending):
        return "behind", "behind"
    return "in step", "ok"


def _tags(at: RuleDestination) -> Child:
    if at.tags is None:
        return "-"
    counts = (
        ("in step", at.tags.in_step),
        ("pending", at.tags.pending),
        ("failed", at.tags.failed),
        ("held", at.tags.held),
    )
    shown = [_whole(f"{count} {word}") for word, count in counts if count or word == "in step"]
    return element("span", shown[0], *((", ", each) for each in shown[1:]))


def _failures(status: Status, now: float) -> Markup:
    rows = [_failure_row(each, now) for each in status.failures]
    content = (
        _table(("When", "Rule", "To", "Where", "What", "Cause"), rows)
        if rows
        else element("p", "None in the runs that are remembered.", class_="quiet")
    )
    return element("section", element("h2", "Recent failures"), content, id="failures")


def _failure_row(failure: FailureInfo, now: float) -> Sequence[Child]:
    where = f"{failure.site}: {failure.repository}" if failure.repository else failure.site
    return (
        _moment(failure.at, now, ""),
        _whole(failure.rule),
        _whole(failure.destination or "-"),
        element("span", where, class_="long"),
        failure.operation,
        element("span", failure.cause, class_="long"),
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[Child]]) -> Markup:
    """A table whose cells know their column's name, so that narrow screens can stack them."""
    return element(
        "table",
        element("thead", element("tr", [element("th", head, scope="col") for head in heads])),
        element(
            "tbody",
            [
                element(
                    "tr",
                    [element("td", cell, data_label=head) for head, cell in zip(heads, row, strict=True)],
                )
                for row in rows
            ],
        ),
    )


def _whole(text: str) -> Markup:
    """A short text that is not broken where lines end, as browsers do after each hyphen of a name."""
    return element("span", text, class_="whole" if len(text) <= _WHOLE else "long")


def _moment(at: str | None, now: float, never: str) -> Child:
    """A time by how far away it is; the time itself as tooltip."""
    if at is None:
        return never
    apart = _epoch(at) - now
    text = f"in {format_seconds(apart)}" if apart > 0 else f"{format_seconds(-apart)} ago"
    return element("time", "now" if abs(apart) < 0.95 else text, datetime=at, title=at)


def _clock_time(now: float) -> Markup:
    at = dt.datetime.fromtimestamp(now, dt.UTC)
    return element("time", f"{at:%H:%M:%S} UTC", datetime=at.isoformat(timespec="seconds"))


def _epoch(at: str) -> float:
    return dt.datetime.fromisoformat(at).timestamp()
