"""From a batch of wishes to actions at one destination: compare, ask where a comparison needs it, claim."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from replicator.engine.content.source import SourceContent
from replicator.engine.context import Context
from replicator.engine.coordination import Origin
from replicator.engine.faults import faults, is_unreadable
from replicator.engine.observe.destination import Catalog
from replicator.engine.observe.wanted import WantedTag, WantedTags
from replicator.engine.plan.compare import (
    Action,
    Change,
    compare,
    compare_seen,
    compare_unreadable,
)
from replicator.engine.plan.ownership import has_let_go, is_shared
from replicator.errors import NotFound, Rejected, SiteError
from replicator.model.digest import Digest
from replicator.policy.backoff import is_postponed
from replicator.policy.recheck import is_due
from replicator.policy.rule import Rule
from replicator.policy.selection import may_select
from replicator.ports import Placed, TagBelief

ASKS_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Who is told what becomes of a wish. None of them may wait.

    `copy`: it is to be copied. `same`: it is in step. `postponed`: it failed before and is not due, with the
    reason. `failed`: why nothing can be done. `unreadable`: the destination refuses to tell what a tag is.
    """

    copy: Callable[[Action], None]
    same: Callable[[WantedTag], None]
    postponed: Callable[[Action, str], None]
    failed: Callable[[Action, SiteError], None]
    unreadable: Callable[[SiteError], None]


