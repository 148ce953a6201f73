"""Passes events on to `Triggers` when their time has come; see `waiting`."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Final

from replicator.daemon.http.agent import Agent
from replicator.daemon.http.webhooks.envelopes import Hint
from replicator.daemon.http.webhooks.waiting import Place, SiteEvents, Waiting
from replicator.events import Event, TagSeen

TURN_SECONDS: Final = 0.05


class Hints:
    """Events on their way to `Triggers`, one a tag, in bounded number for each site."""

    def __init__(self, app: Agent) -> None:
        self._app = app
        self._sites: defaultdict[str, SiteEvents] = defaultdict(SiteEvents)
        self._more = asyncio.Event()

    def add(self, site: str, hint: Hint) -> bool:
        """An event at a site. False: no rule looks because of it."""
        rules = self._app.triggers.concerned(site, hint.repository, hint.tag)
        if rules:
            clock = self._app.clock
            at = None if hint.at is None else min(hint.at, clock.now())  # its clock may be ahead of ours
            now = clock.monotonic()
            event = Waiting(hint.digest, at, first=now, last=now, rules=rules)
            self._sites[site].add(hint.repository, hint.tag, event)
            self._more.set()
        return bool(rules)

    def __len__(self) -> int:
        return sum(map(len, self._sites.values()))

    async def run(self) -> None:
        """Passes on what is due, until it is cancelled."""
        clock = self._app.clock
        with self._listening():
            while True:
                if not len(self):
                    self._more.clear()
                    await self._more.wait()
                now = clock.monotonic()
                waits = [
                    wait for site in self._sites.values() if (wait := site.seconds_left(now)) is not None
                ]
                soonest = min(waits, default=TURN_SECONDS)
                # in short steps: what comes meanwhile may be due sooner; what is due and still here has to wait
                await clock.sleep(soonest if 0 < soonest < TURN_SECONDS else TURN_SECONDS)
                self._turn(clock.monotonic())

    @contextmanager
    def _listening(self) -> Iterator[None]:
        self._app.events.subscribe(self._note)
        try:
            yield
        finally:
            self._app.events.unsubscribe(self._note)

    def _note(self, event: Event) -> None:
        if isinstance(event, TagSeen) and event.source in self._sites:
            self._sites[event.source].saw(event.repository, event.tag, event.rule, event.digest)

    def _turn(self, now: float) -> None:
        for name, site in self._sites.items():
            site.settle(now)
            due = site.due(now)
            busy = self._busy() if any(each.looks for _, each in due) else frozenset()
            for place, each in due:
                if not each.looks or not any((rule, place[0]) in busy for rule in each.rules):
                    self._pass_on(name, place, each, now)

    def _pass_on(self, name: str, place: Place, each: Waiting, now: float) -> None:
        each.rules = self._app.triggers.hint(name, *place, at=each.at)
        if not each.looked(now) or not each.rules:
            self._sites[name].drop(place)

    def _busy(self) -> frozenset[tuple[str, str]]:
        """Rules and repositories with a look that has not ended, or not begun: it may still see the tag."""
        running = (
            (run.rule, run.scope.repositories) for run in self._app.runs.running if run.scope is not None
        )
        looks: chain[tuple[str, Mapping[str, object]]] = chain(running, self._app.triggers.wanted())
        return frozenset((rule, name) for rule, repositories in looks for name in repositories)
