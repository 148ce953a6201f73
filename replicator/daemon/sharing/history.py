"""Runs of the fleet: writes how this agent's runs ended to the database, and reads all agents' runs from it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec

from replicator.daemon.runs import shorten
from replicator.daemon.sharing.reports import MAX_TEXT, Gathered
from replicator.engine.result import RunResult
from replicator.errors import StateError
from replicator.fleet import runs as kept
from replicator.fleet.fleet import Fleet
from replicator.fleet.history import FailureAt, FleetRuns, OpenLook, PastRun, look_id
from replicator.fleet.looks import LookBegun
from replicator.ports import Clock
from replicator.report import combine
from replicator.runs.current import Run

_log = logging.getLogger(__name__)

READ_SECONDS: Final = 1.0
"""At least, between two reads."""
MAX_WAITING: Final = 1_000
"""Runs that are not written yet; beyond this, the oldest are dropped."""
FAILURES_SHOWN: Final = 20
_BEGAN_BEFORE: Final = float("-inf")


class RunHistory:
    """See the module.

    Args:
        fleet: the fleet.
        clock: this agent's.
    """

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock
        self._waiting: deque[PastRun] = deque(maxlen=MAX_WAITING)
        self._past: dict[int, PastRun] = {}
        self._newest = 0
        self._open: list[OpenLook] = []
        self._looks: dict[str, OpenLook] = {}
        self._read_at = _BEGAN_BEFORE

    def __call__(self) -> FleetRuns:
        """The fleet's runs as of the last `refresh`. Costs no I/O."""
        return FleetRuns(
            list(self._looks.values()), [self._past[number] for number in sorted(self._past, reverse=True)]
        )

    # --- what is written ---

    def note_look(self, look: LookBegun, started: float, agents: tuple[str, ...], gathered: Gathered) -> None:
        """A look has ended. `started`: epoch seconds by the database's clock."""
        ended = self._fleet.now()
        results = [] if gathered.result is None else [gathered.result]
        left_out = sum(shorten(each) for result in results for each in result.destinations)
        report = combine(results, gathered.counts, started_at=started, seconds=max(0.0, ended - started))
        if not results:
            report.outcome = "failed" if gathered.error else "interrupted"
        _log_end(look, agents, report)
        self._waiting.append(
            PastRun(
                id=look_id(look.rule, started),
                rule=look.rule,
                source=look.source,
                destinations=look.destinations,
                cause=look.cause,
                shards=look.shards,
                agents=agents,
                started=started,
                ended=ended,
                outcome=report.outcome,
                error=gathered.error,
                failures=_failures(report),
                report=msgspec.to_builtins(report),
                actions_left_out=left_out,
            )
        )

    def note_run(self, run: Run) -> None:
        """A run that belongs to no look has ended: one for single repositories, or for a shard with too many to name."""
        if run.report is None or run.ended_at is None:
            return
        skew = self._clock.now() - self._fleet.now()
        self._waiting.append(
            PastRun(
                id=run.id,
                rule=run.rule,
                source=run.source,
                destinations=run.destinations,
                cause=run.cause,
                repositories=None if run.scope is None else tuple(sorted(run.scope.repositories)),
                shard=None if run.shard is None or run.scope is not None else str(run.shard),
                agents=(self._fleet.me.name,),
                started=run.started_at - skew,
                ended=run.ended_at - skew,
                outcome=run.report.outcome,
                error=None if run.error is None else run.error[:MAX_TEXT],
                failures=_failures(run.report),
                report=msgspec.to_builtins(run.report),
                actions_left_out=run.actions_left_out,
            )
        )

    async def flush(self) -> None:
        """Writes what was noted. Raises StateError; then nothing is lost."""
        noted = list(self._waiting)
        if not noted:
            return
        async with self._fleet.connection("keep runs") as connection:
            await kept.keep(connection, noted)
        for run in noted:
            if self._waiting and self._waiting[0] is run:
                self._waiting.popleft()
        self._read_at = _BEGAN_BEFORE

    async def flush_at_the_end(self) -> None:
        """Writes what was noted, if the database is there."""
        try:
            await self.flush()
        except StateError as error:
            _log.warning("%d runs are missing in the history: %s", len(self._waiting), error)

    # --- what is read ---

    async def refresh(self) -> bool:
        """Reads what is new, at most once a second; False: nothing was, or it was not read. Raises StateError."""
        now = self._clock.monotonic()
        if now - self._read_at < READ_SECONDS:
            return False
        self._read_at = now
        async with self._fleet.connection("read runs") as connection:
            found = await kept.since(connection, self._newest)
            looks = await kept.open_looks(connection)
        is_news = not found.keys() <= self._past.keys() or looks != self._open
        self._open = looks
        skew = self._clock.now() - self._fleet.now()
        for number, run in found.items():
            if number not in self._past:
                self._past[number] = msgspec.structs.replace(
                    run, started=run.started + skew, ended=run.ended + skew
                )
        self._newest = max([self._newest, *found])
        for number in sorted(self._past)[: -kept.RUNS_KEPT]:
            del self._past[number]
        self._looks = {each.id: self._here(each, skew) for each in looks}
        return is_news

    async def report(self, run_id: str) -> RunResult | None:
        """The report of a run that has ended; None if it is not known any more. Raises StateError."""
        async with self._fleet.connection("read a report") as connection:
            found = await kept.report(connection, run_id)
        try:
            return None if found is None else msgspec.convert(found, RunResult)
        except msgspec.ValidationError:  # another version's
            return None

    def _here(self, look: OpenLook, skew: float) -> OpenLook:
        """With its start by this agent's clock, fixed for as long as the look is in progress."""
        known = self._looks.get(look.id)
        started = look.started + skew if known is None else known.started
        return replace(look, started=started)


def _log_end(look: LookBegun, agents: Sequence[str], report: RunResult) -> None:
    """One line for the whole run, at one agent: its shards are logged only where they did something."""
    tags = report.totals.tags
    fields = {
        "rule": look.rule,
        "destinations": ",".join(look.destinations),
        "cause": look.cause,
        "shards": look.shards,
        "agents": ",".join(agents),
        "outcome": report.outcome,
        "seconds": round(report.seconds, 1),
        "copied": tags.copied,
        "in_step": tags.unchanged,
        "held": tags.held,
        "failed": tags.failed,
    }
    _log.info("run ended", extra={"fields": fields})


def _failures(report: RunResult) -> tuple[FailureAt, ...]:
    found: Sequence[FailureAt] = [
        FailureAt(each.destination, failure)
        for rule in report.rules
        for each in rule.destinations
        for failure in each.failures
    ]
    return tuple(found[:FAILURES_SHOWN])
