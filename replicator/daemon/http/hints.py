"""Passes events on, a moment later, and once more where they came too early.

distribution tells of a push by tag when the manifest is stored, which is before the tag is: who looks at once finds
the tag missing, or where it was. So a tag is looked at a moment after its event (which merges bursts as well), and
again, less and less often, until a look has seen the digest that the event named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from replicator.daemon.http.app_port import AppPort
from replicator.daemon.http.notifications import Hint
from replicator.events import Event, TagSeen

LOOKS_AFTER: Final = (0.1, 0.5, 3.0)
"""Seconds from the event; on a file system the tag is there after 10 to 20 ms, on an object store it takes longer."""
TURN_SECONDS: Final = 0.05
BURST_SECONDS: Final = 1.0
"""Events of one tag that come one upon the other put off its first look, but no longer than this."""
BURST_TAGS: Final = 64
"""With more tags on their way they wait for each other, until nothing came for `QUIET_SECONDS`; no longer either."""
QUIET_SECONDS: Final = 0.1
SEEN_SECONDS: Final = 10.0
"""Events that name what a look has seen so short a time ago are the tail of a burst, and cause no other look."""
MAX_PENDING: Final = 4_096
"""Beyond, tags are merged to their repositories, and those to the whole site."""

_Key = tuple[str, str | None, str | None]
"""Site, repository, tag; None for all there are."""


@dataclass(slots=True)
class _Pending:
    """What is going to be looked at. `digest` is what the last event of a tag named.

    `first` and `came` are when the first and the last of its events came, in monotonic seconds.
    """

    at: float | None
    digest: str | None
    first: float
    came: float
    rules: tuple[str, ...]
    looks: int = 0
    seen: dict[str, str | None] = field(default_factory=dict)
    """By rule: what the tag was when a look for it asked."""

    @property
    def due(self) -> float:
        return self.came + LOOKS_AFTER[self.looks]

    @property
    def met(self) -> bool:
        """Whether each rule has seen what the event told; None is a rule's word that it need not."""
        met = (None, self.digest)
        return self.digest is not None and all(self.seen.get(rule, "") in met for rule in self.rules)

    def join(self, other: _Pending) -> None:
        """A later event: what it names is what is waited for, the earliest time is what counts."""
        self.at = _earliest(self.at, other.at)
        if not self.looks:
            self.came = min(other.came, self.first + BURST_SECONDS)
        elif self.digest != other.digest:
            self.first, self.came, self.looks = other.first, other.came, 0
        self.digest, self.rules = other.digest, other.rules


