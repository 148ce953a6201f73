"""What the parts of one run share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from replicator.engine.claims import Claims
from replicator.engine.inhand import InHand
from replicator.engine.result import DestinationResult
from replicator.engine.scope import Scope
from replicator.events import Events
from replicator.flow.breaker import Breaker
from replicator.policy.rule import Rule
from replicator.ports import Clock, Site, State


@dataclass(slots=True)
class Context:
    """The world of one run, and how it was asked for.

    `dry` only plans. `recheck` asks each destination tag by tag, whatever is believed. `unattended` leaves a
    tag that failed alone until its time has come. `scope` narrows the run to what an event named. `in_hand` keeps
    runs that are under way at the same time apart. `rules` are all rules there are, by name: a belief that
    belongs to a rule no longer there protects nothing. `on_end` is told each destination's result as soon as that
    destination is through, the rule's name first.
    """

    sites: Mapping[str, Site]
    state: State
    events: Events
    clock: Clock
    rules: Mapping[str, Rule]
    in_hand: InHand
    dry: bool = False
    recheck: bool = False
    unattended: bool = False
    scope: Scope | None = None
    claims: Claims = field(default_factory=Claims)
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
