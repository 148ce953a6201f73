"""The agent's status in the shapes of the API: the one source of API, stream and page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, Literal

from replicator import __version__
from replicator.daemon.http.agent import Agent
from replicator.daemon.http.api.agents import infos, moment
from replicator.daemon.http.api.live import Live
from replicator.daemon.http.api.runs import MAX_TEXT, RunFacts, is_at
from replicator.daemon.http.api.shapes import (
    AgentInfo,
    FlowInfo,
    LagInfo,
    RuleDestination,
    RuleInfo,
    RunInfo,
    SiteInfo,
    Status,
    Tags,
)
from replicator.daemon.status import RuleStatus
from replicator.policy.rule import Rule
from replicator.ports import Standing
from replicator.report import format_seconds
from replicator.runs.progress import DestinationProgress

FAILURES_SHOWN: Final = 20
BEHIND_SECONDS: Final = 60.0
"""Lag up to this is normal: changes are being copied."""

_Known = Mapping[tuple[str, str], tuple[Standing, float]]
_FlowState = Literal["ok", "behind", "failing", "paused", "new"]


class Facts:
    """Asks the agent at each call, without I/O."""

    def __init__(self, app: Agent, live: Live) -> None:
        self._app = app
        self._live = live
        self.runs = RunFacts(app, live)

    def status(self) -> Status:
        """Everything that the status page shows."""
        app = self._app
        running = self.runs.running()
        return Status(
            agent=app.config.agent.name,
            version=__version__,
            started_at=moment(app.started_at),
            problems=list(app.problems),
            sites=self.sites(),
            flows=self.flows(),
            rules=self._rules(running),
            running=running,
            moving=self._moving(),
            transfers=self._live.progress.transfers(),
            waits=self._live.progress.waits(),
            failures=list(islice(self.runs.failures(), FAILURES_SHOWN)),
            agents=self.agents(),
        )

    def agents(self) -> list[AgentInfo]:
        """The agents of the fleet; none if this one is not part of a fleet."""
        return [] if self._app.sharing is None else infos(self._app.sharing.roster)

    def rules(self) -> list[RuleInfo]:
        """The rules, in the config's order."""
        return self._rules(self.runs.running())

    def rule(self, name: str) -> RuleInfo | None:
        """One rule."""
        return next((each for each in self.rules() if each.rule == name), None)

    def lag(self) -> list[LagInfo]:
        """The lag of each rule at each destination that has been scanned."""
        known = self._known()
        return [
            LagInfo(rule, destination, round(known[rule, destination][1], 3))
            for rule, destination in self._pairs()
            if (rule, destination) in known
        ]

    def sites(self) -> list[SiteInfo]:
        """The sites of the rules, sources first."""
        rules = [each.rule for each in self._app.rules]
        roles: dict[str, list[Literal["source", "mirror", "destination"]]] = {}
        for rule in rules:
            _add(roles, rule.source, "source")
        for rule in rules:
            for mirror in rule.mirrors:
                _add(roles, mirror, "mirror")
            for destination in rule.destinations:
                _add(roles, destination, "destination")
        settings = self._app.config.sites
        return [
            SiteInfo(name, settings[name].url if name in settings else "", has, self._live.quotas.get(name))
            for name, has in roles.items()
        ]

    def flows(self) -> list[FlowInfo]:
        """One flow for each pair of source or mirror and destination."""
        known = self._known()
        flows: dict[tuple[str, str], list[RuleStatus]] = {}
        supplies: dict[tuple[str, str], list[RuleStatus]] = {}
        for each in self._app.rules:
            for destination in each.rule.destinations:
                flows.setdefault((each.rule.source, destination), []).append(each)
                for mirror in each.rule.mirrors:
                    supplies.setdefault((mirror, destination), []).append(each)
        return [
            *(self._flow(pair, rules, known, mirror=False) for pair, rules in flows.items()),
            *(
                self._flow(pair, rules, known, mirror=True)
                for pair, rules in supplies.items()
                if pair not in flows
            ),
        ]

    def _rules(self, running: Sequence[RunInfo]) -> list[RuleInfo]:
        known, latest = self._known(), self.runs.latest()
        of_rules: dict[str, list[RunInfo]] = {}
        for run in running:
            of_rules.setdefault(run.rule, []).append(run)
        return [
            _rule(each, known, of_rules.get(each.rule.name, []), latest.get(each.rule.name))
            for each in self._app.rules
        ]

    def _flow(
        self, pair: tuple[str, str], rules: list[RuleStatus], known: _Known, *, mirror: bool
    ) -> FlowInfo:
        there = [(known[key], each) for each in rules if (key := (each.rule.name, pair[1])) in known]
        lag = None if mirror or not there else round(max(seconds for (_, seconds), _ in there), 3)
        state: _FlowState = "ok"
        if all(each.paused for each in rules):
            state = "paused"
        elif mirror:
            state = "ok"
        elif lag is None:
            state = "new"
        elif any(standing.failed or standing.last_error for (standing, _), each in there if not each.paused):
            state = "failing"
        elif lag > BEHIND_SECONDS:
            state = "behind"
        return FlowInfo(
            *pair, mirror, [each.rule.name for each in rules], lag, round(self._live.rate(*pair), 1), state
        )

    def _moving(self) -> list[DestinationProgress]:
        running = [to for run in self._app.runs.running for to in run.destinations if to in run.left]
        return [self._live.progress.destination(to) for to in dict.fromkeys(running)]

    def _known(self) -> _Known:
        wanted = set(self._pairs())
        standings = {(each.rule, each.destination): (each, lag) for each, lag in self._app.standings()}
        return {pair: standing for pair, standing in standings.items() if pair in wanted}

    def _pairs(self) -> Iterator[tuple[str, str]]:
        for each in self._app.rules:
            for destination in each.rule.destinations:
                yield each.rule.name, destination


