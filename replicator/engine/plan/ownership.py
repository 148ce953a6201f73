"""Who wants which target: two sources for one tag must not take turns."""

from __future__ import annotations

from collections.abc import Mapping

from replicator.engine.coordination import Origin
from replicator.engine.plan.platforms import rewrites
from replicator.policy.mapping import target_repository, target_tag
from replicator.policy.rule import Rule
from replicator.policy.selection import may_select, pinned_tags, select_repository
from replicator.ports import TagBelief


def other_owner(
    rule: Rule, belief: TagBelief, rules: Mapping[str, Rule], origin: Origin, place: tuple[str, str]
) -> str | None:
    """Another rule that still exists, put what is believed there, and did not put what `rule` wants now.

    Args:
        rule: the rule that wants the tag now.
        belief: what is believed of the tag.
        rules: all rules by name.
        origin: what `rule` takes there.
        place: destination and repository.
    """
    other = rules.get(belief.rule)
    if other is None or other.name == rule.name:
        return None
    target = (*place, belief.tag)
    if is_shared(rule, other, origin, target) or has_let_go(other, origin, target):
        return None
    return f"rule {belief.rule}"


def may_collide(rule: Rule) -> bool:
    """Whether two of the rule's own tags may lead to one target: renaming that only adds keeps names apart."""
    names = (rule.rename_repository, rule.rename_tag)
    return any(name.strip or name.replacements for name in names) or any(table.pins for table in rule.tags)


def is_shared(rule: Rule, other: Rule, origin: Origin, target: tuple[str, str, str]) -> bool:
    """Whether both rules follow the very same source tag to the same target: then what it is now is what both rules want.

    Args:
        rule: one that takes the tag there now.
        other: the one in question.
        origin: the source tag. One that is pinned, by either, is a digest of that rule's own choosing.
        target: destination, repository and tag.
    """
    _, repository, tag = origin
    if tag is None or not may_select(rule.tags, tag) or not may_select(other.tags, tag):
        return False
    if rule.platforms != other.platforms and (rewrites(rule.platforms) or rewrites(other.platforms)):
        return False  # they make different indexes of it
    return select_repository(other.repositories, repository) and _leads(other, origin, target)


def has_let_go(other: Rule, origin: Origin, target: tuple[str, str, str]) -> bool:
    """Whether a rule that has put a target there does so no longer, so that another may: parts of rules move to others.

    Its destinations leave that one out, or it would take the source tag there as well, but selects it no more.
    """
    _, repository, tag = origin
    if target[0] not in other.destinations:
        return True
    if tag is None or tag in pinned_tags(other.tags) or not _leads(other, origin, target):
        return False
    return not (select_repository(other.repositories, repository) and may_select(other.tags, tag))


def _leads(rule: Rule, origin: Origin, target: tuple[str, str, str]) -> bool:
    """Whether the rule, where it selects the source tag, takes it to the target."""
    source, repository, tag = origin
    if rule.source != source or target[0] not in rule.destinations:
        return False
    try:
        return (target_repository(rule, repository), target_tag(rule, tag or "")) == target[1:]
    except ValueError:
        return False
