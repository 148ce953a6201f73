"""Runs in the shapes of the API: this agent's, and in a fleet those of all agents."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final

from replicator.daemon.http.agent import Agent
from replicator.daemon.http.api.agents import moment
from replicator.daemon.http.api.live import Live
from replicator.daemon.http.api.shapes import FailureInfo, RunDetail, RunInfo, RunProgress, ShardsInfo
from replicator.engine.result import Failure
from replicator.fleet.history import FleetRuns, OpenLook, PastRun
from replicator.fleet.roster import Agent as Colleague
from replicator.fleet.roster import Doing, Roster
from replicator.runs.current import Run

MAX_TEXT: Final = 500
"""Characters of a cause, which may quote a registry."""


class RunFacts:
    """Asks the agent at each call; without I/O but for `detail`."""

    def __init__(self, app: Agent, live: Live) -> None:
        self._app = app
        self._live = live

    def running(self) -> list[RunInfo]:
        """Runs in progress: those that agents divide among them, then this agent's, then those of others."""
        mine = [self._run(each) for each in self._app.runs.running]
        sharing = self._app.sharing
        if sharing is None:
            return mine
        looks = [_look(each, sharing.roster) for each in sharing.history().looks]
        return [*looks, *mine, *_of_others(sharing.roster, self._app.config.agent.name)]

    def ended(self) -> Iterator[RunInfo]:
        """Runs that ended, the latest first."""
        if self._app.sharing is not None:
            return map(_past, self._fleet().past)
        return map(self._run, self._app.runs.recent)

    def latest(self) -> dict[str, RunInfo]:
        """In a fleet, by rule the run of the whole rule that is in progress, else the last that ended."""
        found: dict[str, RunInfo] = {}
        if (sharing := self._app.sharing) is not None:
            runs = self._fleet()
            for each in runs.past:
                if each.shards is not None and each.rule not in found:
                    found[each.rule] = _past(each)
            found.update((each.rule, _look(each, sharing.roster)) for each in runs.looks)
        return found

    async def detail(self, run_id: str) -> RunDetail | None:
        """A run with its report; None if it is not known any more. Raises StateError."""
        run = self._app.runs.get(run_id)
        if run is not None:
            return RunDetail(self._run(run), run.report, run.actions_left_out)
        going = next((each for each in self.running() if each.id == run_id), None)
        if going is not None:
            return RunDetail(going, None, 0)
        past = next((each for each in self._fleet().past if each.id == run_id), None)
        if past is None or self._app.sharing is None:
            return None
        report = await self._app.sharing.history.report(run_id)
        return RunDetail(_past(past), report, past.actions_left_out)

    def failures(self) -> Iterator[FailureInfo]:
        """The failures of remembered runs, the latest run first; those of this agent's runs in progress before them."""
        runs = self._app.runs
        in_progress = map(_failures, reversed(runs.running))
        if self._app.sharing is None:
            ended = map(_failures, runs.recent)
        else:
            ended = map(_past_failures, self._fleet().past)
        return chain.from_iterable(chain(in_progress, ended))

    def _fleet(self) -> FleetRuns:
        return FleetRuns() if self._app.sharing is None else self._app.sharing.history()

    def _run(self, run: Run) -> RunInfo:
        return RunInfo(
            id=run.id,
            rule=run.rule,
            source=run.source,
            destinations=list(run.destinations),
            cause=run.cause,
            repositories=None if run.scope is None else sorted(run.scope.repositories),
            started_at=moment(run.started_at),
            ended_at=None if run.ended_at is None else moment(run.ended_at),
            outcome=None if run.report is None else run.report.outcome,
            error=None if run.error is None else run.error[:MAX_TEXT],
            progress=[] if run.report is not None else [self._progress(run, to) for to in run.destinations],
            agents=[self._app.config.agent.name],
            shard=None if run.shard is None else str(run.shard),
        )

    def _progress(self, run: Run, destination: str) -> RunProgress:
        progress = self._live.progress
        count, at = progress.count(run.rule, destination), progress.destination(destination)
        return RunProgress(
            destination=destination,
            done=destination not in run.left,
            tags_planned=count.planned,
            tags_done=count.done,
            tags_failed=count.failed,
            bytes_planned=at.bytes_planned,
            bytes_moved=at.bytes_moved,
            bytes_per_second=at.rate,
            seconds_left=at.seconds_left,
            scan=next((each for each in progress.scans() if each.rule == run.rule), None),
            tags_postponed=count.postponed,
        )


def is_at(run: RunInfo, destination: str) -> bool:
    """Whether a run in progress is not through with the destination, as far as that is known."""
    if not run.progress:
        return destination in run.destinations
    return any(each.destination == destination and not each.done for each in run.progress)


def _of_others(roster: Roster, me: str) -> Iterator[RunInfo]:
    for agent in roster.agents:
        if agent.name != me and roster.state(agent) != "lost":
            for each in agent.doing:
                yield _doing(roster, agent, each)


def _doing(roster: Roster, agent: Colleague, doing: Doing) -> RunInfo:
    return RunInfo(
        id=doing.id,
        rule=doing.rule,
        source=doing.source,
        destinations=list(doing.destinations),
        cause=doing.cause,
        repositories=list(doing.repositories) or None,
        started_at=moment(roster.moment(agent, doing.since)),
        ended_at=None,
        outcome=None,
        error=None,
        progress=[],
        agents=[agent.name],
        shard=doing.shard or None,
    )


def _look(look: OpenLook, roster: Roster) -> RunInfo:
    agents = [
        agent.name
        for agent in roster.agents
        if roster.state(agent) != "lost" and any(each.rule == look.rule for each in agent.doing)
    ]
    return RunInfo(
        id=look.id,
        rule=look.rule,
        source=look.source,
        destinations=list(look.destinations),
        cause=look.cause,
        repositories=None,
        started_at=moment(look.started),
        ended_at=None,
        outcome=None,
        error=None,
        progress=[],
        agents=agents,
        shards=ShardsInfo(look.shards, look.through),
    )


def _past(run: PastRun) -> RunInfo:
    return RunInfo(
        id=run.id,
        rule=run.rule,
        source=run.source,
        destinations=list(run.destinations),
        cause=run.cause,
        repositories=None if run.repositories is None else list(run.repositories),
        started_at=moment(run.started),
        ended_at=moment(run.ended),
        outcome=run.outcome,
        error=None if run.error is None else run.error[:MAX_TEXT],
        progress=[],
        agents=list(run.agents),
        shard=run.shard,
        shards=None if run.shards is None else ShardsInfo(run.shards, run.shards),
    )


def _failures(run: Run) -> Iterator[FailureInfo]:
    at = run.started_at if run.ended_at is None else run.ended_at
    if run.error is not None:
        yield _broken(at, run.rule, run.source, run.error)
    for result in run.results():
        for each in result.failures:
            yield _failure(at, run.rule, result.destination, each)


def _past_failures(run: PastRun) -> Iterator[FailureInfo]:
    if run.error is not None:
        yield _broken(run.ended, run.rule, run.source, run.error)
    for each in run.failures:
        yield _failure(run.ended, run.rule, each.destination, each.failure)


def _broken(at: float, rule: str, source: str, error: str) -> FailureInfo:
    return FailureInfo(moment(at), rule, "", source, None, "run", error[:MAX_TEXT])


def _failure(at: float, rule: str, destination: str, failure: Failure) -> FailureInfo:
    return FailureInfo(
        moment(at),
        rule,
        destination,
        failure.site,
        failure.repository,
        failure.operation,
        failure.cause[:MAX_TEXT],
    )
