"""The request apart from the collaborators: how a run was asked for, and what it works with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec

from replicator.engine.below import KnownChildren, SeenCompanions
from replicator.engine.coordination import RepositoryLocks, TagClaims
from replicator.engine.referrers import ReferrersAPIs
from replicator.engine.result import DestinationResult, TagDecision
from replicator.engine.roots import ChosenRoots
from replicator.engine.ticks import Ticks
from replicator.engine.verdicts import Verdicts
from replicator.events import Events
from replicator.flow.breaker import Breaker
from replicator.model.shards import Shard
from replicator.policy.rule import Rule
from replicator.ports import Assignment, Clock, Site, SplitsOff, State

DRAIN_SECONDS: Final = 25.0
"""Transfers in progress when a drain begins get this long; systemd's stop timeout leaves room for the rest."""


class RunScope(msgspec.Struct, frozen=True):
    """Source repositories to scan, each with its tags, or whole (None). `at` dates the event, epoch seconds.

    A narrowed run is never a complete scan, whatever it finds.
    """

    repositories: Mapping[str, frozenset[str] | None]
    at: float | None = None


class RunListener(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told how a run goes on. Each is called with the rule's name and the destination's.

    `ended`: the destination's result, as soon as it is through. `scanned`: all that was found is decided on; copies may
    go on. `repository_done`: the source repository is through. `busy`: the source repository was left out because
    another run works on its target; called when the target is free again. `selecting`: a source repository is about to
    be selected from: its tags, and creation times where they matter. `decided`: gets each decision.
    """

    ended: Callable[[str, DestinationResult], None] | None = None
    scanned: Callable[[str, str], None] | None = None
    repository_done: Callable[[str, str, str], None] | None = None
    busy: Callable[[str, str, str], None] | None = None
    selecting: Callable[[str, str, Collection[str], Mapping[str, float] | None], None] | None = None
    decided: Callable[[TagDecision], None] | None = None


class Request(msgspec.Struct, frozen=True):
    """How a run was asked for.

    `dry` only plans. `recheck` asks each destination tag by tag and checks each closure, whatever is believed.
    `unattended` leaves a tag that failed alone until its time has come, and a repository that another run works on to
    that run. `scope` narrows the run to what an event named.

    `assignment`: the part of the rules that the run does in a fleet; None: all of them.
    """

    dry: bool = False
    recheck: bool = False
    unattended: bool = False
    scope: RunScope | None = None
    draining: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    listener: RunListener = msgspec.field(default_factory=RunListener)
    assignment: Assignment | None = None

    @property
    def shard(self) -> Shard | None:
        """The part of the repositories that the run looks at; None: all."""
        return None if self.assignment is None else self.assignment.shard

    @property
    def splits(self) -> SplitsOff | None:
        """Tells which repositories are left to other jobs of a fleet; None: none is."""
        return None if self.assignment is None else self.assignment.splits

    @property
    def narrowed_to(self) -> tuple[str, ...] | None:
        """The source repositories that the run scans, None where it is not narrowed."""
        return None if self.scope is None else tuple(sorted(self.scope.repositories))

    @property
    def leaves_busy(self) -> bool:
        """Whether a repository that another run works on is left to that run."""
        return self.unattended and self.scope is None and not self.dry


class Context(msgspec.Struct):
    """What the parts of one run work with.

    `locks` keeps runs apart that are in progress at the same time. Remembered between runs: `apis`, which sites list
    referrers; `verdicts`, which images are trusted; `roots`, what choices of platforms make of images; `children`, what
    is below roots; `companions`, which tags of referrers listings had; `ticks`, what was asked for all shards of a rule.
    `rules` are all rules by name: a belief of a rule that no longer exists protects nothing. `running` are those of this
    run.
    """

    sites: Mapping[str, Site]
    state: State
    events: Events
    clock: Clock
    rules: Mapping[str, Rule]
    locks: RepositoryLocks
    apis: ReferrersAPIs
    request: Request = msgspec.field(default_factory=Request)
    running: Sequence[Rule] = ()
    verdicts: Verdicts = msgspec.field(default_factory=Verdicts)
    claims: TagClaims = msgspec.field(default_factory=TagClaims)
    breakers: dict[str, Breaker] = msgspec.field(default_factory=dict)
    ticks: Ticks = msgspec.field(default_factory=Ticks)
    roots: ChosenRoots = msgspec.field(default_factory=ChosenRoots)
    children: KnownChildren = msgspec.field(default_factory=KnownChildren)
    companions: SeenCompanions = msgspec.field(default_factory=SeenCompanions)

    def breaker(self, site: str) -> Breaker:
        """The run's breaker of a site."""
        return self.breakers.setdefault(site, Breaker(site))
