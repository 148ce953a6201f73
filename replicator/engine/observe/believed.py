"""What is remembered of the tags that a rule wants of a repository."""

from __future__ import annotations

from collections.abc import Mapping

from replicator.model.digest import Digest
from replicator.policy.rule import Rule
from replicator.policy.selection import is_immutable
from replicator.ports import State


async def believed_tags(
    state: State, rule: Rule, target: str, targets: Mapping[str, str], *, is_narrow: bool
) -> Mapping[str, Digest]:
    """What source tags named when they were last copied.

    Args:
        state: the memory.
        rule: whose tags.
        target: the repository at the destinations.
        targets: source tags with their names there.
        is_narrow: these are few of many, so that the state is asked about these alone.
    """
    few = list(targets.values()) if is_narrow else None
    beliefs = await state.beliefs(rule.destinations[0], target, few)
    return {tag: beliefs[named].source_digest for tag, named in targets.items() if named in beliefs}


async def settled_tags(
    state: State, rule: Rule, target: str, targets: Mapping[str, str], *, is_narrow: bool
) -> set[str]:
    """Immutable tags that the rule put at every destination: the source is not asked for them again. As `believed_tags`."""
    immutable = {tag for tag in targets if is_immutable(rule.tags, tag)}
    for destination in rule.destinations:
        if not immutable:
            break
        few = [targets[tag] for tag in immutable] if is_narrow else None
        beliefs = await state.beliefs(destination, target, few)
        owned = {tag for tag, belief in beliefs.items() if belief.rule == rule.name}
        immutable = {tag for tag in immutable if targets[tag] in owned}
    return immutable
