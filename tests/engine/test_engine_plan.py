"""Each decision whole, case by case: what it says of the tag is what the report and the state will say."""

from __future__ import annotations

import re
from typing import Final

import pytest
from msgspec import structs
from msgspec.structs import replace

from replicator.engine.observe.destination import Catalog
from replicator.engine.observe.seen import Seen
from replicator.engine.observe.wanted import WantedTag
from replicator.engine.plan.compare import Change, compare_unreadable
from replicator.engine.plan.decide import Closure, Facts, Policy, decide
from replicator.engine.plan.decision import Ask, Conflict, Copy, Decision, Gone, InStep, Postponed, Question
from replicator.engine.plan.ownership import has_let_go, is_shared, may_collide, other_owner
from replicator.engine.plan.stale import StaleTags
from replicator.model.digest import Digest, digest_of
from replicator.policy.rule import Pin, Rename, Replacement, Rule, TagSelection
from replicator.ports import Pending, Placement, TagBelief
from tests.engine.world import rule
from tests.fakes.memory import MemorySite

A, B, C = (digest_of(text.encode()) for text in "abc")
NOW: Final = 1_000_000.0
DAY: Final = 24 * 3600.0
WANTED = WantedTag("v1", "v1", A)
POLICY = Policy(
    "rule",
    "left/app",
    NOW,
    recheck=False,
    unattended=True,
    recheck_every=DAY,
    verify_every=7 * DAY,
    referrers_every=None,
)
RECHECK = replace(POLICY, recheck=True)
ATTENDED = replace(POLICY, unattended=False)


def belief(digest: Digest = A, *, at: float = NOW, rule: str = "rule") -> TagBelief:
    return TagBelief("v1", digest, digest, rule, at)


def placed(at: float = NOW) -> Placement:
    return Placement(A, "", at, at)


LONG_AGO: Final = NOW - 30 * DAY
FAILED = Pending(
    "app", "v1", A, since=NOW - 60, attempts=3, not_before=NOW + 600, error="the registry said no"
)
WHOLE = Closure()
HOLE = Closure((C,))
DARK = Closure(unreadable=True)

