"""What a rule's choice of platforms makes of an image's root at a destination, and how that is remembered. Pure.

A sparse index keeps its digest. A rewritten one has another, which the belief in its tag keeps beside the source's; the
placement of that root keeps the choice. So nothing has to be read while neither has changed.
"""

from __future__ import annotations

from replicator.engine.plan.action import Action
from replicator.engine.plan.fingerprint import part_in
from replicator.engine.roots import Root
from replicator.model.digest import Digest
from replicator.policy.platforms import Platforms
from replicator.ports import Placement, TagBelief


def rewrites(platforms: Platforms | None) -> bool:
    """Whether an index may have another digest at a destination than at its source."""
    return platforms is not None and platforms.rewrites


def is_other_part(placement: Placement | None, part: str) -> bool:
    """Whether other parts of the image were put there than are wanted now (`Rule.part`)."""
    return placement is not None and part_in(placement.fingerprint) != part


def placed_root(source: Digest, belief: TagBelief | None, platforms: Platforms | None) -> Digest:
    """The root whose placement tells of the image at the destination. `source`: the root at the source."""
    if rewrites(platforms) and belief is not None and belief.source_digest == source:
        return belief.digest
    return source


def root_at(
    source: Digest,
    belief: TagBelief | None,
    placement: Placement | None,
    root: Root | None,
    platforms: Platforms | None,
    part: str,
) -> Digest | None:
    """The digest that is wanted at the destination; None where only the source's index can tell.

    Args:
        source: the digest at the source.
        belief: of the tag.
        placement: of `placed_root`.
        root: what the index told, if it was asked.
        platforms: the choice.
        part: of the rule.
    """
    if not rewrites(platforms):
        return source
    if root is not None:
        return root.digest
    if belief is None or belief.source_digest != source or placement is None:
        return None
    is_known = placement.digest == belief.digest and not is_other_part(placement, part)
    return belief.digest if is_known else None


def rewriting_note(action: Action, platforms: Platforms | None) -> str:
    """What a reader of a plan or report should know of a new index; "" if the source's is kept."""
    if not action.is_rewritten or not rewrites(platforms):
        return ""
    return f"a new index of {platforms}; the source's is {action.source_root}"
