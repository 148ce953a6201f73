"""What is to be done about one wanted tag at one destination. Pure: no await, no clock, nothing remembered.

`decide` takes what is known and yields a decision. Where that is not enough it yields `Ask`; whoever acts on decisions
gets the answer, adds it to the facts and decides again. Each question is asked at most once.
"""

from __future__ import annotations

import msgspec

from replicator.engine.observe.seen import UNTOLD, Seen
from replicator.engine.observe.wanted import WantedTag
from replicator.engine.plan.compare import Change, compare, compare_seen, compare_unreadable
from replicator.engine.plan.decision import (
    Ask,
    Conflict,
    Copy,
    Decision,
    Held,
    InStep,
    Postponed,
    Question,
    Skipped,
)
from replicator.engine.plan.platforms import is_other_part, rewrites, root_at
from replicator.engine.roots import Root
from replicator.errors import HoldKind
from replicator.model.digest import Digest
from replicator.policy.backoff import is_postponed
from replicator.policy.platforms import Platforms
from replicator.policy.recheck import is_due
from replicator.ports import Pending, Placement, TagBelief


class Closure(msgspec.Struct, frozen=True):
    """The destination's answer about everything that a root leads to: what it lacks.

    `unreadable`: it does not let us look. `children`: the manifests below the root.
    """

    missing: tuple[Digest, ...] = ()
    unreadable: bool = False
    children: tuple[Digest, ...] = ()


class Policy(msgspec.Struct, frozen=True):
    """How a run was asked for, and the rule's periods in seconds.

    `recheck` asks for each tag and checks each closure, whatever is believed. `unattended` leaves a tag that failed
    alone until its time has come. `referrers_every` None: referrers do not travel. `place` names destination and
    repository, to spread what is due. `platforms` None: all of them. `part`: see `Rule`.
    """

    rule: str
    place: str
    now: float
    recheck: bool
    unattended: bool
    recheck_every: float
    verify_every: float
    referrers_every: float | None
    platforms: Platforms | None = None
    part: str = ""


class Facts(msgspec.Struct, frozen=True):
    """What is known of one tag at one destination.

    `listed`: the destination's listing has it; None where it was not listed, so that the tag must be asked for.
    `told`: the digest, where the listing told it. `claimed_by`: another source that claims the tag in this run.
    `owner`: another rule that put something else there and still wants it. `is_superseded`: a run that asked the source
    later has brought the tag in step. `seen`, `closure`, `referrers` and `source` are the answers to questions; `source` is
    the digest that the source names now, `referrers` what refers to the root and is missing. `is_hint`: what the listing
    told may be outdated. `fixed`: the destination does not let the tag be moved, and why; `is_archived`: its content there
    cannot be read for now. `companions`: the state of the root's companion tags as the source lists them, None where it
    was not listed (see `state_of_companions`). `root` is the answer about platforms; `placement` is that of the root at the
    destination, as far as it is known.
    """

    listed: bool | None
    told: Digest | None = None
    belief: TagBelief | None = None
    placement: Placement | None = None
    pending: Pending | None = None
    claimed_by: str | None = None
    owner: str | None = None
    is_superseded: bool = False
    seen: Seen | None = None
    closure: Closure | None = None
    referrers: tuple[Digest, ...] | None = None
    source: Digest | None = None
    is_hint: bool = False
    fixed: str = ""
    is_archived: bool = False
    companions: str | None = None
    root: Root | None = None


# --- decisions ---


def digest_of(
    wanted: WantedTag, rule: str, *, belief: TagBelief | None, listed: bool | None, source: Digest | None
) -> Digest | None:
    """The digest that is wanted: what the source named, else for a settled immutable tag what this rule put there.

    None: the source must be asked.
    """
    if wanted.digest is not None:
        return wanted.digest
    if source is not None:
        return source
    if belief is None or belief.rule != rule or listed is False:
        return None
    return belief.source_digest


def rests_on(facts: Facts) -> Seen:
    """What a decision to copy takes the tag to be at the destination; unreadable where it does without knowing."""
    if facts.seen is not None:
        return facts.seen
    if facts.listed is False or facts.told is not None:
        return Seen(facts.told)
    return UNTOLD if facts.belief is None else Seen(facts.belief.digest)


def decide(wanted: WantedTag, facts: Facts, policy: Policy) -> Decision:
    """The decision about one wanted tag, as far as the facts reach."""
    source = digest_of(wanted, policy.rule, belief=facts.belief, listed=facts.listed, source=facts.source)
    if facts.is_superseded:
        return InStep(source, is_superseded=True)
    if source is None:
        return Ask(Question.SOURCE, None)
    digest = root_at(source, facts.belief, facts.placement, facts.root, policy.platforms, policy.part)
    if digest is None:
        return Ask(Question.PLATFORMS, source)
    return _compared(wanted, source, digest, facts, policy)


def _compared(wanted: WantedTag, source: Digest, digest: Digest, facts: Facts, policy: Policy) -> Decision:
    """The decision, `digest` being wanted at the destination for the `source` that the tag names."""
    change = _change(wanted, digest, facts, policy)
    if change is Change.UNKNOWN:
        return Ask(Question.TAG, digest)
    if change is Change.SAME:
        return _same(wanted, source, digest, facts, policy)
    if wanted.digest is None and facts.source is None:
        return Ask(Question.SOURCE, None)  # settled no longer: what we believe may be gone at the source
    return _held(wanted, change, facts) or _copy(source, digest, change, facts, policy)


