"""Passes events on, a moment later, and once more where they came too early.

distribution tells of a push by tag when the manifest is stored, which is before the tag is: who looks at once finds
the tag missing, or where it was. So a tag is looked at a moment after its event (which merges bursts as well), and
again, less and less often, until a run has met the digest that the event named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Final

from replicator.daemon.http.app_port import AppPort
from replicator.daemon.http.notifications import Hint

LOOKS_AFTER: Final = (0.1, 0.5, 3.0)
"""Seconds from the event; on a file system the tag is there after 10 to 20 ms, on an object store it takes longer."""
TURN_SECONDS: Final = 0.05
MAX_PENDING: Final = 4_096
"""Beyond, events are passed on at once and for good; polling finds what came too early."""

_Seen = set[tuple[str, str, str | None, str]]
"""Rule, repository, tag and digest of what runs had to do with."""


@dataclass(slots=True)
class _Pending:
    """A tag (None: a whole repository) that is going to be looked at. `digest` is the last event's."""

    at: float | None
    digest: str | None
    came: float
    """Monotonic."""
    since: float
    """Epoch seconds: only runs that began later have looked because of it."""
    looks: int = 0
    rules: tuple[str, ...] = ()

    @property
    def due(self) -> float:
        return self.came + LOOKS_AFTER[self.looks]

    def join(self, other: _Pending) -> None:
        """A later event of the same tag: what it names is what is waited for, the earliest time is what counts."""
        times = [at for at in (self.at, other.at) if at is not None]
        self.at = min(times, default=None)
        if self.looks:
            self.came, self.looks = other.came, 0
        self.digest, self.since = other.digest, other.since


class Hints:
    """Events on their way to `Triggers`, one a tag, in bounded number."""

    def __init__(self, app: AppPort) -> None:
        self._app = app
        self._pending: dict[tuple[str, str, str | None], _Pending] = {}
        self._more = asyncio.Event()

    def add(self, site: str, hint: Hint) -> None:
        """An event at a site."""
        clock = self._app.clock
        at = None if hint.at is None else min(hint.at, clock.now())  # its clock may be ahead of ours
        new = _Pending(at, hint.digest, clock.monotonic(), clock.now())
        key = (site, hint.repository, hint.tag)
        known = self._pending.get(key)
        if known is not None:
            known.join(new)
        elif len(self._pending) < MAX_PENDING:
            self._pending[key] = new
            self._more.set()
        else:
            self._app.triggers.hint(site, hint.repository, hint.tag, at=at)

    def __len__(self) -> int:
        return len(self._pending)

    async def run(self) -> None:
        """Passes on what is due, until it is cancelled."""
        clock = self._app.clock
        while True:
            if not self._pending:
                self._more.clear()
                await self._more.wait()
            soonest = min(each.due for each in self._pending.values())
            # in short steps: what comes meanwhile may be due sooner
            await clock.sleep(min(TURN_SECONDS, max(0.0, soonest - clock.monotonic())))
            self._pass_on(clock.monotonic())

    def _pass_on(self, now: float) -> None:
        due = {key: each for key, each in self._pending.items() if each.due <= now}
        again = [each for each in due.values() if each.looks]
        seen = self._seen(again) if again else set()
        for (site, repository, tag), each in due.items():
            met = each.looks and all((rule, repository, tag, each.digest) in seen for rule in each.rules)
            if not met:
                each.rules = self._app.triggers.hint(site, repository, tag, at=each.at)
            each.looks += 1
            if met or not each.rules or each.digest is None or each.looks == len(LOOKS_AFTER):
                del self._pending[site, repository, tag]

    def _seen(self, events: Iterable[_Pending]) -> _Seen:
        """What runs had to do with that began after the first of these events."""
        since = min(each.since for each in events)
        runs = self._app.runs
        return {
            (run.rule, action.repository, action.tag, action.digest)
            for run in chain(runs.running, runs.recent)
            if run.started_at >= since
            for result in run.results()
            for action in result.actions
        }
