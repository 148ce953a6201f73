"""What the parts of one run share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from replicator.engine.coordination import RepositoryLocks, TagClaims
from replicator.engine.result import DestinationResult
from replicator.events import Events
from replicator.flow.breaker import Breaker
from replicator.policy.rule import Rule
from replicator.ports import Clock, Site, State

DRAIN_SECONDS: Final = 25.0
"""Transfers in progress when a drain begins get this long; systemd's stop timeout leaves room for the rest."""


@dataclass(frozen=True, slots=True)
class RunScope:
    """Source repositories to look at, each with its tags, or whole (None). `at` dates the event, epoch seconds.

    A narrowed run is no complete look, whatever it finds.
    """

    repositories: Mapping[str, frozenset[str] | None]
    at: float | None = None


@dataclass(slots=True)
class Context:
    """The world of one run, and how it was asked for.

    `dry` only plans. `recheck` asks each destination tag by tag, whatever is believed. `unattended` leaves a
    tag that failed alone until its time has come. `scope` narrows the run to what an event named. `locks` keeps
    runs that are under way at the same time apart. `rules` are all rules there are, by name: a belief that
    belongs to a rule no longer there protects nothing. `on_end` is told each destination's result as soon as that
    destination is through, the rule's name first.
    """

    sites: Mapping[str, Site]
    state: State
    events: Events
    clock: Clock
    rules: Mapping[str, Rule]
    locks: RepositoryLocks
    dry: bool = False
    recheck: bool = False
    unattended: bool = False
    scope: RunScope | None = None
    claims: TagClaims = field(default_factory=TagClaims)
    breakers: dict[str, Breaker] = field(default_factory=dict)
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    on_end: Callable[[str, DestinationResult], None] | None = None

    @property
    def narrowed_to(self) -> tuple[str, ...] | None:
        """The source repositories that the run looks at, None where it is not narrowed."""
        return None if self.scope is None else tuple(sorted(self.scope.repositories))

    def breaker(self, site: str) -> Breaker:
        """The run's breaker of a site."""
        return self.breakers.setdefault(site, Breaker(site))
