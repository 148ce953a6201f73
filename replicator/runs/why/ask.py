"""Gathers what is known of the tags that are asked about, from the state or from the sites, and has it explained."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from replicator.engine.context import RunListener, RunScope
from replicator.engine.engine import Engine
from replicator.engine.plan.remembered import Memory
from replicator.engine.result import ActionResult, Failure, RuleResult, TagDecision
from replicator.model.digest import Digest
from replicator.policy.mapping import target_repository, target_tag
from replicator.policy.rule import ImageSet, Rule
from replicator.policy.selection import select_repository
from replicator.ports import State, Unit
from replicator.ports.search import Holding, ImageIndex, Query
from replicator.runs.why.answer import Answer, Explanation, sum_up
from replicator.runs.why.asked import Asked, SourceTag, source_names, source_tags, sources_of
from replicator.runs.why.explain import Explaining
from replicator.runs.why.known import Agenda, Fresh, Known

MAX_FOUND: Final = 100
"""Tags that a digest may lead to."""

_Key = tuple[str, str, str, str | None]
"""Rule, destination, source repository, source tag (or digest, where it is pinned without a tag)."""
_Place = tuple[Rule, SourceTag, str]
"""A source tag by a rule at a destination."""
_Targets = Mapping[str, Collection[tuple[str, str]]]
"""By rule, source and target of the repositories that it is known to have taken somewhere."""


@dataclass(frozen=True)
class Asker:
    """Answers questions about rules.

    `rules`: as this agent runs them. `all_rules`: every rule of the config with all its destinations. `agenda`: what a
    running agent knows of a rule at a destination.
    """

    rules: Sequence[Rule]
    all_rules: Sequence[Rule]
    state: State
    index: ImageIndex
    now: Callable[[], float]
    agenda: Callable[[str, str], Agenda] = field(default=lambda _rule, _destination: Agenda())

    async def answer(self, asked: Asked, at: str | None, engine: Engine | None = None) -> Answer:
        """The answer, from the state; with an engine, from the sites.

        Args:
            asked: what is asked about.
            at: only this destination; None for all.
            engine: asks the sites as `plan` does, for these tags alone.
        """
        targets = {rule.name: await self._targets(rule) for rule in self.all_rules}
        by_rule = await self._wanted(asked, targets)
        others = 0
        if any(_selects(rule, tag) for rule, tags in by_rule for tag in tags):
            kept = [(rule, [tag for tag in tags if _selects(rule, tag)]) for rule, tags in by_rule]
            by_rule = [(rule, tags) for rule, tags in kept if tags]
            others = len(kept) - len(by_rule)
        places = [
            (rule, tag, destination)
            for rule, tags in by_rule
            for tag in tags
            for destination in self._destinations(rule, asked, at)
        ]
        looked = None if engine is None else await self._look(places, engine, targets)
        images = await _lists(rule for rule, _, _ in places)
        units = await self._units(places)
        explanations = []
        for rule, tag, destination in places:
            unit = units.get((rule.name, destination, tag.repository))
            explanations.append(
                await self._explain(rule, tag, destination, unit, images.get(rule.name), looked)
            )
        problems = [] if explanations else [self._nothing(asked, at)]
        return Answer(
            asked=asked.text,
            fresh=engine is not None,
            verdict=sum_up(each.verdict for each in explanations),
            explanations=explanations,
            other_rules=others,
            problems=problems,
        )

    # --- which tags ---

    async def _wanted(self, asked: Asked, targets: _Targets) -> list[tuple[Rule, list[SourceTag]]]:
        if asked.tag is not None or (asked.repository is not None and asked.digest is None):
            found = [(rule, source_tags(rule, asked, targets[rule.name])) for rule in self.all_rules]
        else:
            held = await self.index.search(Query(digest=(asked.digest or "").partition(":")[2]), MAX_FOUND)
            found = [(rule, _of_digest(rule, asked, held, targets[rule.name])) for rule in self.all_rules]
        return [(rule, tags) for rule, tags in found if tags]

    async def _targets(self, rule: Rule) -> set[tuple[str, str]]:
        return {(unit.repository, unit.target) for unit in await self.state.units(rule.name)}

    def _destinations(self, rule: Rule, asked: Asked, at: str | None) -> Iterable[str]:
        only = at
        if only is None and asked.site is not None and asked.site != rule.source:
            only = asked.site
        return [each for each in rule.destinations if only in {None, each}]

    def _nothing(self, asked: Asked, at: str | None) -> str:
        rules = ", ".join(sorted(rule.name for rule in self.all_rules)) or "none"
        if asked.repository is None:
            return f"{asked.text}: no run has seen this digest, and no rule pins it"
        where = f" at {at}" if at else ""
        return f"{asked.text}: no rule takes it anywhere{where}; the rules are {rules}"

    # --- what is known ---

    async def _units(self, places: Sequence[_Place]) -> Mapping[tuple[str, str, str], Unit]:
        """What runs have noted of the source repositories, by rule, destination and repository."""
        repositories: defaultdict[str, set[str]] = defaultdict(set)
        for rule, tag, _ in places:
            repositories[rule.name].add(tag.repository)
        return {
            (name, unit.destination, unit.repository): unit
            for name, wanted in repositories.items()
            for unit in await self.state.units(name, repositories=wanted)
        }

    async def _explain(
        self,
        rule: Rule,
        tag: SourceTag,
        destination: str,
        unit: Unit | None,
        images: ImageSet | None,
        looked: _Looked | None,
    ) -> Explanation:
        last_error = ""
        if unit is not None and unit.unknown:
            last_error = await self._last_error(rule.name, destination)
        served = any(each.name == rule.name and destination in each.destinations for each in self.rules)
        known = Known(
            now=self.now(),
            rules={each.name: each for each in self.all_rules},
            memory=await self._memory(rule, tag, destination),
            unit=unit,
            last_error=last_error,
            images=images,
            served=served,
            agenda=self.agenda(rule.name, destination),
            fresh=None if looked is None or not served else looked.fresh(rule, tag, destination),
        )
        return Explaining(rule, tag, destination, known).explain()

    async def _last_error(self, rule: str, destination: str) -> str:
        place = rule, destination
        standings = await self.state.standings()
        return next((each.last_error for each in standings if (each.rule, each.destination) == place), "")

    async def _memory(self, rule: Rule, tag: SourceTag, destination: str) -> Memory:
        names = _names(rule, tag)
        if names is None:
            return Memory()
        target, key = names
        belief = (await self.state.beliefs(destination, target, [key])).get(key)
        pending = (await self.state.pending(rule.name, destination, target, [key])).get(key)
        placement = None
        if belief is not None:
            placement = (await self.state.placements(destination, target, [belief.digest])).get(belief.digest)
        return Memory(belief, placement, pending)

    # --- asking the sites ---

    async def _look(self, places: Sequence[_Place], engine: Engine, targets: _Targets) -> _Looked:
        """Plans these tags, and with them whatever else leads to the same targets."""
        served = {rule.name: rule for rule in self.rules}
        looked = _Looked()
        scope: defaultdict[str, set[str] | None] = defaultdict(set)
        for rule, tag, destination in places:
            if rule.name in served:
                _widen(scope, tag.repository, {tag.tag} if tag.tag else None)
            for other in self.rules:
                if destination in other.destinations:
                    _add_rivals(scope, rule, tag, other, targets[other.name])
        destinations = frozenset(destination for _, _, destination in places)
        rules = [each for each in self.rules if destinations & set(each.destinations)]
        if not scope or not rules:
            return looked
        frozen = {name: None if tags is None else frozenset(tags) for name, tags in scope.items()}
        listener = RunListener(selecting=looked.selecting, decided=looked.decide)
        results = await engine.plan(
            rules, destinations=destinations, scope=RunScope(frozen), listener=listener
        )
        looked.take(results)
        return looked


def _of_digest(
    rule: Rule, asked: Asked, held: Iterable[Holding], targets: Collection[tuple[str, str]]
) -> list[SourceTag]:
    """The rule's tags that are seen, wanted or pinned with a digest; of a repository, where one was named.

    `held`: what the index has of the digest. `targets`: source and target of the rule's repositories.
    """
    digest = asked.digest or Digest("")
    found: dict[SourceTag, None] = {}
    for each in held:
        if each.rule != rule.name or digest not in {each.digest, each.source_digest}:
            continue
        named = Asked(asked.text, each.destination, each.repository, each.tag, None)
        if asked.repository in {None, each.repository, *each.sources}:
            found |= dict.fromkeys(source_tags(rule, named, targets))
    for pin in (pin for table in rule.tags for pin in table.pins if pin.digest == digest):
        for repository in sorted({source for source, _ in targets}):
            if asked.repository in {None, repository}:
                found[SourceTag(repository, pin.tag, digest)] = None
    return list(found)


def _add_rivals(
    scope: dict[str, set[str] | None],
    rule: Rule,
    tag: SourceTag,
    other: Rule,
    targets: Collection[tuple[str, str]],
) -> None:
    """Adds to the scope the source tags of another rule (or this one) that lead to the same target."""
    names = _names(rule, tag)
    if names is None:
        return
    target, key = names
    for repository in sources_of(other, target, targets):
        _widen(scope, repository, set(source_names(other, key)) if tag.tag is not None else None)


class _Looked:
    """What a plan told, as it went."""

    def __init__(self) -> None:
        self._selected_from: dict[tuple[str, str], tuple[Collection[str], Mapping[str, float] | None]] = {}
        self._decisions: dict[_Key, TagDecision] = {}
        self._rows: dict[tuple[str, str, str, str], ActionResult] = {}
        self._failures: defaultdict[tuple[str, str], list[Failure]] = defaultdict(list)

    def selecting(
        self, rule: str, repository: str, tags: Collection[str], created: Mapping[str, float] | None
    ) -> None:
        self._selected_from[rule, repository] = tags, created

    def decide(self, decision: TagDecision) -> None:
        key = (decision.rule, decision.destination, decision.repository, decision.tag or decision.key)
        self._decisions[key] = decision

    def take(self, results: Sequence[RuleResult]) -> None:
        for rule in results:
            for at in rule.destinations:
                self._failures[rule.rule, at.destination] += at.failures
                for row in at.actions:
                    key = row.tag or row.digest
                    self._rows[rule.rule, at.destination, row.repository, key] = row

    def fresh(self, rule: Rule, tag: SourceTag, destination: str) -> Fresh:
        tags, created = self._selected_from.get((rule.name, tag.repository), (None, None))
        names = _names(rule, tag)
        if names is None:
            return Fresh(tags, created)
        target, key = names
        decision = self._decisions.get((rule.name, destination, tag.repository, tag.tag or key))
        row = self._rows.get((rule.name, destination, tag.repository, key))
        failures = [
            each
            for each in self._failures[rule.name, destination]
            if each.repository in {None, target, tag.repository}
        ]
        return Fresh(tags, created, decision, row, failures)


def _names(rule: Rule, tag: SourceTag) -> tuple[str, str] | None:
    """Repository and tag (or digest) at a destination; None where the rule can give it none."""
    try:
        target = target_repository(rule, tag.repository)
        return target, target_tag(rule, tag.tag) if tag.tag is not None else str(tag.digest)
    except ValueError:
        return None


def _selects(rule: Rule, tag: SourceTag) -> bool:
    return select_repository(rule.repositories, tag.repository)


def _widen(scope: dict[str, set[str] | None], repository: str, tags: set[str] | None) -> None:
    known = scope.get(repository, set())
    scope[repository] = None if known is None or tags is None else known | tags


async def _lists(rules: Iterable[Rule]) -> dict[str, ImageSet]:
    """What the rules' image lists name, read once each."""
    named = {rule.name: rule.images for rule in rules if rule.images is not None}
    return {name: await asyncio.to_thread(images.read) for name, images in named.items()}
