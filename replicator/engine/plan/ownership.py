"""Who wants which target: two sources for one tag must not take turns."""

from __future__ import annotations

from replicator.engine.coordination import Origin
from replicator.policy.mapping import target_repository, target_tag
from replicator.policy.rule import Rule
from replicator.policy.selection import may_select, pinned_tags, select_repository


def is_shared(rule: Rule, other: Rule, origin: Origin, target: tuple[str, str, str]) -> bool:
    """Whether both rules follow the very same source tag to the same target: then what it is now is both rules' wish.

    Args:
        rule: one that takes the tag there now.
        other: the one in question.
        origin: the source tag. One that is pinned, by either, is a digest of that rule's own choosing.
        target: destination, repository and tag.
    """
    _, repository, tag = origin
    if tag is None or not may_select(rule.tags, tag) or not may_select(other.tags, tag):
        return False
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
