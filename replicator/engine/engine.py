"""The engine: rules in, what became of them out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from replicator.engine.below import KnownChildren, SeenCompanions
from replicator.engine.content.spool import Spool
from replicator.engine.context import Context, Request, RunListener, RunScope
from replicator.engine.coordination import RepositoryLocks
from replicator.engine.referrers import ReferrersAPIs
from replicator.engine.result import RuleResult
from replicator.engine.roots import ChosenRoots
from replicator.engine.run import RuleRun
from replicator.engine.shared import Shared
from replicator.engine.ticks import Ticks
from replicator.engine.verdicts import Verdicts
from replicator.errors import ReplicatorError
from replicator.events import Events
from replicator.policy.mapping import target_repository
from replicator.policy.rule import Rule
from replicator.ports import Assignment, BlobClaims, Clock, Site, State


class Engine:
    """Runs rules over sites.

    Args:
        sites: every site that the rules name.
        state: the memory.
        events: told everything.
        clock: the time.
        spool: for sources that feed several destinations; None streams.
        rules: all rules there are, also those not run: their targets are theirs.
        blob_claims: which blobs other agents bring to destinations now; None where there is one agent.
    """

    def __init__(
        self,
        *,
        sites: Mapping[str, Site],
        state: State,
        events: Events,
        clock: Clock,
        spool: Spool | None,
        rules: Sequence[Rule] = (),
        blob_claims: BlobClaims | None = None,
    ) -> None:
        self._sites = sites
        self._state = state
        self._events = events
        self._clock = clock
        self._spool = spool
        self._blob_claims = blob_claims
        self._rules = {rule.name: rule for rule in rules}
        self._locks = RepositoryLocks(clock)
        self._apis = ReferrersAPIs(clock)
        self._verdicts = Verdicts()
        self._roots = ChosenRoots()
        self._children = KnownChildren()
        self._companions = SeenCompanions()
        self._ticks = Ticks()
        self._shared: Shared | None = None
        self._drains: set[asyncio.Event] = set()
        self._draining = False

    async def sync(
        self,
        rules: Sequence[Rule],
        *,
        destinations: frozenset[str] | None = None,
        recheck: bool = False,
        unattended: bool = False,
        scope: RunScope | None = None,
        drain: asyncio.Event | None = None,
        listener: RunListener | None = None,
        assignment: Assignment | None = None,
    ) -> list[RuleResult]:
        """Brings destinations in step.

        May be called while other calls are in progress: runs that meet in a repository of a destination go one after
        the other, and all share content and transfers.

        Args:
            rules: which, side by side.
            destinations: only these; None means all.
            recheck: asks each destination tag by tag and checks every closure, whatever is believed.
            unattended: leaves tags that failed before alone until their time has come, and repositories that another
                run works on to that run.
            scope: scans only what an event named.
            drain: once set, these runs end as `drain` ends all.
            listener: is told how the runs go on, long before the call returns.
            assignment: does only this part of the rules. Once the ownership of it is lost, the runs end, "interrupted".

        Raises:
            StateError: the memory cannot be kept; what was copied is copied.
        """
        request = Request(
            recheck=recheck,
            unattended=unattended,
            scope=scope,
            draining=drain or asyncio.Event(),
            listener=listener or RunListener(),
            assignment=assignment,
        )
        return await self._run(rules, destinations, request)

    def is_busy(self, rule: Rule, destination: str, repository: str) -> bool:
        """Whether a run works on what a source repository leads to at a destination."""
        try:
            target = target_repository(rule, repository)
        except ValueError:
            return False
        return self._locks.is_locked((destination, target))

    async def plan(
        self,
        rules: Sequence[Rule],
        *,
        destinations: frozenset[str] | None = None,
        scope: RunScope | None = None,
        listener: RunListener | None = None,
    ) -> list[RuleResult]:
        """What `sync` would do, asking only; arguments as there. Writes nothing, neither at a site nor to the state."""
        return await self._run(
            rules, destinations, Request(dry=True, scope=scope, listener=listener or RunListener())
        )

    def drain(self) -> None:
        """Starts nothing new. Transfers in progress get `DRAIN_SECONDS` to finish; then `sync` returns, "interrupted"."""
        self._draining = True
        for drain in self._drains:
            drain.set()

    async def _run(
        self, rules: Sequence[Rule], destinations: frozenset[str] | None, request: Request
    ) -> list[RuleResult]:
        if self._draining:
            request.draining.set()
        self._drains.add(request.draining)
        chosen = [(rule, _chosen(rule, destinations)) for rule in rules]
        context = Context(
            self._sites,
            self._state,
            self._events,
            self._clock,
            rules=self._rules | {rule.name: rule for rule in rules},
            locks=self._locks,
            apis=self._apis,
            verdicts=self._verdicts,
            roots=self._roots,
            children=self._children,
            companions=self._companions,
            ticks=self._ticks,
            request=request,
            running=rules,
        )
        try:
            async with self._sharing(request) as shared:
                runs = [await RuleRun.begin(rule, names, context, shared) for rule, names in chosen if names]
                await _run_all(runs)
                return [await run.close() for run in runs]
        finally:
            self._drains.discard(request.draining)

    @asynccontextmanager
    async def _sharing(self, request: Request) -> AsyncIterator[Shared]:
        """What to share with other runs. A plan has its own: it notes as present what it would only bring."""
        shared = None if request.dry else self._shared
        if shared is None:
            shared = Shared(
                self._sites,
                self._state,
                self._events,
                self._clock,
                self._spool,
                self._apis,
                self._blob_claims,
            )
            if not request.dry:
                self._shared = shared
        else:
            shared.refresh()
        shared.enter()
        try:
            yield shared
        finally:
            if shared.is_last and self._shared is shared:
                self._shared = None  # nobody may join what is about to end
            await shared.leave()


def _chosen(rule: Rule, destinations: frozenset[str] | None) -> tuple[str, ...]:
    return tuple(name for name in rule.destinations if destinations is None or name in destinations)


async def _run_all(runs: Sequence[RuleRun]) -> None:
    try:
        async with asyncio.TaskGroup() as tasks:
            for run in runs:
                tasks.create_task(run.run())
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error that is ours, else the first; a task group has nothing more to say than its tasks."""
    matching = group.subgroup(ReplicatorError) or group
    error: BaseException = matching
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
