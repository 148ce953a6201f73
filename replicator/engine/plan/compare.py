"""The facts about one tag at one destination, and what they say. Pure: no await, no clock."""

from __future__ import annotations

import enum

from replicator.model.digest import Digest
from replicator.ports import TagBelief


class Change(enum.Enum):
    """What is different about one tag at one destination, seen from the source."""

    ADDED = "not there yet"
    MOVED = "the source has moved it"
    DIVERGED = "the destination has something else"
    INCOMPLETE = "parts of it are missing at the destination"
    PARTS = "the rule wants other parts of it now"
    UNSIGNED = "something refers to it that is missing at the destination"
    SAME = "the same on both sides"
    UNKNOWN = "the destination must be asked"
    UNREADABLE = "the destination does not tell what it has"


def compare(digest: Digest, *, listed: bool, belief: TagBelief | None, due: bool) -> Change:
    """What the change is, as far as a listing and a belief can tell.

    Args:
        digest: at the source.
        listed: the destination's own listing has the tag.
        belief: what we last put or saw there.
        due: the belief is to be checked against the destination now.
    """
    if not listed:
        return Change.ADDED
    if belief is None or due:
        return Change.UNKNOWN
    return Change.SAME if belief.digest == digest else Change.MOVED


def compare_seen(digest: Digest, seen: Digest | None, belief: TagBelief | None) -> Change:
    """What the change is, after the destination was asked (`seen` None: it does not have the tag)."""
    if seen is None:
        return Change.ADDED
    if seen == digest:
        return Change.SAME
    return Change.MOVED if belief is not None and belief.digest == seen else Change.DIVERGED


def compare_unreadable(digest: Digest, belief: TagBelief | None) -> Change:
    """What the change is, where the destination refuses to tell: only what we last put there counts."""
    if belief is None:
        return Change.UNREADABLE
    return Change.SAME if belief.digest == digest else Change.MOVED
