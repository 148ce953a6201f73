"""What holds for every decision, whatever is known: the laws of `plan.decide`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from replicator.engine.observe.seen import Seen
from replicator.engine.observe.wanted import WantedTag
from replicator.engine.plan.decide import Closure, Facts, Policy, decide
from replicator.engine.plan.decision import Ask, Conflict, Copy, Decision, InStep, Postponed, Question
from replicator.model.digest import Digest, digest_of
from replicator.ports import Pending, Placement, TagBelief

A, B, C = (digest_of(text.encode()) for text in "abc")
DIGESTS = st.sampled_from([A, B, C])
NOW = 1_000_000.0
DAY = 24 * 3600.0
TIMES = st.sampled_from([0.0, NOW - 8 * DAY, NOW - 2 * DAY, NOW - 60.0, NOW, NOW + 10 * 365 * DAY])


def _maybe(strategy: st.SearchStrategy[Digest]) -> st.SearchStrategy[Digest | None]:
    return st.none() | strategy


BELIEFS = st.builds(
    TagBelief,
    tag=st.just("v1"),
    digest=DIGESTS,
    source_digest=DIGESTS,
    rule=st.sampled_from(["rule", "other"]),
    checked_at=TIMES,
)
PLACEMENTS = st.builds(
    Placement, digest=DIGESTS, fingerprint=st.just(""), written_at=TIMES, verified_at=TIMES
)
PENDING = st.builds(
    Pending,
    repository=st.just("app"),
    tag=st.just("v1"),
    digest=_maybe(DIGESTS),
    since=TIMES,
    attempts=st.integers(0, 9),
    error=st.just("no"),
    not_before=st.sampled_from([0.0, NOW - 1, NOW + 600, NOW + 10 * 365 * DAY]),
)
FACTS = st.builds(
    Facts,
    listed=st.none() | st.booleans(),
    told=_maybe(DIGESTS),
    belief=st.none() | BELIEFS,
    placement=st.none() | PLACEMENTS,
    pending=st.none() | PENDING,
    claimed_by=st.none() | st.just("rule two"),
    owner=st.none() | st.just("rule three"),
    is_superseded=st.booleans(),
).map(lambda facts: replace(facts, told=facts.told if facts.listed else None))
POLICIES = st.builds(
    Policy,
    rule=st.just("rule"),
    place=st.just("left/app"),
    now=st.just(NOW),
    recheck=st.booleans(),
    unattended=st.booleans(),
    recheck_every=st.just(DAY),
    verify_every=st.just(7 * DAY),
    referrers_every=st.sampled_from([DAY, None]),
)
WANTED = st.builds(
    lambda target, digest: WantedTag(target, target, digest or (None if target else A)),
    st.sampled_from(["v1", None]),
    _maybe(DIGESTS),
)
ANSWERS = st.tuples(
    st.builds(Seen, _maybe(DIGESTS), st.booleans()).map(
        lambda seen: replace(seen, digest=None) if seen.unreadable else seen
    ),
    st.builds(Closure, st.lists(DIGESTS, unique=True).map(tuple), st.booleans()),
    DIGESTS,
    st.lists(DIGESTS, unique=True).map(tuple),
)
Answers = tuple[Seen, Closure, Digest, tuple[Digest, ...]]


def _settle(
    wanted: WantedTag, facts: Facts, policy: Policy, answers: Answers
) -> tuple[Decision, Facts, list[Question]]:
    asked: list[Question] = []
    while isinstance(decision := decide(wanted, facts, policy), Ask):
        asked.append(decision.question)
        assert len(asked) <= len(Question), "it asks without end"
        match decision.question:
            case Question.TAG:
                facts = replace(facts, seen=answers[0])
            case Question.CLOSURE:
                facts = replace(facts, closure=answers[1])
            case Question.SOURCE:
                facts = replace(facts, source=answers[2])
            case Question.REFERRERS:
                facts = replace(facts, referrers=answers[3])
    return decision, facts, asked


@given(WANTED, FACTS, POLICIES, ANSWERS)
def test_each_question_is_asked_at_most_once(
    wanted: WantedTag, facts: Facts, policy: Policy, answers: Answers
) -> None:
    _, _, asked = _settle(wanted, facts, policy, answers)
    assert len(asked) == len(set(asked))


@given(WANTED, FACTS, POLICIES, ANSWERS)
def test_a_tag_in_step_is_never_copied(
    wanted: WantedTag, facts: Facts, policy: Policy, answers: Answers
) -> None:
    decision, known, _ = _settle(wanted, facts, policy, answers)
    seen = known.seen.digest if known.seen else known.told
    if isinstance(decision, Copy) and seen == decision.digest:
        lacks_parts = known.closure is not None and decision.missing == known.closure.missing != ()
        assert lacks_parts or known.referrers


@given(WANTED, FACTS, POLICIES, ANSWERS)
def test_what_somebody_else_claims_or_owns_is_never_overwritten(
    wanted: WantedTag, facts: Facts, policy: Policy, answers: Answers
) -> None:
    decision, known, _ = _settle(wanted, facts, policy, answers)
    if known.claimed_by or known.owner:
        assert not isinstance(decision, (Copy, Postponed))
    if isinstance(decision, Conflict):
        assert decision.other in {known.claimed_by, known.owner}


@given(WANTED, FACTS, POLICIES, ANSWERS)
def test_an_immutable_tag_of_another_rule_is_not_ours(
    wanted: WantedTag, facts: Facts, policy: Policy, answers: Answers
) -> None:
    """What another rule put there says nothing about what ours wants: the source is asked."""
    decision, _, asked = _settle(wanted, facts, policy, answers)
    if wanted.digest is None and facts.belief is not None and facts.belief.rule != "rule":
        is_superseded = isinstance(decision, InStep) and decision.is_superseded
        assert is_superseded or Question.SOURCE in asked


@given(WANTED, FACTS, POLICIES, ANSWERS)
def test_only_an_unattended_run_postpones_and_only_the_digest_that_failed(
    wanted: WantedTag, facts: Facts, policy: Policy, answers: Answers
) -> None:
    decision, known, _ = _settle(wanted, facts, policy, answers)
    if isinstance(decision, Postponed):
        assert policy.unattended
        assert known.pending is not None
        assert known.pending.digest == decision.digest
        assert NOW < known.pending.not_before <= NOW + 3600


@given(WANTED, FACTS, POLICIES, ANSWERS)
def test_a_recheck_asks_for_the_tag_and_for_everything_below_it(
    wanted: WantedTag, facts: Facts, policy: Policy, answers: Answers
) -> None:
    decision, known, _ = _settle(wanted, facts, replace(policy, recheck=True), answers)
    if isinstance(decision, InStep) and not decision.is_superseded:
        assert known.closure is not None
        assert known.closure.missing == ()
        assert known.referrers == (None if policy.referrers_every is None else ())
        assert known.seen is not None or known.told is not None or known.belief is None


@given(WANTED, FACTS, POLICIES, ANSWERS)
def test_a_superseded_tag_is_left_alone(
    wanted: WantedTag, facts: Facts, policy: Policy, answers: Answers
) -> None:
    decision, _, asked = _settle(wanted, replace(facts, is_superseded=True), policy, answers)
    assert isinstance(decision, InStep)
    assert decision.is_superseded
    assert asked == []


@pytest.mark.parametrize("checked_at", [NOW - 30 * DAY, NOW + 10 * 365 * DAY])
def test_a_time_that_lies_ahead_blinds_nothing(checked_at: float) -> None:
    policy = Policy("rule", "left/app", NOW, False, True, DAY, 7 * DAY, 100 * DAY)
    belief = TagBelief("v1", A, A, "rule", checked_at)
    decision = decide(WantedTag("v1", "v1", A), Facts(listed=True, belief=belief), policy)
    assert decision == Ask(Question.TAG, A)


def test_closures_of_many_tags_come_due_one_after_the_other() -> None:
    """A cold copy of 2,000 tags is checked over the week, a share of it in each scan."""
    belief = TagBelief("v1", A, A, "rule", NOW)
    due = [0] * 7
    for number in range(2_000):
        placement = Placement(A, "", NOW, NOW)
        for day in range(7):
            now = NOW + (day + 1) * DAY
            policy = Policy("rule", f"left/app{number}", now, False, True, 100 * DAY, 7 * DAY, 100 * DAY)
            facts = Facts(listed=True, belief=replace_checked(belief, now), placement=placement)
            if isinstance(decide(WantedTag("v1", "v1", A), facts, policy), Ask):
                due[day] += 1
                placement = Placement(A, "", NOW, now)
    assert sum(due) == 2_000
    assert max(due) < 2 * 2_000 / 7


def replace_checked(belief: TagBelief, at: float) -> TagBelief:
    """The belief as confirmed at that time."""
    return TagBelief(belief.tag, belief.digest, belief.source_digest, belief.rule, at)