CASES: list[tuple[str, Facts, Policy, Decision]] = [
    ("not listed", Facts(listed=False), POLICY, Copy(A, Change.ADDED)),
    ("believed", Facts(listed=True, belief=belief(), placement=placed()), POLICY, InStep(A)),
    ("moved", Facts(listed=True, belief=belief(B)), POLICY, Copy(A, Change.MOVED)),
    ("nothing believed", Facts(listed=True), POLICY, Ask(Question.TAG, A)),
    ("not listed at all", Facts(listed=None, belief=belief()), POLICY, Ask(Question.TAG, A)),
    ("due", Facts(listed=True, belief=belief(at=LONG_AGO)), POLICY, Ask(Question.TAG, A)),
    ("recheck", Facts(listed=True, belief=belief()), RECHECK, Ask(Question.TAG, A)),
    ("seen elsewhere", Facts(listed=True, seen=Seen(B)), POLICY, Copy(A, Change.DIVERGED)),
    ("seen as believed", Facts(listed=True, belief=belief(B), seen=Seen(B)), POLICY, Copy(A, Change.MOVED)),
    ("seen gone", Facts(listed=None, belief=belief(), seen=Seen(None)), POLICY, Copy(A, Change.ADDED)),
    # the destination does not tell: what we put there is all there is
    ("unreadable, ours", Facts(listed=None, belief=belief(), seen=Seen(None, unreadable=True)), POLICY,
     InStep(A, is_confirmed=True)),
    ("unreadable, old", Facts(listed=None, belief=belief(B), seen=Seen(None, unreadable=True)), POLICY,
     Copy(A, Change.MOVED)),
    ("unreadable, unknown", Facts(listed=None, seen=Seen(None, unreadable=True)), POLICY, Copy(A, Change.UNREADABLE)),
    ("unreadable: no closure either", Facts(listed=None, belief=belief(at=LONG_AGO), placement=placed(LONG_AGO),
                                            seen=Seen(None, unreadable=True)), POLICY, InStep(A, is_confirmed=True)),
    # a confirmation is recorded where it was asked for, or is news
    ("seen", Facts(listed=None, belief=belief(), placement=placed(), seen=Seen(A)), POLICY,
     InStep(A, is_confirmed=True)),
    ("told, news", Facts(listed=True, told=A), POLICY, Ask(Question.CLOSURE, A)),
    ("told, news, whole", Facts(listed=True, told=A, closure=WHOLE), POLICY,
     InStep(A, is_confirmed=True, is_verified=True)),
    ("told, news, dark", Facts(listed=True, told=A, closure=DARK), POLICY, InStep(A, is_confirmed=True)),
    ("told, news, hole", Facts(listed=True, told=A, closure=HOLE), POLICY, Copy(A, Change.INCOMPLETE, (C,))),
    ("told, known", Facts(listed=True, told=A, belief=belief(), placement=placed()), POLICY, InStep(A)),
    ("told, due", Facts(listed=True, told=A, belief=belief(at=LONG_AGO), placement=placed()), POLICY,
     InStep(A, is_confirmed=True)),
    ("told otherwise", Facts(listed=True, told=B, belief=belief()), POLICY, Copy(A, Change.DIVERGED)),
    ("told as believed", Facts(listed=True, told=B, belief=belief(B)), POLICY, Copy(A, Change.MOVED)),
    ("closure of a fresh belief", Facts(listed=True, belief=belief()), POLICY, InStep(A)),
    # the closure: due by the placement, else by the belief in the same digest; at the first sight of an image
    ("closure of a placement", Facts(listed=True, belief=belief(), placement=placed(LONG_AGO)), POLICY,
     Ask(Question.CLOSURE, A)),
    ("closure of a belief", Facts(listed=True, told=A, belief=belief(at=LONG_AGO)), POLICY, Ask(Question.CLOSURE, A)),
    ("closure, first seen", Facts(listed=True, seen=Seen(A)), POLICY, Ask(Question.CLOSURE, A)),
    ("closure, moved by others", Facts(listed=True, told=A, belief=belief(B)), POLICY, Ask(Question.CLOSURE, A)),
    ("closure, placed under another tag", Facts(listed=True, told=A, placement=placed()), POLICY,
     InStep(A, is_confirmed=True)),
    ("closure, recheck", Facts(listed=True, seen=Seen(A)), RECHECK, Ask(Question.CLOSURE, A)),
    ("whole", Facts(listed=True, belief=belief(), placement=placed(LONG_AGO), closure=WHOLE), POLICY,
     InStep(A, is_verified=True)),
    ("dark", Facts(listed=True, belief=belief(), placement=placed(LONG_AGO), closure=DARK), POLICY, InStep(A)),
    ("hole", Facts(listed=True, belief=belief(), placement=placed(LONG_AGO), closure=HOLE), POLICY,
     Copy(A, Change.INCOMPLETE, (C,))),
    # who else wants it
    ("claimed", Facts(listed=False, claimed_by="app2"), POLICY, Conflict(A, Change.ADDED, "app2")),
    ("owned", Facts(listed=True, belief=belief(B), owner="rule two"), POLICY, Conflict(A, Change.MOVED, "rule two")),
    ("claimed first", Facts(listed=False, claimed_by="app2", owner="rule two"), POLICY,
     Conflict(A, Change.ADDED, "app2")),
    ("claimed, in step", Facts(listed=True, belief=belief(), claimed_by="app2"), POLICY,
     Conflict(A, Change.SAME, "app2")),
    ("owned, in step", Facts(listed=True, belief=belief(), placement=placed(), owner="rule two"), POLICY, InStep(A)),
    # back-off
    ("postponed", Facts(listed=False, pending=FAILED), POLICY, Postponed(A, Change.ADDED, "the registry said no")),
    ("attended", Facts(listed=False, pending=FAILED), ATTENDED, Copy(A, Change.ADDED)),
    ("another digest failed", Facts(listed=False, pending=structs.replace(FAILED, digest=B)), POLICY, Copy(A, Change.ADDED)),
    ("its time has come", Facts(listed=False, pending=structs.replace(FAILED, not_before=NOW)), POLICY, Copy(A, Change.ADDED)),
    ("hole, postponed", Facts(listed=True, belief=belief(), placement=placed(LONG_AGO), closure=HOLE, pending=FAILED),
     POLICY, Postponed(A, Change.INCOMPLETE, "the registry said no")),
    ("superseded", Facts(listed=False, is_superseded=True), POLICY, InStep(A, is_superseded=True)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "policy", "decision"), [case[1:] for case in CASES], ids=[one[0] for one in CASES]
)
def test_decision(facts: Facts, policy: Policy, decision: Decision) -> None:
    assert decide(WANTED, facts, policy) == decision


SETTLED = WantedTag("v1", "v1", None)