class Hints:
    """Events on their way to `Triggers`, one a tag, in bounded number."""

    def __init__(self, app: AppPort) -> None:
        self._app = app
        self._pending: dict[_Key, _Pending] = {}
        self._seen: dict[_Key, tuple[str, float]] = {}
        """The digest that all rules have seen last, and until when (monotonic) that counts."""
        self._last = 0.0
        self._more = asyncio.Event()

    def add(self, site: str, hint: Hint) -> bool:
        """An event at a site. False: no rule looks because of it."""
        clock = self._app.clock
        rules = self._app.triggers.concerned(site, hint.repository, hint.tag)
        if not rules:
            return False
        key = self._key(site, hint)
        if key not in self._pending and self._is_tail(key, hint.digest):
            return True
        at = None if hint.at is None else min(hint.at, clock.now())  # its clock may be ahead of ours
        self._last = clock.monotonic()
        new = _Pending(at, hint.digest if key[2] else None, self._last, self._last, rules)
        self._put(key, new)
        if len(self._pending) > MAX_PENDING:
            self._merge(site)
        self._more.set()
        return True

    def __len__(self) -> int:
        return len(self._pending)

    async def run(self) -> None:
        """Passes on what is due, until it is cancelled."""
        clock = self._app.clock
        with self._listening():
            while True:
                if not self._pending:
                    self._more.clear()
                    await self._more.wait()
                left = min(each.due for each in self._pending.values()) - clock.monotonic()
                # in short steps: what comes meanwhile may be due sooner; what is due and still here has to wait
                await clock.sleep(left if 0 < left < TURN_SECONDS else TURN_SECONDS)
                self._turn(clock.monotonic())

    # --- what comes in ---

    def _key(self, site: str, hint: Hint) -> _Key:
        """Where it belongs: to what it was merged to, where that is so."""
        for wider in ((site, None, None), (site, hint.repository, None)):
            if wider in self._pending and self._pending[wider].looks:
                return wider
        return (site, hint.repository, hint.tag)

    def _put(self, key: _Key, new: _Pending) -> None:
        known = self._pending.get(key)
        if known is None:
            self._pending[key] = new
        else:
            known.join(new)

    def _merge(self, site: str) -> None:
        """Too many: whole repositories are looked at instead, or the whole site; once, when no tag comes too early."""
        for depth in (2, 1):
            pending, self._pending = self._pending, {}
            for key, each in pending.items():
                if key[0] == site:
                    key = (site, key[1] if depth == 2 else None, None)  # noqa: PLW2901 # its new place
                    each.digest, each.looks = None, len(LOOKS_AFTER) - 1
                self._put(key, each)
            if len(self._pending) <= MAX_PENDING // 2:
                return

    @contextmanager
    def _listening(self) -> Iterator[None]:
        self._app.events.subscribe(self._note)
        try:
            yield
        finally:
            self._app.events.unsubscribe(self._note)

    def _note(self, event: Event) -> None:
        if isinstance(event, TagSeen):
            key = (event.source, event.repository, event.tag)
            if key in self._pending:
                self._pending[key].seen[event.rule] = event.digest
            if key in self._seen and event.digest not in {None, self._seen[key][0]}:
                del self._seen[key]

    def _is_tail(self, key: _Key, digest: str | None) -> bool:
        seen, until = self._seen.get(key, ("", 0.0))
        return seen == digest and self._app.clock.monotonic() < until

    # --- what goes out ---

    def _turn(self, now: float) -> None:
        self._seen = {key: (digest, until) for key, (digest, until) in self._seen.items() if until > now}
        for key in [key for key, each in self._pending.items() if each.met]:
            digest = self._pending.pop(key).digest
            if digest is not None and len(self._seen) < MAX_PENDING:
                self._seen[key] = (digest, now + SEEN_SECONDS)
        if self._is_burst(now):
            return
        due = {key: each for key, each in self._pending.items() if each.due <= now}
        busy = self._busy() if any(each.looks for each in due.values()) else frozenset()
        for key, each in due.items():
            if not each.looks or not any((rule, key[1]) in busy for rule in each.rules):
                self._pass_on(key, each)

    def _pass_on(self, key: _Key, each: _Pending) -> None:
        site, repository, tag = key
        each.rules = self._app.triggers.hint(site, repository, tag, at=each.at)
        each.looks += 1
        if not each.rules or each.digest is None or each.looks == len(LOOKS_AFTER):
            del self._pending[key]

    def _is_burst(self, now: float) -> bool:
        if len(self._pending) <= BURST_TAGS or now - self._last >= QUIET_SECONDS:
            return False
        return now - min(each.first for each in self._pending.values()) < BURST_SECONDS

    def _busy(self) -> frozenset[tuple[str, str]]:
        """Rules and repositories with a look that has not ended, or not begun: it may still see the tag."""
        running = (run for run in self._app.runs.running if run.scope is not None)
        looks: chain[tuple[str, Mapping[str, object]]] = chain(
            ((run.rule, run.scope.repositories) for run in running if run.scope is not None),
            self._app.triggers.wanted(),
        )
        return frozenset((rule, name) for rule, repositories in looks for name in repositories)


def _earliest(*times: float | None) -> float | None:
    return min((at for at in times if at is not None), default=None)
