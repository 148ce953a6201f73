"""What runs when: each rule by its plan, and at once when asked; each destination of it on its own.

A destination has at most one whole scan of a rule in progress, and beside it runs that scan only what events named.
Copies outlive their scan: the next one begins on time, and a repository that is still being worked on is scanned again
when it is free. So a slow or dead destination, repository or blob delays nobody else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from replicator.daemon.execution import Execution
from replicator.daemon.generation import Generation
from replicator.daemon.lanes import Lane
from replicator.daemon.plan import Plan
from replicator.daemon.runs import Runs
from replicator.daemon.triggers import Triggers, Want
from replicator.daemon.untrusted import UntrustedTags
from replicator.policy.rule import Rule
from replicator.ports import Clock
from replicator.runs.current import Run

_log = logging.getLogger(__name__)

NARROWED_SCANS_AT_ONCE: Final = 8
"""Scans for events in progress at once, per rule and destination; what comes meanwhile becomes one more. Their copies do
not count, however long they take."""
LONGEST_WAIT_SECONDS: Final = 10.0
"""How often it looks at the wall clock, which may be set."""

STILL_SECONDS: Final = 3 * LONGEST_WAIT_SECONDS
"""A scheduler that has not turned for this long is stuck."""


class Scheduler:
    """Runs rules until it is stopped.

    Args:
        agent: the agent's name.
        clock: the time.
        runs: told of every run.
        paused: the rules that are paused; read, never changed here.
        on_change: told whenever a run began, or ended at a destination.
    """

    def __init__(
        self,
        agent: str,
        *,
        clock: Clock,
        runs: Runs,
        paused: set[str],
        on_change: Callable[[], None],
    ) -> None:
        self._agent = agent
        self._clock = clock
        self._runs = runs
        self._paused = paused
        self._on_change = on_change
        self._wake = asyncio.Event()
        self.triggers = Triggers(wake=self._wake.set, is_paused=paused.__contains__)
        self._execution = Execution(
            clock=clock,
            runs=runs,
            triggers=self.triggers,
            lane=self._lane,
            wake=self._wake.set,
            on_change=on_change,
        )
        self.begin_shard = self._execution.begin
        """Begins a run of a part of a rule, for a fleet."""
        self.untrusted = UntrustedTags(clock.monotonic, self._wake.set)
        self._generation: Generation | None = None
        self._plans: dict[str, Plan] = {}
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._stopping = False
        self._hand_over: Callable[[], None] | None = None
        self.turned_at: float | None = None
        """When it last looked around, by the steady clock."""

    # --- what others ask ---

    def health(self, task: asyncio.Task[None] | None) -> str | None:
        """None while it turns, in this task; else what is wrong."""
        if task is None or self.turned_at is None:
            return "the scheduler has not started"
        if task.done():
            return "the scheduler has ended"
        still = self._clock.monotonic() - self.turned_at
        return f"the scheduler has been stuck for {still:.0f} s" if still > STILL_SECONDS else None

    def next_run(self, rule: str) -> float | None:
        """When the rule runs next (epoch seconds), as far as that is known."""
        plan = self._plans.get(rule)
        return None if plan is None or rule in self._paused else plan.next_run

    def backing_off(self, rule: Rule) -> Mapping[str, float]:
        """Destinations that wait after failures, and until when (epoch seconds)."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        lanes = {name: self._lanes.get((rule.name, name)) for name in rule.destinations}
        return {
            name: now + lane.not_before - monotonic
            for name, lane in lanes.items()
            if lane is not None and lane.not_before > monotonic
        }

    def failures(self, rule: str, destination: str) -> int:
        """How many whole runs failed there in a row."""
        lane = self._lanes.get((rule, destination))
        return 0 if lane is None else lane.failures

    # --- what is told ---

    def follow(self, generation: Generation, last_looks: Mapping[tuple[str, str], float | None]) -> None:
        """This config is in force from now on.

        Runs of rules that stay as they were go on, and so do their plans. Runs of others are drained; rules that are
        new or changed are due at once. `last_looks`: epoch seconds by rule and destination.
        """
        old, self._generation = self._generation, generation
        before = {rule.name: old.identity(rule) for rule in old.rules} if old else {}
        same = {rule.name for rule in generation.rules if before.get(rule.name) == generation.identity(rule)}
        for active in self._execution:
            if active.rule.name not in same:
                active.drain.set()
        now, monotonic = self._clock.now(), self._clock.monotonic()
        plans = {}
        for rule in generation.rules:
            looks = (
                [last_looks.get((rule.name, name)) for name in rule.destinations] if old is None else [None]
            )
            oldest = None if None in looks else min(look for look in looks if look is not None)
            known = self._plans.get(rule.name) if rule.name in same else None
            plans[rule.name] = known or Plan(
                rule, self._agent, last_look=oldest, now=now, monotonic=monotonic
            )
        self._plans = plans if self._hand_over is None else {}
        places = {(rule.name, name) for rule in generation.rules for name in rule.destinations}
        self._lanes = {
            place: lane if place[0] in same else replace(lane, failures=0, not_before=0.0)
            for place, lane in self._lanes.items()
            if place in places or lane.active
        }
        self.triggers.set_rules(generation.rules)
        self.untrusted.keep(places)
        self._wake.set()

    def share(self, hand_over: Callable[[], None]) -> None:
        """From now on a fleet decides what begins: `hand_over` is told when it is to take what `triggers` have."""
        self._hand_over = hand_over
        self._plans = {}

    def end_shards(self) -> None:
        """Drains the runs of shards; others do the rest of them."""
        for active in self._execution:
            if active.assignment is not None:
                active.drain.set()

    def resumed(self, rule: str) -> None:
        """The rule is resumed: it runs at once, because nobody knows what it missed."""
        self.triggers.submit(rule, cause="api")

    def stop(self) -> None:
        """Starts nothing new and drains the runs in progress."""
        self._stopping = True
        self._execution.stop()
        self._wake.set()

    def end_stuck(self, run: Run, problem: str) -> bool:
        """Ends a run that makes no progress: as a drain does, then in any case. It counts as failed, for this reason.

        Returns whether it is ended because of this call.
        """
        return self._execution.end_stuck(run, problem)

    # --- the loop ---

    async def run(self) -> None:
        """Returns once it is stopped and every run has ended."""
        try:
            while not self._stopping:
                self._wake.clear()
                self._turn()
                await self._wait(self._seconds_until_something_is_due())
            while tasks := self._execution.tasks:
                await asyncio.wait(tasks, timeout=LONGEST_WAIT_SECONDS)
                self.turned_at = self._clock.monotonic()
        finally:
            for task in (tasks := self._execution.tasks):
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    def _turn(self) -> None:
        now, monotonic = self._clock.now(), self._clock.monotonic()
        self.turned_at = monotonic
        for rule, destination, repositories in self.untrusted.take_due():
            self.triggers.submit(rule, cause="retry", repositories=repositories, destinations=[destination])
        if self._hand_over is not None:
            self._hand_over()
            return
        for plan in self._plans.values():
            if plan.is_due(now, monotonic):
                cause = plan.cause
                plan.advance(now, monotonic)
                for name in plan.rule.destinations:
                    lane = self._lane(plan.rule.name, name)
                    if lane.not_before > monotonic:
                        lane.owed = cause
                    else:
                        self.triggers.submit(plan.rule.name, cause=cause, destinations=[name])
        for (rule, name), lane in self._lanes.items():
            if lane.owed and lane.not_before <= monotonic:
                self.triggers.submit(rule, cause=lane.owed, destinations=[name])
                lane.owed = None
        for plan in self._plans.values():
            self._begin_what_is_wanted(plan.rule)

    def _lane(self, rule: str, destination: str) -> Lane:
        return self._lanes.setdefault((rule, destination), Lane(destination))

    def _seconds_until_something_is_due(self) -> float:
        now, monotonic = self._clock.now(), self._clock.monotonic()
        waits = [plan.seconds_left(now, monotonic) for plan in self._plans.values()]
        waits += [lane.not_before - monotonic for lane in self._lanes.values() if lane.owed]
        waits.append(self.untrusted.seconds_left())
        return min((wait for wait in waits if wait is not None), default=LONGEST_WAIT_SECONDS)

    async def _wait(self, seconds: float) -> None:
        waits = {
            asyncio.ensure_future(self._wake.wait()),  # noqa: TID251  # raced with a sleep; nothing that fails
            asyncio.ensure_future(self._clock.sleep(min(max(seconds, 0.0), LONGEST_WAIT_SECONDS))),  # noqa: TID251
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    # --- beginning ---

    def _begin_what_is_wanted(self, rule: Rule) -> None:
        begun: list[tuple[tuple[Want, Generation], list[str]]] = []
        for name in rule.destinations:
            for startable in self._startable(rule.name, name):
                together = next((names for other, names in begun if other == startable), None)
                if together is None:
                    begun.append((startable, [name]))
                else:
                    together.append(name)
        for (want, generation), names in begun:
            self._execution.begin(rule, want, tuple(names), generation)

    def _startable(self, rule: str, destination: str) -> Sequence[tuple[Want, Generation]]:
        """Takes what can begin at the destination now, with the config that it runs by; leaves the rest in the queue."""
        lane = self._lane(rule, destination)
        want = self.triggers.take(rule, destination)
        if want is None:
            return ()
        generation = self._generation_at(lane)
        if generation is None:
            self.triggers.put_back(rule, destination, want)
            return ()
        found = []
        rest = want
        if want.whole and not lane.is_scanning:
            found.append(replace(want, repositories={}, at=None))
            rest = replace(rest, whole=False)
            lane.owed = None
        busy = lane.busy
        known = next((each for each in generation.rules if each.name == rule), None)
        free = {
            name: tags
            for name, tags in want.repositories.items()
            if name not in busy
            and not (known is not None and generation.engine.is_busy(known, destination, name))
        }
        if free and lane.narrowed_scans < NARROWED_SCANS_AT_ONCE:
            found.append(replace(want, whole=False, repositories=free))
            left = {name: tags for name, tags in want.repositories.items() if name not in free}
            rest = replace(rest, repositories=left, at=want.at if left else None)
        if rest.whole or rest.repositories:
            self.triggers.put_back(rule, destination, rest)
        return [(each, generation) for each in found]

    def _generation_at(self, lane: Lane) -> Generation | None:
        """The config that a run beginning there goes by; None if runs in progress have to end first.

        Two engines know nothing of each other, so runs beside each other have one. While a whole run of the config
        before goes on, for its rule is as it was, events join it: it may take hours. Nothing joins anything else of
        it, or it would never retire.
        """
        before = [active for active in lane.active if active.generation is not self._generation]
        if not before:
            return self._generation
        whole = (active.generation for active in before if active.want.whole and not active.drain.is_set())
        return next(whole, None)