@pytest.mark.parametrize(
    ("facts", "decision"),
    [
        (Facts(listed=True, belief=belief(), placement=placed()), InStep(A)),
        (Facts(listed=None, belief=belief(), seen=Seen(A), closure=WHOLE), InStep(A, is_confirmed=True, is_verified=True)),
        (Facts(listed=True, belief=belief(rule="two")), Ask(Question.SOURCE, None)),
        (Facts(listed=False, belief=belief()), Ask(Question.SOURCE, None)),
        (Facts(listed=True), Ask(Question.SOURCE, None)),
        # what lies there is not what we put there: what we believe may be gone at the source
        (Facts(listed=None, belief=belief(), seen=Seen(B)), Ask(Question.SOURCE, None)),
        (Facts(listed=None, belief=belief(), seen=Seen(B), source=C), Copy(C, Change.DIVERGED)),
        (Facts(listed=False, source=C), Copy(C, Change.ADDED)),
        (Facts(listed=False, is_superseded=True), InStep(None, is_superseded=True)),
    ],
)  # fmt: skip
def test_decision_about_an_immutable_tag_that_was_settled(facts: Facts, decision: Decision) -> None:
    assert decide(SETTLED, facts, POLICY) == decision


def test_digest_without_a_tag_is_believed_though_no_listing_has_it() -> None:
    wanted = WantedTag(None, None, A)
    assert decide(wanted, Facts(listed=False, belief=belief(), placement=placed()), POLICY) == InStep(A)
    assert decide(wanted, Facts(listed=False), POLICY) == Ask(Question.TAG, A)


def test_unreadable_destination_is_compared_with_what_was_put_there() -> None:
    assert compare_unreadable(A, None) is Change.UNREADABLE
    assert compare_unreadable(A, belief(A)) is Change.SAME
    assert compare_unreadable(A, belief(B)) is Change.MOVED


def test_checks_are_spread_by_digest_where_there_is_no_tag() -> None:
    """Many digests are pinned at once in one repository; they do not all come due at the same moment."""
    due = {Question.TAG: 0, Question.CLOSURE: 0}
    for number in range(200):
        digest = digest_of(str(number).encode())
        known = TagBelief(digest, digest, digest, "rule", NOW - DAY / 2)
        facts = Facts(
            listed=True, belief=known, placement=Placement(digest, "", NOW - 3.5 * DAY, NOW - 3.5 * DAY)
        )
        match decide(WantedTag(None, None, digest), facts, POLICY):
            case Ask(question):
                due[question] += 1
                if question is Question.TAG:
                    facts = replace(facts, told=digest)
                    assert decide(WantedTag(None, None, digest), facts, POLICY) in (
                        Ask(Question.CLOSURE, digest),
                        InStep(digest, is_confirmed=True),
                    )
            case decision:
                assert decision == InStep(digest)
                told = replace(facts, told=digest)
                assert decide(WantedTag(None, None, digest), told, POLICY) == InStep(digest)
    assert 60 < due[Question.TAG] < 140
    assert 25 < due[Question.CLOSURE] < 75


# --- stale tags ---


def catalog(
    beliefs: dict[str, TagBelief], tags: frozenset[str] | None, pending: dict[str, Pending] | None = None
) -> Catalog:
    return Catalog(MemorySite("left").repository("app"), tags, None, NOW, False, beliefs, pending or {})


def test_tag_is_gone_where_we_put_it_it_is_still_there_and_its_source_has_it_no_more() -> None:
    tags = frozenset({"ours", "kept", "theirs", "strange"})
    beliefs = {"ours": belief(), "kept": belief(), "theirs": belief(rule="two"), "deleted": belief()}
    stale = StaleTags("rule")
    stale.open("team/app", "app", catalog(beliefs, tags))
    stale.present("app", {"kept", "new"})
    assert list(stale.gone()) == [Gone("team/app", "app", "ours", A)]


@pytest.mark.parametrize("tags", [None, frozenset[str]()])
def test_nothing_is_gone_where_the_destination_does_not_list_it(tags: frozenset[str] | None) -> None:
    stale = StaleTags("rule")
    stale.open("team/app", "app", catalog({"ours": belief()}, tags))
    stale.present("app", ())
    assert list(stale.gone()) == []


def test_nothing_is_gone_before_every_source_repository_of_the_target_was_listed_whole() -> None:
    stale = StaleTags("rule")
    for target in ("app", "other"):
        stale.open("team/app", target, catalog({"ours": belief()}, frozenset({"ours"}), {"failed": FAILED}))
        stale.present(target, ())
    stale.present("app", None)
    assert [one.target for one in stale.gone()] == ["other"]
    stale.unseen("other")
    assert list(stale.gone()) == []
    assert list(stale.pending()) == [("app", "failed")]


