"""The agent: wires what runs, and is what its HTTP side, signals and systemd see of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from replicator.config.settings import Loaded
from replicator.daemon.explaining import Explaining
from replicator.daemon.generation import Chosen, Generation
from replicator.daemon.indexing import index_the_rest
from replicator.daemon.memory import Memory
from replicator.daemon.notify import Notifier
from replicator.daemon.reading import ConfigReader, takes_a_restart, with_what_stays
from replicator.daemon.runs import Runs
from replicator.daemon.scheduler import Scheduler
from replicator.daemon.sharing.claims import LateClaims
from replicator.daemon.standings import Standings
from replicator.daemon.status import RuleStatus, sentence
from replicator.daemon.triggers import Triggers
from replicator.daemon.untrusted import HOLDING, UntrustedTags
from replicator.daemon.watchdog import StuckRuns
from replicator.engine.context import DRAIN_SECONDS
from replicator.errors import ConfigError, StateError
from replicator.events import Events, Warned
from replicator.events.agent import ConfigRead
from replicator.flow.ending import end
from replicator.metrics import FLEET, FleetMetrics, Metrics
from replicator.policy.bandwidth import Bandwidth
from replicator.policy.rule import Rule
from replicator.ports import Clock, Site, Standing, State
from replicator.ports.search import ImageIndex
from replicator.runs import bandwidth
from replicator.runs.hooks import HOOK_SECONDS
from replicator.runs.indexing import INDEXED, Indexer
from replicator.runs.why import Agenda, Answer
from replicator.runs.wiring import Equipment, OpenSite, SitePool

if TYPE_CHECKING:  # its libraries are an extra
    from replicator.daemon.sharing.sharing import FleetPlace, Sharing

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 10.0
"""Interval at which lag is compared with what receivers of notifications know."""


class App:
    """One agent. `config`, `rules` and `sites` change with a reload: read them anew for each request.

    Made by `App.start`. The HTTP side is started by `run` with `daemon.http.server.listen(app)`.
    """

    on_status: Callable[[str], None] = staticmethod(lambda _: None)
    """Called with the sentence of `status` whenever it may have changed."""

    def __init__(
        self,
        generation: Generation,
        equipment: Equipment,
        state: Memory,
        *,
        pool: SitePool,
        seen: tuple[Standings, Metrics],
    ) -> None:
        self.events: Events = equipment.events
        self.clock: Clock = equipment.clock
        self.runs = Runs()
        self.started_at = self.clock.now()
        self._equipment = equipment
        self._state = state
        self._pool = pool
        self._generation = generation
        self._at_start = generation.loaded
        self._paused: set[str] = set()
        self._reader = ConfigReader()
        self._stuck = StuckRuns(self.events, self.clock, self.runs, generation.loaded.agent.stuck_after)
        self.events.subscribe(Indexer(state), to=INDEXED)
        self._changed = asyncio.Event()
        self._state_problem: str | None = None
        self._config_problem: str | None = None
        self._standings, self.metrics = seen
        self.metrics.know_hooks(generation.loaded.webhooks)
        self._scheduler = Scheduler(
            generation.loaded.agent.name,
            clock=self.clock,
            runs=self.runs,
            paused=self._paused,
            on_change=self._changed.set,
        )
        self.triggers: Triggers = self._scheduler.triggers
        self.untrusted: UntrustedTags = self._scheduler.untrusted
        self.events.subscribe(self.untrusted, to=HOLDING)
        self._explaining = Explaining(state, self.clock, self._agenda)
        self.sharing: Sharing | None = None
        """The agent's part in a fleet."""
        self._leads = True
        """Whether this agent does what one agent of a fleet does for all: it notifies, and completes the index."""
        self._notifier: Notifier | None = None
        self._scheduling: asyncio.Task[None] | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def start(
        cls,
        chosen: Chosen,
        equipment: Equipment,
        state: Memory,
        open_site: OpenSite | None = None,
        fleet: FleetPlace | None = None,
    ) -> AsyncIterator[App]:
        """A running agent, in a `fleet` one of several. When the context is left, it drains, for half a minute at most.

        Raises StateError, ConfigError.
        """
        claims = LateClaims()
        if fleet is not None:
            equipment = replace(equipment, blob_claims=claims)
        pool = SitePool(equipment.events, equipment.clock, open_site)
        standings = Standings(state, equipment.clock)
        metrics = Metrics(chosen.rules, standings, standings.behind)
        equipment.events.subscribe(metrics)  # sites report their limits when they open
        generation = await Generation.open(chosen, equipment, pool)
        app = cls(generation, equipment, state, pool=pool, seen=(standings, metrics))
        app.events.emit(ConfigRead(successful=True, at=app.clock.now()))
        try:
            await app._begin()
            async with app._as_one_of(fleet, claims), asyncio.TaskGroup() as tasks:
                side = [
                    tasks.create_task(app._watch_changes()),
                    tasks.create_task(app._watch_time()),
                    tasks.create_task(bandwidth.follow(app._limits, app.clock)),
                    tasks.create_task(
                        index_the_rest(
                            state,
                            lambda: app.sites,
                            app.clock,
                            may=lambda: app.config.agent.full_index and app._leads,
                        )
                    ),
                ]
                app._scheduling = tasks.create_task(app._scheduler.run())
                try:
                    yield app
                finally:
                    await app.drain()
                    await end(*side)
        finally:
            if app._notifier is not None:
                await app._notifier.aclose()
            await app._generation.leave()

    @contextlib.asynccontextmanager
    async def _as_one_of(self, fleet: FleetPlace | None, claims: LateClaims) -> AsyncIterator[None]:
        """Part of the fleet, if there is one, for as long as the context lasts."""
        if fleet is None:
            yield
            return
        from replicator.daemon.sharing.sharing import Sharing, Surroundings  # noqa: PLC0415 - its libraries are an extra

        self._leads = False
        self.runs.prefix = f"{self.config.agent.name}-"
        self.events.subscribe(FleetMetrics(self.metrics.registry), to=FLEET)
        around = Surroundings(
            scheduler=self._scheduler,
            runs=self.runs,
            state=self._state,
            events=self.events,
            clock=self.clock,
            paused=self._paused,
            generation=lambda: self._generation,
            standings=self._standings,
            changed=self._changed.set,
            beat=self._note_beat,
        )
        async with Sharing.join(fleet, around) as sharing:
            self.sharing = sharing
            claims.fleet = sharing.fleet.blob_claims
            yield

    # --- facts ---

    @property
    def config(self) -> Loaded:
        """The config in force. Keys that need a restart have their values from the start."""
        return self._generation.loaded

    @property
    def rules(self) -> Sequence[RuleStatus]:
        """The rules that this agent runs, with the destinations that it serves, in the config's order."""
        next_run = self._scheduler.next_run if self.sharing is None else self.sharing.next_run
        return [
            RuleStatus(
                rule,
                rule.name in self._paused,
                next_run(rule.name),
                self._scheduler.backing_off(rule),
                {name: self.untrusted.reasons(rule.name, name) for name in rule.destinations},
            )
            for rule in self._generation.rules
        ]

    @property
    def state(self) -> State:
        """The memory."""
        return self._state

    @property
    def index(self) -> ImageIndex:
        """What runs have seen, to be searched."""
        return self._state

    @property
    def sites(self) -> Mapping[str, Site]:
        """The sites of these rules."""
        return self._generation.sites

    def standings(self) -> Sequence[tuple[Standing, float]]:
        """Where each rule stands at each destination, with its lag in seconds now. Costs no I/O."""
        return self._standings()

    def health(self) -> str | None:
        """None while the process is alive and schedules runs; else what is wrong."""
        return self._scheduler.health(self._scheduling)

    def ready(self) -> Sequence[str]:
        """What prevents replication (state, scheduler, stuck rules); empty if nothing does.

        A config that was refused on a reload does not: the previous one is in force.
        """
        shared = None if self.sharing is None else self.sharing.problem()
        problems = (self.health(), self._state_problem, shared)
        stuck = [f"rule {rule} made no progress and was ended" for rule in self._stuck.rules]
        return [*(problem for problem in problems if problem is not None), *stuck]

    @property
    def problems(self) -> Sequence[str]:
        """What an operator should know about the agent itself: what `ready` gives, and a config refused on reload."""
        return [*self.ready(), *([self._config_problem] if self._config_problem else [])]

    def status(self) -> str:
        """One sentence for an operator."""
        shared = None if self.sharing is None else self.sharing.problem()
        return sentence(
            self.rules, self.standings(), self.runs.running, self._config_problem, self._stuck.rules, shared
        )

    async def why(self, reference: str, at: str | None, *, fresh: bool) -> Answer:
        """Why an image is, or is not, at its destinations. See `Explaining.answer`."""
        return await self._explaining.answer(self._generation, reference, at, fresh=fresh)

    def _agenda(self, rule: str, destination: str) -> Agenda:
        each = next((each for each in self.rules if each.rule.name == rule), None)
        if each is None:
            return Agenda()
        failures = self._scheduler.failures(rule, destination)
        return Agenda(each.paused, each.next_run, each.backing_off.get(destination), failures)

    # --- commands ---

    async def drain(self) -> None:
        """Starts nothing new and returns when all runs have ended, after half a minute at most. A second call returns at once."""
        if self.sharing is not None:
            self.sharing.stop()
        self._scheduler.stop()
        if self._scheduling is not None:
            await asyncio.wait({self._scheduling}, timeout=DRAIN_SECONDS + HOOK_SECONDS)
            self._scheduling.cancel()  # kills commands that are still running
            await asyncio.wait({self._scheduling})

    async def pause(self, rule: str) -> None:
        """Starts no run of the rule until `resume`, also after a restart; runs in progress continue.

        Raises KeyError, StateError.
        """
        self._find(rule)
        await self._state.set_paused(rule, True)
        self._paused.add(rule)
        self.triggers.drop(rule)
        self._changed.set()

    async def resume(self, rule: str) -> None:
        """Runs the rule again, the first time at once. Raises KeyError, StateError."""
        self._find(rule)
        if rule in self._paused:
            await self._state.set_paused(rule, False)
            self._paused.discard(rule)
            self._scheduler.resumed(rule)
            self._changed.set()

    async def reload(self, read: Callable[[], Chosen]) -> bool:
        """Reads the config again and puts it in force. False: it is invalid, nothing changes, and the log says why.

        Runs of unchanged rules continue. The agent's address, name, state and cache do not change.
        """
        try:
            chosen = await self._reader.read(read)
            in_force = dataclasses.replace(chosen, loaded=with_what_stays(self._at_start, chosen.loaded))
            generation = await Generation.open(in_force, self._equipment, self._pool)
        except ConfigError as error:
            self._config_problem = "the config was refused on the last reload; see the log"
            self.events.emit(ConfigRead(successful=False, at=self.clock.now()))
            for problem in error.problems:
                _log.error("config not reloaded: %s", problem)
            self._changed.set()
            return False
        self._config_problem = None
        for text in (*chosen.loaded.warnings, *takes_a_restart(self._at_start, chosen.loaded)):
            self.events.emit(Warned(None, text))
        old, self._generation = self._generation, generation
        if self.sharing is not None:
            self.sharing.follow(old.rules)
        self._know_rules()
        self.metrics.follow(generation.rules, generation.loaded.webhooks)
        self._stuck.seconds = generation.loaded.agent.stuck_after
        bandwidth.apply(*self._limits(), self.clock.now())
        self._scheduler.follow(generation, self._standings.last_looks())
        for rule in generation.rules:
            if rule.images is not None:  # its lists may have changed, which no comparison of configs tells
                self.triggers.submit(rule.name, cause="start")
        await old.leave()
        self.events.emit(ConfigRead(successful=True, at=self.clock.now()))
        _log.info("config reloaded", extra={"fields": {"rules": len(generation.rules)}})
        self._changed.set()
        return True

    # --- inside ---

    def _find(self, name: str) -> Rule:
        return {rule.name: rule for rule in self._generation.rules}[name]

    async def _begin(self) -> None:
        self._paused |= await self._state.paused()
        self._know_rules()
        told, name = await self._state.told(), self.config.agent.name
        self._notifier = Notifier(name, told=told, state=self._state, events=self.events, clock=self.clock)
        await self._refresh()
        self._scheduler.follow(self._generation, self._standings.last_looks())

    async def _refresh(self) -> None:
        """Refreshes the standings. Raises StateError."""
        if self.sharing is not None:
            await self.sharing.refresh()
            leads = self.sharing.fleet.leads
            if leads and not self._leads and self._notifier is not None:
                await self._notifier.recall()  # if it fails, this one does not lead yet
            self._leads = leads
        repositories = self.config.agent.metrics_per_repository
        await self._standings.refresh(self._generation.rules, repositories=repositories)

    def _know_rules(self) -> None:
        """Records when new rules were first seen, so that their lag grows even if they never run."""
        for rule in self._generation.rules:
            for destination in rule.destinations:
                self._state.begin(rule.name, destination)

    def _limits(self) -> tuple[Mapping[str, Bandwidth], Mapping[str, object]]:
        return self._generation.loaded.bandwidth, self._generation.sites

    async def _watch_changes(self) -> None:
        """Refreshes the standings whenever runs began or ended."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._refresh()
                self._state_problem = None
            except StateError as error:
                if self._state_problem is None:
                    _log.error("%s", error)
                self._state_problem = str(error)
            self._tell()

    def _note_beat(self) -> None:
        self.on_status(self.status())  # at once: to refresh may take long while the database is away
        if self._state_problem is not None:
            self._changed.set()

    async def _watch_time(self) -> None:
        while True:
            await self.clock.sleep(_LOOK_SECONDS)
            if self._stuck.end(self._scheduler.end_stuck):
                self._changed.set()
            if self.runs.running or self.sharing is not None:
                self._changed.set()  # tags of a long run, or another agent's, are in step long before it ends
            else:
                self._tell()

    def _tell(self) -> None:
        self.on_status(self.status())
        if self._notifier is not None and self._leads:
            self._notifier.look(self.config.notify, self._generation.rules, self._standings())
