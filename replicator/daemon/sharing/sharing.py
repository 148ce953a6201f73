"""One agent of a fleet: its scheduler hands over here what is due, and here it gets what is to be run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import msgspec

import replicator
from replicator.daemon.generation import Generation
from replicator.daemon.lanes import ActiveRun, back_off
from replicator.daemon.memory import Memory
from replicator.daemon.runs import Runs
from replicator.daemon.scheduler import Scheduler
from replicator.daemon.sharing import division
from replicator.daemon.sharing.due import DueRules, is_failing
from replicator.daemon.sharing.history import RunHistory
from replicator.daemon.sharing.reports import Gathered, gathered, packed, said_of
from replicator.daemon.sharing.splitting import Much, Splits, redirected
from replicator.daemon.triggers import Triggers, Want
from replicator.engine.result import RuleResult
from replicator.errors import StateError
from replicator.events import Events, Observed
from replicator.fleet.agents import Self
from replicator.fleet.connections import Dsn
from replicator.fleet.duties import Duties
from replicator.fleet.fleet import Fleet
from replicator.fleet.looks import Look, LookBegun
from replicator.fleet.ownership import Claim
from replicator.fleet.roster import Roster
from replicator.fleet.times import Times
from replicator.fleet.work import Done, Work
from replicator.flow.ending import end
from replicator.model.shards import Shard
from replicator.policy.rule import Rule
from replicator.ports import Assignment, Clock, SharesPulls, Standing
from replicator.ports.site import SharesLimits
from replicator.report import RunCounts
from replicator.runs.limited import CommandLimits

_log = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS: Final = 1.0
"""Between two looks whether a rule is due."""
_AGAIN_SECONDS: Final = 5.0
"""Until work is tried again for which the state could not be had."""


@dataclass(frozen=True, slots=True)
class FleetPlace:
    """Where the fleet is, and this agent's part in it. `serves` None: all destinations. `jobs`: at once.

    `much`: what is split off.
    """

    dsn: Dsn
    shards: int
    jobs: int
    serves: tuple[str, ...] | None
    much: Much
    times: Times = field(default_factory=Times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the agent has that sharing needs. `generation` and `standings` change.

    `changed` is called when the standings may have changed, `beat` with each heartbeat and when the database goes or comes.
    """

    scheduler: Scheduler
    runs: Runs
    state: Memory
    events: Events
    clock: Clock
    paused: set[str]
    generation: Callable[[], Generation]
    standings: Callable[[], Sequence[tuple[Standing, float]]]
    changed: Callable[[], None]
    beat: Callable[[], None]