def _rule(status: RuleStatus, known: _Known, running: Sequence[RunInfo], latest: RunInfo | None) -> RuleInfo:
    rule = status.rule
    return RuleInfo(
        rule=rule.name,
        source=rule.source,
        mirrors=list(rule.mirrors),
        schedule=_schedule(rule),
        paused=status.paused,
        next_run=None if status.next_run is None else moment(status.next_run),
        running=[run.id for run in running],
        destinations=[
            _destination(
                each,
                known.get((rule.name, each)),
                status.backing_off.get(each),
                running=any(is_at(run, each) for run in running),
                untrusted=status.untrusted.get(each, {}),
            )
            for each in rule.destinations
        ],
        latest=latest,
    )


def _destination(
    name: str,
    known: tuple[Standing, float] | None,
    backs_off: float | None,
    *,
    running: bool,
    untrusted: Mapping[str, str],
) -> RuleDestination:
    until = None if backs_off is None else moment(backs_off)
    if known is None:
        return RuleDestination(name, running, None, None, None, None, None, until)
    standing, lag = known
    return RuleDestination(
        destination=name,
        running=running,
        lag_seconds=round(lag, 3),
        last_success=None if standing.last_success is None else moment(standing.last_success),
        last_look=None if standing.last_look is None else moment(standing.last_look),
        tags=Tags(standing.in_step, standing.held, standing.untried, standing.failed, standing.unknown),
        last_error=standing.last_error[:MAX_TEXT] or None,
        backing_off_until=until,
        oldest_pending=f"{standing.oldest_repository}:{standing.oldest_tag}" if standing.oldest_tag else None,
        untrusted=len(untrusted),
        untrusted_reason=next((f"{tag}: {why}"[:MAX_TEXT] for tag, why in sorted(untrusted.items())), None),
    )


def _schedule(rule: Rule) -> str | None:
    if rule.interval is not None:
        return f"every {format_seconds(rule.interval)}"
    return None if rule.cron is None else f"cron {rule.cron.expression}"


def _add(
    roles: dict[str, list[Literal["source", "mirror", "destination"]]],
    site: str,
    role: Literal["source", "mirror", "destination"],
) -> None:
    has = roles.setdefault(site, [])
    if role not in has:
        has.append(role)
