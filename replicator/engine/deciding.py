"""From a batch of wanted tags to decisions at one destination: gathers facts, decides, asks what is missing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from msgspec.structs import replace

from replicator.engine.content.source import SourceContent
from replicator.engine.context import Context
from replicator.engine.coordination import Origin
from replicator.engine.observe.destination import Catalog
from replicator.engine.observe.wanted import WantedTag, WantedTags
from replicator.engine.plan.action import Action
from replicator.engine.plan.compare import Change
from replicator.engine.plan.decide import Facts, Policy, decide, digest_of, rests_on
from replicator.engine.plan.decision import Ask, Conflict, Copy, Decision, InStep, Postponed, Question
from replicator.engine.plan.ownership import may_collide, other_owner
from replicator.engine.plan.platforms import placed_root, rewrites, rewriting_note
from replicator.engine.questions import Questions
from replicator.engine.record import Recorder
from replicator.errors import SiteError
from replicator.flow.parallel import each
from replicator.model.companion import state_of_companions
from replicator.model.digest import Digest
from replicator.policy.rule import Rule
from replicator.policy.selection import may_select
from replicator.ports import Placement

ASKS_AT_ONCE: Final = 32


class Deciding:
    """Decides, for one rule at one destination.

    Args:
        rule: the rule.
        destination: the destination's name.
        context: the run.
        content: resolves what the source was not asked for because it was believed to be settled.
        since: dates changes that are first seen now, by source repository (epoch seconds).
        act: gets each decision, never an `Ask`; must not wait.
        recorder: is told what could not be asked.
    """

    def __init__(
        self,
        rule: Rule,
        destination: str,
        context: Context,
        *,
        content: SourceContent,
        since: Callable[[str], float],
        act: Callable[[Action, Catalog, Decision], None],
        recorder: Recorder,
    ) -> None:
        self._rule = rule
        self._destination = destination
        self._context = context
        self._since = since
        self._act = act
        self._recorder = recorder
        self._questions = Questions(rule, destination, context, content, recorder)
        others = [each for each in context.running if each is not rule and destination in each.destinations]
        self._is_contested = bool(others) or may_collide(rule)

    async def decide(self, batch: WantedTags, catalog: Catalog) -> None:
        """Decides on every tag of the batch; a failure of one leaves the others alone."""
        policy = self._policy(catalog)
        placements = await self._placements(batch, catalog)
        unknown: list[tuple[WantedTag, Facts, Ask]] = []
        for wanted in batch.tags:
            facts = self._facts(batch, catalog, wanted, placements)
            decision = decide(wanted, facts, policy)
            if isinstance(decision, Ask):
                unknown.append((wanted, facts, decision))
            else:
                self._conclude(batch, catalog, wanted, facts, decision)
        await each(unknown, lambda one: self._settle(batch, catalog, policy, *one), width=ASKS_AT_ONCE)

    def _policy(self, catalog: Catalog) -> Policy:
        request, rule = self._context.request, self._rule
        return Policy(
            rule=rule.name,
            place=f"{self._destination}/{catalog.repository.name}",
            now=self._context.clock.now(),
            recheck=request.recheck,
            unattended=request.unattended,
            recheck_every=rule.recheck,
            verify_every=rule.verify_every,
            referrers_every=None if rule.referrers == "none" else rule.referrers_recheck,
            platforms=rule.platforms,
            part=rule.part,
        )

    async def _placements(self, batch: WantedTags, catalog: Catalog) -> Mapping[Digest, Placement]:
        """What is remembered of the roots of a batch: those of the whole repository would take tens of megabytes."""
        roots = {
            self._placed(catalog, wanted, digest)
            for wanted in batch.tags
            if (digest := self._digest_of(catalog, wanted)) is not None
        }
        return await self._recall(catalog, roots) if roots else {}

    async def _recall(self, catalog: Catalog, roots: Collection[Digest]) -> Mapping[Digest, Placement]:
        return await self._context.state.placements(self._destination, catalog.repository.name, roots)

    def _digest_of(self, catalog: Catalog, wanted: WantedTag) -> Digest | None:
        belief = catalog.beliefs.get(wanted.key)
        return digest_of(
            wanted, self._rule.name, belief=belief, listed=_is_listed(catalog, wanted), source=None
        )

    def _facts(
        self,
        batch: WantedTags,
        catalog: Catalog,
        wanted: WantedTag,
        placements: Mapping[Digest, Placement],
    ) -> Facts:
        key, digest = wanted.key, self._digest_of(catalog, wanted)
        return Facts(
            listed=_is_listed(catalog, wanted),
            told=catalog.digests.get(key) if catalog.digests is not None else None,
            is_hint=catalog.is_hint,
            fixed=catalog.fixed.get(key, ""),
            is_archived=key in catalog.archived,
            companions=_companions(batch, digest),
            belief=catalog.beliefs.get(key),
            placement=None if digest is None else placements.get(self._placed(catalog, wanted, digest)),
            pending=catalog.pending.get(key),
            is_superseded=self._is_superseded(batch, catalog, wanted),
            claimed_by=self._claim(batch, catalog, wanted, digest),
            owner=self._owner(batch, catalog, wanted, digest),
        )

    def _placed(self, catalog: Catalog, wanted: WantedTag, digest: Digest) -> Digest:
        """The root whose placement tells of the image. `digest`: at the source."""
        return placed_root(digest, catalog.beliefs.get(wanted.key), self._rule.platforms)

    async def _placement(self, root: Digest, catalog: Catalog) -> Placement | None:
        return (await self._recall(catalog, [root])).get(root)

    def _source(self, wanted: WantedTag, facts: Facts) -> Digest | None:
        """The root at the source."""
        belief, listed = facts.belief, facts.listed
        return digest_of(wanted, self._rule.name, belief=belief, listed=listed, source=facts.source)

    def _is_superseded(self, batch: WantedTags, catalog: Catalog, wanted: WantedTag) -> bool:
        """Whether another run, which asked the source later than this one, has brought the tag in step."""
        return self._context.locks.is_settled_since(
            (self._destination, catalog.repository.name, wanted.key),
            (self._rule.source, batch.repository, wanted.tag),
            batch.asked_at,
        )

    def _claim(
        self, batch: WantedTags, catalog: Catalog, wanted: WantedTag, digest: Digest | None
    ) -> str | None:
        if wanted.target is None or digest is None or not self._is_contested:
            return None
        key = (self._destination, catalog.repository.name)
        claimant = f"rule {self._rule.name} (from {self._rule.source}: {batch.repository}) tag {wanted.tag}"
        if rewrites(self._rule.platforms):
            digest = Digest(f"{digest} {self._rule.part}")  # two choices of one index are two images
        return self._context.claims.claim(key, wanted.target, claimant, self._origin(batch, wanted), digest)

    def _origin(self, batch: WantedTags, wanted: WantedTag) -> Origin:
        """What is wanted: a source tag, or the digest that a pin has chosen."""
        is_tag = wanted.tag is not None and may_select(self._rule.tags, wanted.tag)
        return self._rule.source, batch.repository, wanted.tag if is_tag else wanted.digest

    def _owner(
        self, batch: WantedTags, catalog: Catalog, wanted: WantedTag, digest: Digest | None
    ) -> str | None:
        belief = catalog.beliefs.get(wanted.key)
        if belief is None or belief.digest == digest:
            return None
        origin = (self._rule.source, batch.repository, wanted.tag)
        place = (self._destination, catalog.repository.name)
        return other_owner(self._rule, belief, self._context.rules, origin, place)

    # --- asking ---

    async def _settle(
        self, batch: WantedTags, catalog: Catalog, policy: Policy, wanted: WantedTag, facts: Facts, ask: Ask
    ) -> None:
        """Asks until it is decided."""
        decision: Decision = ask
        while isinstance(decision, Ask):
            try:
                facts = await self._answer(batch, catalog, wanted, facts, decision)
            except SiteError as error:
                self._context.breaker(error.site).failed(error)
                digest = decision.digest or (facts.belief.digest if facts.belief else Digest(""))
                action = self._action(batch, wanted, facts, digest, Change.UNKNOWN)
                self._recorder.failed(action, error, was_queued=False)
                return
            decision = decide(wanted, facts, policy)
        self._conclude(batch, catalog, wanted, facts, decision)

    async def _answer(
        self, batch: WantedTags, catalog: Catalog, wanted: WantedTag, facts: Facts, ask: Ask
    ) -> Facts:
        match ask.question:
            case Question.TAG:
                return replace(facts, seen=await self._questions.tag(catalog, wanted, facts))
            case Question.CLOSURE:
                return replace(
                    facts, closure=await self._questions.closure(catalog, ask.digest or Digest(""))
                )
            case Question.REFERRERS:
                return replace(
                    facts,
                    referrers=await self._questions.referrers(
                        batch,
                        catalog,
                        ask.digest or Digest(""),
                        facts.closure,
                        is_rewritten=ask.digest != self._source(wanted, facts),
                        is_thorough=wanted.news or self._context.request.recheck,
                    ),
                )
            case Question.SOURCE:
                digest = await self._questions.source(batch, wanted)
                return replace(
                    facts,
                    source=digest,
                    companions=_companions(batch, digest),
                    placement=await self._placement(self._placed(catalog, wanted, digest), catalog),
                    claimed_by=self._claim(batch, catalog, wanted, digest),
                    owner=self._owner(batch, catalog, wanted, digest),
                )
            case Question.PLATFORMS:
                root = await self._questions.platforms(batch, ask.digest or Digest(""))
                return replace(facts, root=root, placement=await self._placement(root.digest, catalog))

    # --- concluding ---

    def _conclude(
        self, batch: WantedTags, catalog: Catalog, wanted: WantedTag, facts: Facts, decision: Decision
    ) -> None:
        change, digest = Change.SAME, wanted.digest
        missing: tuple[Digest, ...] = ()
        match decision:
            case Copy():
                digest, change, missing = decision.digest, decision.change, decision.missing
            case Conflict() | Postponed():
                digest, change = decision.digest, decision.change
            case InStep():
                digest = decision.digest
        action = self._action(batch, wanted, facts, digest or Digest(""), change, missing)
        action.note = rewriting_note(action, self._rule.platforms)
        self._act(action, catalog, decision)

    def _action(
        self,
        batch: WantedTags,
        wanted: WantedTag,
        facts: Facts,
        digest: Digest,
        change: Change,
        missing: tuple[Digest, ...] = (),
    ) -> Action:
        pending, belief, companion_state = facts.pending, facts.belief, facts.companions
        source = self._source(wanted, facts) or digest
        if companion_state is None:  # the source was not listed: as before
            is_same = belief is not None and belief.digest == digest
            companion_state = belief.companions if belief is not None and is_same else ""
        return Action(
            repository=batch.repository,
            target=batch.target,
            wanted=wanted,
            digest=digest,
            reason=change.value,
            since=pending.since if pending and not pending.hold else self._since(batch.repository),
            asked_at=batch.asked_at,
            asked_wall=batch.asked_wall,
            attempts=pending.attempts if pending else 0,
            missing=missing,
            placement=facts.placement,
            was_placed=facts.placement is not None and change in {Change.ADDED, Change.INCOMPLETE},
            companions=batch.companions,
            companion_state=companion_state,
            source_digest=source,
            hold=pending.hold if pending and pending.digest == source else "",
            rests_on=rests_on(facts),
        )


def _is_listed(catalog: Catalog, wanted: WantedTag) -> bool | None:
    """See `Facts.listed`. A digest that is wanted without a tag is in no listing."""
    return True if wanted.target is None else catalog.lists(wanted.target)


def _companions(batch: WantedTags, digest: Digest | None) -> str | None:
    if batch.companions is None or digest is None:
        return None
    return state_of_companions(digest, batch.companions)
