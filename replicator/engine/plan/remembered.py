"""What a run would decide on a tag, by memory alone. Pure: the same decision as in a run, with nobody asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from replicator.engine.observe.wanted import WantedTag
from replicator.engine.plan.decide import Facts, Policy, decide
from replicator.engine.plan.decision import Ask, told
from replicator.engine.plan.ownership import other_owner
from replicator.engine.plan.platforms import is_other_part, root_at
from replicator.engine.result import TagDecision
from replicator.engine.roots import Root
from replicator.policy.rule import Rule
from replicator.ports import Pending, Placement, TagBelief

_NEVER_DUE: Final = 1e18
"""A period in seconds of which no moment comes."""


class Memory(msgspec.Struct, frozen=True):
    """What the state has of one tag of a destination's repository."""

    belief: TagBelief | None = None
    placement: Placement | None = None
    pending: Pending | None = None


class TagRoute(msgspec.Struct, frozen=True):
    """A source tag, and where a rule takes it. `tag` None: a digest that is pinned without a tag, its own `key`."""

    repository: str
    tag: str | None
    destination: str
    target: str
    key: str


def remembered(
    rule: Rule, place: TagRoute, memory: Memory, rules: Mapping[str, Rule], now: float
) -> TagDecision | None:
    """What is decided on the tag, if both sides are as they were last seen; None where too little is remembered.

    Args:
        rule: the rule that takes the tag there.
        place: the tag.
        memory: what is known of it.
        rules: all rules by name; a belief of one that no longer exists protects nothing.
        now: epoch seconds.
    """
    belief, pending = memory.belief, memory.pending
    if pending is not None and pending.digest is not None:
        digest = pending.digest
    elif pending is None and belief is not None:
        digest = belief.source_digest
    else:
        return None
    owner = None
    if belief is not None:
        origin, at = (rule.source, place.repository, place.tag), (place.destination, place.target)
        owner = other_owner(rule, belief, rules, origin, at)
        if pending is None and belief.rule != rule.name and owner is not None:
            return None  # what this rule wants there is not known
    wanted = WantedTag(place.tag, place.key if place.tag else None, digest)
    known = root_at(digest, belief, memory.placement, None, rule.platforms, rule.part)
    is_known = (
        belief is not None and known == belief.digest and not is_other_part(memory.placement, rule.part)
    )
    facts = Facts(
        listed=belief is not None,
        belief=belief,
        placement=memory.placement,
        pending=pending,
        owner=owner if belief is not None and belief.source_digest != digest else None,
        root=None if is_known else Root(digest),
    )
    # What is due to be checked is believed until the check says otherwise.
    policy = Policy(
        rule=rule.name,
        place=f"{place.destination}/{place.target}",
        now=now,
        recheck=False,
        unattended=True,
        recheck_every=_NEVER_DUE,
        verify_every=_NEVER_DUE,
        referrers_every=_NEVER_DUE,
        platforms=rule.platforms,
        part=rule.part,
    )
    decision = decide(wanted, facts, policy)
    named = None if isinstance(decision, Ask) else told(decision)
    if named is None:
        return None
    return TagDecision(
        rule.name, place.destination, place.repository, place.tag, place.target, place.key, digest, *named
    )