class Sharing:
    """See the module. Made by `Sharing.join`."""

    def __init__(self, place: FleetPlace, around: Surroundings) -> None:
        self._place = place
        self._around = around
        self._looks: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._left: set[str] = set()
        self._is_draining = False
        self._commands = CommandLimits(around.events)
        self._has_beaten = self._was_busy = False
        self.fleet: Fleet
        self._due: DueRules
        self.history: RunHistory

    @classmethod
    @contextlib.asynccontextmanager
    async def join(cls, place: FleetPlace, around: Surroundings) -> AsyncIterator[Sharing]:
        """Part of the fleet, and at work. When the context is left, it takes no more, and what was begun has ended.

        Raises StateError.
        """
        sharing = cls(place, around)
        duties = Duties(
            perform=sharing._perform,
            places=lambda work: division.places(work, sharing._rules()),
            destinations=lambda: around.generation().destinations,
            look_ended=sharing._look_ended,
            changed=sharing._changed,
        )
        name = around.generation().loaded.agent.name
        me = Self(name, replicator.__version__, place.serves, around.clock.now())
        async with Fleet.join(
            place.dsn,
            me,
            duties,
            jobs=place.jobs,
            events=around.events,
            clock=around.clock,
            times=place.times,
        ) as fleet:
            sharing.fleet, sharing._due = fleet, DueRules(fleet)
            sharing.history = RunHistory(fleet, around.clock)
            around.scheduler.share(sharing._wake.set)
            turning = asyncio.get_running_loop().create_task(sharing._turn_again_and_again())
            fleet.begin()
            try:
                yield sharing
            finally:
                await end(turning)
                await sharing.history.flush_at_the_end()

    # --- facts ---

    @property
    def roster(self) -> Roster:
        """All agents, as of the last heartbeat."""
        return self.fleet.roster

    def next_run(self, rule: str) -> float | None:
        """When the rule is due next (epoch seconds)."""
        return None if rule in self._around.paused else self._due.next(rule)

    def problem(self) -> str | None:
        """What keeps this agent from working, None if nothing does."""
        if not self.fleet.is_up:
            return "the database is away; what is in hand is finished, and nothing new begins"
        return "draining: another agent or an operator asked for it" if self.fleet.draining else None

    def follow(self, before: Sequence[Rule]) -> None:
        """Another config is in force; `before`: the rules until now."""
        self._due.follow(before, self._rules())

    def stop(self) -> None:
        """Takes no more work. Commands before runs are killed; those after runs have `HOOK_SECONDS`."""
        self.fleet.stop()
        self._commands.drain()

    async def refresh(self) -> None:
        """Reads what other agents changed, and has the next heartbeat say what this one does. Raises StateError."""
        running = self._around.runs.running
        me = self.fleet.me
        me.sites = {site for run in running for site in (run.source, *run.destinations)}
        me.doing = tuple(map(said_of, running))
        await self._paused()
        await self.history.refresh()

    # --- what is due ---

    async def _turn_again_and_again(self) -> None:
        while True:
            self._wake.clear()
            wait = LONGEST_WAIT_SECONDS
            try:
                await self.history.flush()
                if self._has_beaten:
                    self._has_beaten = False
                    await self._follow_others()
                self._tell_of_looks()
                await self._hand_over_ticks()
                await self._hand_over_wants(self._around.scheduler.triggers)
            except StateError as error:
                _log.info("%s; trying again", error)
                wait = _AGAIN_SECONDS
            except Exception:  # noqa: BLE001  # what breaks once must not end the agent's work
                _log.exception("handing over work broke, please report it")
                wait = _AGAIN_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _follow_others(self) -> None:
        """Where agents work or have worked, the standings have changed: an idle fleet does not read them at each heartbeat."""
        await self._paused()
        is_busy = any(agent.doing for agent in self.fleet.living)
        if await self.history.refresh() or is_busy or self._was_busy:
            self._around.changed()
        self._was_busy = is_busy

    def _tell_of_looks(self) -> None:
        """Emits `Observed`. A look ends with its last shard, at whichever agent: only the standings tell."""
        standings = [standing for standing, _ in self._around.standings()]
        for rule in self._rules():
            looks = [each.last_look or 0.0 for each in standings if each.rule == rule]
            at = min(looks, default=0.0)
            if at > self._looks.setdefault(rule, at):
                self._around.events.emit(Observed(rule, at))
            self._looks[rule] = at

    async def _hand_over_ticks(self) -> None:
        standings = [standing for standing, _ in self._around.standings()]
        now = self.fleet.now()
        await self._due.keep(self._rules())
        for rule in self._rules().values():
            if rule.name in self._around.paused:
                continue
            ticks = await self._due.ticks(rule, standings)
            tick = ticks.due(now, is_failing=is_failing(rule, standings))
            if tick is None:
                continue
            work = division.look(rule, rule.destinations, Want(_cause(tick.cause), whole=True))
            await self.fleet.defer_tick(work, f"{rule.name[:100]} {ticks.identity}", tick.at)
            ticks.done(tick, now)
        self._due.has_begun = True

    async def _hand_over_wants(self, triggers: Triggers) -> None:
        for rule in self._rules().values():
            taken = [(site, want) for site in rule.destinations if (want := triggers.take(rule.name, site))]
            if not taken:
                continue
            try:
                await self.fleet.defer(division.works(rule, taken, self.fleet.living, self._place.shards))
            except StateError:
                for site, want in taken:
                    triggers.put_back(rule.name, site, want)
                raise

    # --- what is to be run ---

    async def _perform(self, work: Work, claim: Claim) -> Done:
        rule = self._rules().get(work.rule)
        destinations = tuple(site for site in work.destinations if rule and site in rule.destinations)
        if rule is None or not destinations:
            return self._leave(work)
        try:
            if rule.name in await self._paused():
                return Done()
            if others := tuple(site for site in work.destinations if site not in destinations):
                await self.fleet.defer([msgspec.structs.replace(work, destinations=others, ticks=())])
            if work.shard is None:
                return await self._look(rule, destinations, work)
            return await self._run(rule, destinations, work, claim)
        except StateError as error:
            _log.warning("%s: %s", work.lock, error)
            return Done(again=work, delay=_AGAIN_SECONDS)

    def _leave(self, work: Work) -> Done:
        """Leaves work to agents whose config has its rule, or the rule's destination: while a new config is rolled out."""
        done = division.left(work, self.fleet.now())
        if done is None:
            _log.warning("%s: no agent with this in its config took it for an hour; dropped", work)
            return Done()
        if work.rule not in self._left:
            self._left.add(work.rule)
            what = f"rule {work.rule} -> {', '.join(work.destinations)}"
            _log.warning("%s is in another agent's config, not in this one's; left to agents with it", what)
        return done

    async def _paused(self) -> set[str]:
        """A pause counts at every agent from the moment it is in the state."""
        paused = set(await self._around.state.paused())
        self._around.paused.clear()
        self._around.paused.update(paused)
        return paused

    async def _look(self, rule: Rule, destinations: tuple[str, ...], work: Work) -> Done:
        """Runs the rule's `before`, and has the shards wait."""
        destinations = await self._worth_trying(rule, destinations, work)
        if not destinations:
            return Done()
        generation = self._around.generation()
        tick = work.ticks[0] if work.ticks else int(self.fleet.now() * 1000)
        groups = division.together(destinations, self.fleet.living)
        pieces = division.pieces(rule, groups, work, tick, self._place.shards)
        look = LookBegun(rule.name, tick, rule.source, destinations, work.cause, len(pieces))
        before = generation.hooks.before(rule, destinations, None)
        refused = await self._commands.before(rule.name, before)
        if self._commands.is_draining:
            return Done(again=work)
        if refused is not None:
            self._refuse(look, refused)
            return Done()
        works = await self.fleet.within_cap(pieces)
        await self.fleet.begin_look(replace(look, shards=len(works)))
        await self.fleet.defer(works)
        named = {"rule": rule.name, "source": rule.source, "destinations": ",".join(destinations)}
        fields = {**named, "shards": len(works), "cause": work.cause}
        _log.info("run started", extra={"fields": fields})
        return Done()

    def _refuse(self, look: LookBegun, result: RuleResult) -> None:
        """A look that its `before` command ended: no shard of it begins."""
        me = self.fleet.me.name
        self.history.note_look(look, self.fleet.now(), (me,), Gathered(result, RunCounts(), None))

    async def _worth_trying(self, rule: Rule, destinations: tuple[str, ...], work: Work) -> tuple[str, ...]:
        """Without those at which the last looks failed, until it is time again; whoever asks does not wait."""
        standings = {each.destination: each for each, _ in self._around.standings() if each.rule == rule.name}
        healthy = [site for site in destinations if site in standings and not standings[site].last_error]
        failing = await self.fleet.failures(rule.name, healthy)
        if work.cause == "api":
            return destinations
        return tuple(
            site
            for site in destinations
            if site not in failing or failing[site][1] >= back_off(failing[site][0], rule.interval)
        )

    async def _run(self, rule: Rule, destinations: tuple[str, ...], work: Work, claim: Claim) -> Done:
        """Runs one shard, or one repository that was split off."""
        splits = None
        if not work.alone:
            others = await self.fleet.alone(rule.name)
            if not work.whole:
                rest, moved = redirected(rule, work, others)
                if moved:
                    await self.fleet.defer(moved)
                if rest is None:
                    return Done()
                work = rest
            splits = Splits(work, others, self._place.much, partial(self.fleet.split_off, claim))
        for site in self._around.generation().sites.values():
            if isinstance(site, SharesPulls):
                site.share_pulls(self.fleet.pulls)
        shard = Shard(work.shard or 0, work.of)
        assignment = Assignment(shard, claim, work.ticks[-1] if work.ticks else None, splits)
        active, task = self._around.scheduler.begin_shard(
            rule, division.wanted(work), destinations, self._around.generation(), assignment
        )
        claim.on_lost = active.drain.set
        if claim.is_lost:
            active.drain.set()
        try:
            await asyncio.wait({task})
        finally:
            active.drain.set()
        if work.whole and active.result is not None:
            failed = [each.destination for each in active.result.destinations if each.outcome == "failed"]
            await self.fleet.note_failures(rule.name, failed, work.ticks[-1] if work.ticks else 0)
        return self._done(work, active)

    def _done(self, work: Work, active: ActiveRun) -> Done:
        if active.stuck is None and isinstance(active.error, StateError):
            return Done(again=work, delay=_AGAIN_SECONDS)
        result = active.result
        if active.stuck is None and result is not None:
            left = {each.destination for each in result.destinations if each.outcome == "interrupted"}
            if left:
                return Done(again=work)
        if not work.ticks:
            self.history.note_run(active.run)
        return Done(report=packed(active.run, result))

    async def _look_ended(self, look: Look) -> None:
        """All shards of a look are through, at whichever agents: keeps it, and runs the rule's `after`."""
        rule = self._rules().get(look.rule)
        found = gathered(look.reports)
        self.history.note_look(look.begun, look.started, look.agents, found)
        self._around.changed()
        self._wake.set()
        if rule is not None and found.result is not None and self._has_after(rule):
            after = self._around.generation().hooks.after(rule, found.result)
            await self._commands.after(rule.name, after)

    # --- inside ---

    def _rules(self) -> Mapping[str, Rule]:
        return {rule.name: rule for rule in self._around.generation().rules}

    def _has_after(self, rule: Rule) -> bool:
        commands = self._around.generation().loaded.commands.get(rule.name)
        return commands is not None and bool(commands.after)

    def _changed(self) -> None:
        """A heartbeat went out, or the database went away or came back."""
        sites: Mapping[str, Any] = self._around.generation().sites
        for name, share in self.fleet.shares(sites).items():
            if isinstance(sites[name], SharesLimits):
                sites[name].limit_to(share)
        if self.fleet.draining and not self._is_draining:
            self._around.scheduler.end_shards()
        self._is_draining = self.fleet.draining
        self._around.beat()
        self._has_beaten = True
        self._wake.set()


def _cause(cause: str) -> Any:  # one of the causes of runs, which the fleet does not know by type
    return cause
