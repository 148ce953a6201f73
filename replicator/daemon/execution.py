"""Runs in progress: begun, told what happens at their destinations, and ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

from replicator.daemon.generation import Generation
from replicator.daemon.lanes import ActiveRun, Lane
from replicator.daemon.runs import Runs
from replicator.daemon.triggers import Triggers, Want
from replicator.engine.accounting import counted
from replicator.engine.context import DRAIN_SECONDS, RunListener, RunScope
from replicator.engine.result import DestinationResult, Outcome, RuleResult
from replicator.errors import ReplicatorError
from replicator.policy.rule import Rule
from replicator.ports import Assignment, Clock
from replicator.runs.current import Run, context_of
from replicator.runs.hooks import HOOK_SECONDS

_log = logging.getLogger(__name__)


class Execution:
    """The runs in progress.

    Args:
        clock: the time.
        runs: told of every run.
        triggers: get what a run has to leave for later.
        lane: the lane of a rule and destination.
        wake: called when something may begin that could not before.
        on_change: called whenever a run began, or ended at a destination.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        runs: Runs,
        triggers: Triggers,
        lane: Callable[[str, str], Lane],
        wake: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._runs = runs
        self._triggers = triggers
        self._lane = lane
        self._wake = wake
        self._on_change = on_change
        self._tasks: dict[asyncio.Task[None], ActiveRun] = {}
        self._stopping = False

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """One for each run in progress."""
        return set(self._tasks)

    def __iter__(self) -> Iterator[ActiveRun]:
        """The runs in progress."""
        return iter(list(self._tasks.values()))

    def stop(self) -> None:
        """Drains all runs, also those that begin later."""
        self._stopping = True
        for active in self:
            active.drain.set()

    def end_stuck(self, run: Run, problem: str) -> bool:
        """See `Scheduler.end_stuck`."""
        for task, active in self._tasks.items():
            if active.run is run and active.stuck is None:
                active.stuck = problem
                active.drain.set()
                asyncio.get_running_loop().call_later(DRAIN_SECONDS + HOOK_SECONDS, task.cancel)
                return True
        return False

    def begin(
        self,
        rule: Rule,
        want: Want,
        destinations: tuple[str, ...],
        generation: Generation,
        assignment: Assignment | None = None,
    ) -> tuple[ActiveRun, asyncio.Task[None]]:
        """Begins a run, whatever else is in progress; its `drain` ends it early."""
        run = self._runs.begin(
            rule=rule.name,
            source=rule.source,
            destinations=destinations,
            cause=want.cause,
            scope=None if want.whole else RunScope(want.repositories, want.at),
            at=self._clock.now(),
            shard=None if assignment is None else assignment.shard,
        )
        active = ActiveRun(run, rule, want, generation, assignment)
        if self._stopping:
            active.drain.set()
        for name in destinations:
            self._lane(rule.name, name).active.add(active)
        generation.enter()
        task = asyncio.get_running_loop().create_task(
            self._execute(active), name=f"run {run.id}", context=context_of(run)
        )
        self._tasks[task] = active
        task.add_done_callback(self._forget)
        self._on_change()
        return active, task

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._wake()

    async def _execute(self, active: ActiveRun) -> None:
        problem = None
        try:
            with counted(active.run.totals):
                active.result = await self._sync(active)
        except asyncio.CancelledError:
            if active.stuck is None:
                raise
        except ReplicatorError as error:
            active.error, problem = error, str(error)
            _log.error("%s", problem, extra={"fields": {"rule": active.rule.name}})
        except Exception as error:  # noqa: BLE001  # one run that breaks must not end the agent
            problem = f"internal error: {type(error).__name__}: {error}"
            _log.exception("the run broke, please report it", extra={"fields": {"rule": active.rule.name}})
        finally:
            for name in tuple(active.run.left):
                self._ended(active, name, "interrupted" if active.drain.is_set() else "failed")
            if active.stuck is not None:
                problem = active.stuck
                await active.generation.note_stuck(active.rule, active.run, problem)
            self._runs.end(active.run, active.result, at=self._clock.now(), error=problem)
            self._on_change()
            await active.generation.leave()

    async def _sync(self, active: ActiveRun) -> RuleResult:
        rule, run, generation = active.rule, active.run, active.generation

        def ended(_rule: str, result: DestinationResult) -> None:
            run.ended[result.destination] = result
            self._ended(active, result.destination, result.outcome)

        # those of a whole look at a rule surround all of its shards: `Sharing` runs them
        part = active.assignment
        is_of_look = part is not None and (active.want.whole or part.tick is not None)
        hooks = None if is_of_look else generation.hooks
        result = None if hooks is None else await hooks.before(rule, run.destinations, run.scope)
        if result is None:
            (result,) = await generation.engine.sync(
                [rule],
                destinations=frozenset(run.destinations),
                recheck=active.want.recheck,
                unattended=active.want.cause != "api",
                scope=run.scope,
                drain=active.drain,
                listener=self._listener(active, ended),
                assignment=active.assignment,
            )
        else:
            for each in result.destinations:
                ended(rule.name, each)
        if hooks is not None:
            await hooks.after(rule, result)
        return result

    def _listener(self, active: ActiveRun, ended: Callable[[str, DestinationResult], None]) -> RunListener:
        def scanned(_: str, destination: str) -> None:
            active.scanned.add(destination)
            self._wake()

        def done(_: str, destination: str, repository: str) -> None:
            active.done.add((destination, repository))
            self._wake()

        def busy(rule: str, destination: str, repository: str) -> None:
            self._triggers.submit(
                rule,
                cause=active.want.cause,
                repositories={repository: None},
                destinations=[destination],
            )

        return RunListener(ended=ended, scanned=scanned, repository_done=done, busy=busy)

    def _ended(self, active: ActiveRun, destination: str, outcome: Outcome) -> None:
        """The run is through at this destination, whatever becomes of it at others."""
        active.run.left.discard(destination)
        lane = self._lane(active.rule.name, destination)
        lane.active.discard(active)
        if active.stuck is not None:
            lane.note(active, "failed", self._clock.monotonic())
        elif not active.drain.is_set():
            lane.note(active, outcome, self._clock.monotonic())
        self._wake()
        self._on_change()