def test_target_of_two_source_repositories_remembers_what_the_first_one_had() -> None:
    stale = StaleTags("rule")
    same = catalog(
        {"one": belief(), "two": belief()}, frozenset({"one", "two"}), {"failed": FAILED, "wanted": FAILED}
    )
    stale.open("team/one", "app", same)
    stale.present("app", {"one"})
    stale.wanted("app", "wanted")
    stale.open("team/two", "app", same)
    assert list(stale.gone()) == [Gone("team/one", "app", "two", A)]
    assert list(stale.pending()) == [("app", "failed")]


# --- whose tag it is ---

ORIGIN = ("source", "app", "v1")
TARGET = ("left", "app", "v1")
OURS = rule("ours")


@pytest.mark.parametrize(
    "other",
    [
        rule("two", source="second"),
        rule("two", destinations=["right"]),
        rule("two", repositories=["team/*"]),
        rule("two", tags=["v2"]),
        rule("two", prefix="mirror/"),
        rule("two", rename_tag=Rename(suffix="-two")),
        rule("two", rename_tag=Rename(prefix="/")),  # no name for a tag
    ],
)
def test_tag_is_not_shared_where_the_other_rule_takes_something_else_there(other: Rule) -> None:
    assert not is_shared(OURS, other, ORIGIN, TARGET)


def test_tag_is_shared_where_both_rules_follow_it_to_the_same_target() -> None:
    assert is_shared(OURS, rule("two"), ORIGIN, TARGET)
    renamed = Rename(suffix="-ours")
    ours, two = (rule(name, rename_tag=renamed, prefix="mirror/") for name in ("ours", "two"))
    assert is_shared(ours, two, ORIGIN, ("left", "mirror/app", "v1-ours"))


def test_pinned_digest_is_shared_with_nobody() -> None:
    pinning = rule("ours", selection=TagSelection(pins=(Pin(A, "v1"),)))
    assert not is_shared(pinning, rule("two"), ORIGIN, TARGET)
    assert not is_shared(rule("two"), pinning, ORIGIN, TARGET)
    assert not is_shared(OURS, rule("two"), ("source", "app", None), TARGET)


@pytest.mark.parametrize(
    ("other", "origin", "has"),
    [
        (rule("two"), ORIGIN, False),
        (rule("two", destinations=["right"]), ORIGIN, True),
        (rule("two", destinations=["right"]), ("source", "app", None), True),
        (rule("two", repositories=["team/*"]), ORIGIN, True),
        (rule("two", tags=["v2"]), ORIGIN, True),
        # it puts something else there, and still does
        (rule("two", source="second"), ORIGIN, False),
        (rule("two", source="second", repositories=["team/*"]), ORIGIN, False),
        (rule("two", tags=["v2"], rename_tag=Rename(suffix="-two")), ORIGIN, False),
        (rule("two", selection=TagSelection(pins=(Pin(A, "v1"),))), ORIGIN, False),
        (rule("two", tags=["v2"]), ("source", "app", None), False),
    ],
)
def test_rule_has_let_go_of_a_target(other: Rule, origin: tuple[str, str, str | None], has: bool) -> None:  # noqa: FBT001
    assert has_let_go(other, origin, TARGET) is has


def test_other_owner_is_a_rule_that_exists_and_still_puts_something_else_there() -> None:
    place = ("left", "app")
    elsewhere = rule("two", source="second")
    by_two = belief(rule="two")
    assert other_owner(OURS, by_two, {"ours": OURS, "two": elsewhere}, ORIGIN, place) == "rule two"
    assert other_owner(OURS, by_two, {"ours": OURS}, ORIGIN, place) is None
    assert other_owner(OURS, belief(rule="ours"), {"ours": OURS}, ORIGIN, place) is None
    assert other_owner(OURS, by_two, {"ours": OURS, "two": rule("two")}, ORIGIN, place) is None
    assert other_owner(OURS, by_two, {"ours": OURS, "two": rule("two", tags=["v2"])}, ORIGIN, place) is None


@pytest.mark.parametrize(
    ("one", "may"),
    [
        (rule(), False),
        (rule(prefix="mirror/", rename_tag=Rename(prefix="x-", suffix="-y")), False),
        (rule(rename_tag=Rename(strip="v")), True),
        (rule(rename=Rename(strip="team/")), True),
        (rule(rename_tag=Rename(replacements=(Replacement(re.compile(r"-rc\d"), ""),))), True),
        (rule(selection=TagSelection(pins=(Pin(A, "v1"),))), True),
    ],
)
def test_names_of_one_rule_can_collide_only_if_renaming_takes_something_away(one: Rule, may: bool) -> None:  # noqa: FBT001
    assert may_collide(one) is may