def _held(wanted: WantedTag, change: Change, facts: Facts) -> Held | None:
    """Why an image that differs is not copied: it cannot be read, or its tag may not be moved."""
    if wanted.archived:
        return Held("archived", HoldKind.ARCHIVED)
    is_there = facts.told is not None or (facts.seen is not None and facts.seen.digest is not None)
    if facts.fixed and is_there and change in {Change.MOVED, Change.DIVERGED}:
        return Held(f"{facts.fixed} at the destination, with another digest", HoldKind.IMMUTABLE)
    return None


def _change(wanted: WantedTag, digest: Digest, facts: Facts, policy: Policy) -> Change:
    belief, seen = facts.belief, facts.seen
    if seen is not None:
        return (
            compare_unreadable(digest, belief)
            if seen.unreadable
            else compare_seen(digest, seen.digest, belief)
        )
    if facts.told is not None:
        change = compare_seen(digest, facts.told, belief)
        return Change.UNKNOWN if facts.is_hint and change is not Change.SAME else change
    # A digest that is pinned without a tag is in no listing: there a belief, while it holds, is all there is.
    listed = facts.listed is not False if wanted.target else True
    return compare(digest, listed=listed, belief=belief, due=_is_tag_due(digest, wanted, facts, policy))


def _is_tag_due(digest: Digest, wanted: WantedTag, facts: Facts, policy: Policy) -> bool:
    belief = facts.belief
    if belief is None:
        return False
    key = f"{policy.place}:{wanted.target or digest}"
    return (
        policy.recheck
        or (facts.listed is None)
        or is_due(policy.now, belief.checked_at, policy.recheck_every, key)
    )


def _same(wanted: WantedTag, source: Digest, digest: Digest, facts: Facts, policy: Policy) -> Decision:
    if facts.claimed_by is not None:
        return Conflict(digest, Change.SAME, facts.claimed_by)
    incomplete = _incomplete(source, digest, facts, policy)
    if incomplete is not None:
        return incomplete
    if facts.referrers is None and _are_referrers_due(wanted, digest, facts, policy):
        return Ask(Question.REFERRERS, digest)
    if facts.referrers:
        return _copy(source, digest, Change.UNSIGNED, facts, policy)
    is_confirmed = facts.seen is not None
    if facts.told is not None:
        is_confirmed = facts.belief is None or _is_tag_due(digest, wanted, facts, policy)
    return InStep(
        digest,
        is_confirmed=is_confirmed or facts.referrers is not None,
        is_verified=facts.closure is not None and not facts.closure.unreadable,
    )


def _incomplete(source: Digest, digest: Digest, facts: Facts, policy: Policy) -> Decision | None:
    """What comes of a tag that names the right root, if not all that is wanted below it is there, as far as is known."""
    closure, is_other = facts.closure, is_other_part(facts.placement, policy.part)
    if is_other and (left := _lacks_platforms(source, facts, policy)) is not None:
        return left
    if closure is None:
        must_ask = _is_closure_due(digest, facts, policy, is_other=is_other)
        return Ask(Question.CLOSURE, digest) if must_ask else None
    if closure.missing or (is_other and closure.unreadable):
        change = Change.PARTS if is_other else Change.INCOMPLETE
        return _copy(source, digest, change, facts, policy, closure.missing)
    return None


def _lacks_platforms(source: Digest, facts: Facts, policy: Policy) -> Decision | None:
    """What comes of an image that lacks chosen platforms; None where it has what is wanted of it."""
    if policy.platforms is None:
        return None
    if facts.root is None:
        return Ask(Question.PLATFORMS, source)
    if not facts.root.lacking:
        return None
    if policy.platforms.missing == "skip":
        return Skipped(facts.root.lacking)
    return Held(facts.root.lacking, HoldKind.PLATFORMS)


def _are_referrers_due(wanted: WantedTag, digest: Digest, facts: Facts, policy: Policy) -> bool:
    """Dated by the belief: where referrers are found in step, the tag is confirmed, and this is not due any more.

    Without a belief nobody has looked: what is copied once and run without state would never get later signatures.
    """
    if policy.referrers_every is None or facts.is_archived:
        return False
    belief = facts.belief
    if policy.recheck or wanted.news or belief is None:
        return True
    if facts.seen is not None and facts.seen.unreadable:
        return False
    if facts.companions is not None and facts.companions != belief.companions:
        return True
    return is_due(policy.now, belief.checked_at, policy.referrers_every, f"{policy.place}<{digest}")


def _is_closure_due(digest: Digest, facts: Facts, policy: Policy, *, is_other: bool) -> bool:
    if facts.is_archived:
        return False  # the site has it, and does not give it out for now: no hole
    # The placement of a rewritten index is what remembers of which platforms it is.
    if policy.recheck or is_other or (rewrites(policy.platforms) and facts.placement is None):
        return True
    if facts.seen is not None and facts.seen.unreadable:
        return False
    if facts.placement is not None:
        last: float | None = facts.placement.verified_at
    elif facts.belief is not None and facts.belief.digest == digest:
        last = facts.belief.checked_at
    else:
        return (
            True  # found there, put by somebody else or before the state was lost: nobody has seen all of it
        )
    return is_due(policy.now, last, policy.verify_every, f"{policy.place}@{digest}")


def _copy(
    source: Digest,
    digest: Digest,
    change: Change,
    facts: Facts,
    policy: Policy,
    missing: tuple[Digest, ...] = (),
) -> Decision:
    other = facts.claimed_by or facts.owner
    if other is not None:
        return Conflict(digest, change, other)
    pending = facts.pending
    if (
        policy.unattended
        and pending is not None
        and pending.digest == source
        and is_postponed(policy.now, pending.not_before)
    ):
        return Postponed(digest, change, pending.error)
    return _lacks_platforms(source, facts, policy) or Copy(digest, change, missing)
