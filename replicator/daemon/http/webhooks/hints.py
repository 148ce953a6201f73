"""Passes events on to `Triggers` when they are due, and keeps them in the state until they are answered."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Final

from replicator.daemon.http.agent import Agent
from replicator.daemon.http.webhooks.waiting import EventSubject, SiteEvents, Waiting
from replicator.errors import StateError
from replicator.events import Event, Observed, RepositoryScanned, TagSeen
from replicator.model.digest import Digest
from replicator.notifications.format import Hint
from replicator.ports import AcceptedEvent

TURN_SECONDS: Final = 0.05
ADOPTED_SECONDS: Final = 60.0
"""Events of another agent of the fleet that are older are taken up: it may be gone. Looks for them come this often."""

_log = logging.getLogger(__name__)


class Hints:
    """Events that wait to be passed to `Triggers`: one per tag, a bounded number per site.

    An event is in the state before it is acknowledged, and until the rules that it concerns have handled it: neither a
    restart, nor a reload, nor a source that is down loses it.
    """

    def __init__(self, app: Agent) -> None:
        self._app = app
        self._sites: defaultdict[str, SiteEvents] = defaultdict(SiteEvents)
        self._more = asyncio.Event()
        self._numbers = itertools.count()
        self._answered: list[str] = []

    def add(self, site: str, hint: Hint) -> bool:
        """Accepts an event of a site; `keep` makes it durable. False: no rule scans because of it."""
        for repository in (hint.repository, hint.alias):
            event = repository and self._waiting(site, repository, hint.tag, hint.digest, hint.at)
            if repository and event:
                self._sites[site].add(repository, hint.tag, event)
                self._more.set()
                return True
        return False

    def _waiting(
        self, site: str, repository: str | None, tag: str | None, digest: str | None, at: float | None
    ) -> Waiting | None:
        places = self._app.triggers.concerned_places(site, repository, tag)
        if not places:
            return None
        clock = self._app.clock
        now = clock.monotonic()
        event_id = f"{clock.now():.6f}-{next(self._numbers)}-{self._app.config.agent.name}"
        at = None if at is None else min(at, clock.now())  # its clock may be ahead of ours
        return Waiting(digest, at, first=now, last=now, places=places, id=event_id)

    async def keep(self) -> None:
        """Returns when all events that were added are in the state. Raises `StateError`."""
        now = self._app.clock.now()
        for name, site in self._sites.items():
            new = site.unkept()
            if not new:
                continue
            for _, each in new:
                each.is_kept = True
            events = [
                AcceptedEvent(
                    each.id,
                    name,
                    *place,
                    None if each.digest is None else Digest(each.digest),
                    now if each.at is None else each.at,
                    now,
                )
                for place, each in new
            ]
            gone, site.gone = site.gone, []
            try:
                await self._app.state.accept_events(events, instead_of=gone)
            except StateError:
                site.gone = gone + site.gone
                for _, each in new:
                    each.is_kept = False
                raise

    def __len__(self) -> int:
        return sum(map(len, self._sites.values()))

    async def run(self) -> None:
        """Passes on events that are due, until it is cancelled."""
        with self._listening():
            await self._recall()
            async with asyncio.TaskGroup() as tasks:
                if self._app.config.fleet.enabled:
                    tasks.create_task(self._adopt())
                tasks.create_task(self._pass_on_what_is_due())

    async def _adopt(self) -> None:
        """Takes up what agents that are gone accepted and did not see answered."""
        clock = self._app.clock
        while True:
            await clock.sleep(ADOPTED_SECONDS)
            await self._recall(before=clock.now() - ADOPTED_SECONDS)

    async def _pass_on_what_is_due(self) -> None:
        clock = self._app.clock
        while True:
            await self._answer()
            if not len(self):
                self._more.clear()
                await self._more.wait()
            now = clock.monotonic()
            waits = [wait for site in self._sites.values() if (wait := site.seconds_left(now)) is not None]
            soonest = min(waits, default=TURN_SECONDS)
            # in short steps: a later event may be due sooner, and one that is due may have to wait for a run
            await clock.sleep(soonest if 0 < soonest < TURN_SECONDS else TURN_SECONDS)
            self._turn(clock.monotonic())

    async def _recall(self, *, before: float | None = None) -> None:
        """Takes up what another process accepted (`before` this time, epoch seconds) and did not see answered."""
        try:
            events = await self._app.state.events()
        except StateError as error:
            _log.error("%s", error)
            return
        for event in events:
            if before is not None and (
                event.accepted_at > before or self._sites[event.site].has((event.repository, event.tag))
            ):
                continue
            waiting = self._waiting(event.site, event.repository, event.tag, event.digest, event.at)
            if waiting is None:
                self._answered.append(event.id)
                continue
            waiting.id, waiting.is_kept = event.id, True
            waiting.is_merged = event.tag is None and event.digest is None
            self._sites[event.site].recall((event.repository, event.tag), waiting)
            self._more.set()

    async def _answer(self) -> None:
        """Drops what is answered from the state, once what came of it is durable."""
        if not self._answered:
            return
        ids, self._answered = self._answered, []
        try:
            await self._app.state.flush()
            await self._app.state.answer_events(ids)
        except StateError as error:
            _log.warning("%s; trying again", error)
            self._answered = ids + self._answered
            await self._app.clock.sleep(1.0)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        self._app.events.subscribe(self._note, to={Observed, RepositoryScanned, TagSeen})
        try:
            yield
        finally:
            self._app.events.unsubscribe(self._note)

    def _note(self, event: Event) -> None:
        match event:
            case TagSeen() if event.source in self._sites:
                self._sites[event.source].saw(
                    event.repository,
                    event.tag,
                    (event.rule, event.destination),
                    event.digest,
                    is_absent=event.is_absent,
                )
            case RepositoryScanned() if event.source in self._sites:
                self._sites[event.source].scanned((event.repository, None), (event.rule, event.destination))
            case Observed():
                for site in self._sites.values():
                    site.observed(event.rule)

    def _turn(self, now: float) -> None:
        for name, site in self._sites.items():
            self._answered += site.settle(now)
            due = site.due(now)
            busy = self._busy() if any(each.looks for _, each in due) else frozenset()
            for place, each in due:
                if not each.looks or not any((rule, place[0]) in busy for rule in each.rules):
                    self._pass_on(name, place, each, now)

    def _pass_on(self, name: str, place: EventSubject, each: Waiting, now: float) -> None:
        each.looked(now)
        each.places = self._app.triggers.hint(name, *place, at=each.at)
        if not each.places:
            self._answered.append(self._sites[name].drop(place))

    def _busy(self) -> frozenset[tuple[str, str]]:
        """Rules and repositories with a scan that has not ended, or not begun: it may still see the tag."""
        running = (
            (run.rule, run.scope.repositories) for run in self._app.runs.running if run.scope is not None
        )
        looks: chain[tuple[str, Mapping[str, object]]] = chain(running, self._app.triggers.wanted())
        return frozenset((rule, name) for rule, repositories in looks for name in repositories)