class Decisions:
    """Decides, for one rule at one destination.

    Args:
        rule: the rule.
        destination: the destination's name.
        context: the run.
        content: resolves what the source was not asked for because it was believed to be settled.
        since: dates changes that are first seen now (epoch seconds).
        verdicts: where decisions go.
    """

    def __init__(
        self,
        rule: Rule,
        destination: str,
        context: Context,
        content: SourceContent,
        since: float,
        verdicts: Verdicts,
    ) -> None:
        self._rule = rule
        self._destination = destination
        self._context = context
        self._content = content
        self._since = since
        self._verdicts = verdicts
        self._breaker = context.breaker(destination)

    async def decide(self, batch: WantedTags, catalog: Catalog) -> None:
        """Decides on every wish of the batch; a failure of one leaves the others alone."""
        unknown: list[tuple[WantedTag, Digest | None]] = []
        for wish in batch.wishes:
            digest = wish.digest or self._settled(catalog, wish)
            if self._is_superseded(batch, catalog, wish):
                self._verdicts.same(wish)
            elif digest is None or self._compare(batch, catalog, wish, digest) is Change.UNKNOWN:
                unknown.append((wish, digest))
        await self._ask(batch, catalog, unknown)

    def _settled(self, catalog: Catalog, wish: WantedTag) -> Digest | None:
        """What an immutable tag is, by what we put there once; None where it has to be copied again."""
        belief = catalog.beliefs.get(wish.target or "")
        return belief.digest if belief is not None and catalog.lists(belief.tag) else None

    def _is_superseded(self, batch: WantedTags, catalog: Catalog, wish: WantedTag) -> bool:
        """Whether another run, which asked the source later than this one, has brought the tag in step."""
        key = wish.target or wish.digest or ""
        return self._context.locks.is_settled_since(
            (self._destination, catalog.repository.name, key),
            (self._rule.source, batch.repository, wish.tag),
            batch.asked_at,
        )

    def _compare(self, batch: WantedTags, catalog: Catalog, wish: WantedTag, digest: Digest) -> Change:
        key = wish.target or digest
        belief = catalog.beliefs.get(key)
        due = belief is not None and (
            self._context.recheck
            or catalog.tags is None
            or is_due(
                self._context.clock.now(), belief.checked_at, self._rule.recheck, self._place(catalog, key)
            )
        )
        # A digest that is pinned without a tag is in no listing: there a belief, while it holds, is all there is.
        listed = catalog.lists(wish.target) if wish.target else True
        told = catalog.digests.get(key) if catalog.digests is not None else None
        if told is not None:
            change = compare_seen(digest, told, belief)
            due = due or belief is None
        else:
            change = compare(digest, listed=listed, belief=belief, due=due)
        if change is Change.SAME:
            self._same(batch, catalog, wish, digest, asked=due)
        elif change is not Change.UNKNOWN:
            self._changed(batch, catalog, wish, digest, change)
        return change

    async def _settle(self, batch: WantedTags, catalog: Catalog, wish: WantedTag) -> None:
        """An immutable tag that was believed to be there and is not: what is it at the source?"""
        source = self._rule.source
        try:
            self._context.breaker(source).check("resolve tag", batch.repository)
            with faults(source, "resolve tag", batch.repository):
                digest = (await self._content.repository(batch.repository).resolve(wish.tag or "")).digest
        except SiteError as error:
            self._context.breaker(source).failed(error)
            belief = catalog.beliefs.get(wish.target or "")
            digest = belief.digest if belief else Digest("")
            self._verdicts.failed(self._action(batch, catalog, wish, digest, Change.ADDED), error)
            return
        self._changed(batch, catalog, wish, digest, Change.ADDED)

    async def _ask(
        self, batch: WantedTags, catalog: Catalog, unknown: Sequence[tuple[WantedTag, Digest | None]]
    ) -> None:
        waiting = iter(unknown)

        async def work() -> None:
            for wish, digest in waiting:
                if digest is None:
                    await self._settle(batch, catalog, wish)
                else:
                    await self._ask_one(batch, catalog, wish, digest)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(ASKS_AT_ONCE, len(unknown))):
                tasks.create_task(work())

    async def _ask_one(self, batch: WantedTags, catalog: Catalog, wish: WantedTag, digest: Digest) -> None:
        seen: Digest | None = None
        unreadable: SiteError | None = None
        try:
            self._breaker.check("resolve tag", catalog.repository.name)
            with faults(self._destination, "resolve tag", catalog.repository.name):
                seen = (await catalog.repository.resolve(wish.target or digest)).digest
            self._breaker.succeeded()
        except NotFound:
            pass
        except SiteError as error:
            if not is_unreadable(error):
                self._breaker.failed(error)
                self._verdicts.failed(self._action(batch, catalog, wish, digest, Change.UNKNOWN), error)
                return
            unreadable = error
        belief = catalog.beliefs.get(wish.target or digest)
        if unreadable is not None:
            if belief is not None:  # else the repository may only not exist yet
                self._verdicts.unreadable(unreadable)
            change = compare_unreadable(digest, belief)
        else:
            change = compare_seen(digest, seen, belief)
        if change is Change.SAME:
            self._same(batch, catalog, wish, digest, asked=True)
        else:
            self._changed(batch, catalog, wish, digest, change)

    def _same(
        self, batch: WantedTags, catalog: Catalog, wish: WantedTag, digest: Digest, *, asked: bool
    ) -> None:
        other = self._claim(batch, catalog, wish, digest)
        if other:
            self._contest(batch, self._action(batch, catalog, wish, digest, Change.SAME), other)
            return
        key = wish.target or digest
        if asked or key in catalog.pending:
            self.record(catalog, key, digest)
        self._verdicts.same(wish)

    def record(self, catalog: Catalog, key: str, digest: Digest) -> None:
        """Remembers that a target is in step, as seen now."""
        if self._context.dry:
            return
        belief = TagBelief(key, digest, digest, self._rule.name, self._context.clock.now())
        self._context.state.record(
            Placed(self._rule.name, self._destination, belief, catalog.repository.name)
        )

    def _place(self, catalog: Catalog, key: str) -> str:
        return f"{self._destination}/{catalog.repository.name}:{key}"

    def _changed(
        self, batch: WantedTags, catalog: Catalog, wish: WantedTag, digest: Digest, change: Change
    ) -> None:
        action = self._action(batch, catalog, wish, digest, change)
        other = self._claim(batch, catalog, wish, digest) or self._owner(batch, catalog, wish, digest)
        if other:
            self._contest(batch, action, other)
            return
        pending = catalog.pending.get(wish.target or digest)
        if (
            self._context.unattended
            and pending
            and is_postponed(self._context.clock.now(), pending.not_before)
        ):
            self._verdicts.postponed(action, f"failed before ({pending.error}); not tried again yet")
            return
        self._verdicts.copy(action)

    def _contest(self, batch: WantedTags, action: Action, other: str) -> None:
        cause = f"{self._claimant(batch)} wants {action.digest} there, but {other} has another digest for it"
        operation = f"claim tag {action.wish.target}"
        self._verdicts.failed(action, Rejected(self._destination, operation, cause, repository=action.target))

    def _claimant(self, batch: WantedTags) -> str:
        return f"rule {self._rule.name} (from {self._rule.source}: {batch.repository})"

    def _claim(self, batch: WantedTags, catalog: Catalog, wish: WantedTag, digest: Digest) -> str | None:
        if wish.target is None:
            return None
        place = (self._destination, catalog.repository.name)
        claimant = f"{self._claimant(batch)} tag {wish.tag}"
        return self._context.claims.claim(place, wish.target, claimant, self._origin(batch, wish), digest)

    def _origin(self, batch: WantedTags, wish: WantedTag) -> Origin:
        """What the wish is of: a source tag, or the digest that a pin has chosen."""
        is_tag = wish.tag is not None and may_select(self._rule.tags, wish.tag)
        return self._rule.source, batch.repository, wish.tag if is_tag else wish.digest

    def _owner(self, batch: WantedTags, catalog: Catalog, wish: WantedTag, digest: Digest) -> str | None:
        """Another rule, still there, that put something else under the tag, and not because it was that at its source."""
        belief = catalog.beliefs.get(wish.target or digest)
        if belief is None or belief.rule == self._rule.name or belief.digest == digest:
            return None
        other = self._context.rules.get(belief.rule)
        if other is None:
            return None
        target = (self._destination, catalog.repository.name, belief.tag)
        origin = (self._rule.source, batch.repository, wish.tag)
        if is_shared(self._rule, other, origin, target) or has_let_go(other, origin, target):
            return None
        return f"rule {belief.rule}"

    def _action(
        self, batch: WantedTags, catalog: Catalog, wish: WantedTag, digest: Digest, change: Change
    ) -> Action:
        pending = catalog.pending.get(wish.target or digest)
        return Action(
            repository=batch.repository,
            target=catalog.repository.name,
            wish=wish,
            digest=digest,
            reason=change.value,
            since=pending.since if pending else self._since,
            asked_at=batch.asked_at,
            attempts=pending.attempts if pending else 0,
        )
