"""Mapping: where names go, and whether two meet there."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from replicator.model.digest import digest_of
from replicator.policy.mapping import rename, static_collisions, target_repository, target_tag
from replicator.policy.pattern import Glob, parse_tag_pattern
from replicator.policy.rule import Pin, Rename, Replacement, RepositorySelection, Rule, TagSelection


def _rule(
    name: str, *repositories: str, source: str = "hub", tags: tuple[str, ...] = (), to: str = ""
) -> Rule:
    """A rule from `source` to fra; `to` renames whatever repository to one name."""
    everything = (Replacement(re.compile("(?s).+"), to),) if to else ()
    return Rule(
        name,
        source,
        ("fra",),
        RepositorySelection(tuple(map(Glob.parse, repositories))),
        tags=(TagSelection(tuple(map(parse_tag_pattern, tags))),),
        rename_repository=Rename(replacements=everything),
    )


@pytest.mark.parametrize(
    ("how", "name", "target"),
    [
        (Rename(), "a/b", "a/b"),
        (Rename(strip="platform/", prefix="mirror/"), "platform/app", "mirror/app"),
        (Rename(strip="platform/", prefix="mirror/"), "other/app", "mirror/other/app"),
        (Rename(strip="platform/"), "x/platform/app", "x/platform/app"),
        (Rename(suffix="-fra"), "app", "app-fra"),
        (Rename(replacements=(Replacement(re.compile("/"), "-"),)), "a/b/c", "a-b-c"),
        (Rename(replacements=(Replacement(re.compile(r"(\w+)/(\w+)"), r"\2/\1"),)), "a/b", "b/a"),
        (
            Rename("a", "p-", "-s", (Replacement(re.compile("b"), "c"), Replacement(re.compile("c"), "d"))),
            "abc",
            "p-dd-s",
        ),
    ],
)
def test_rename_strips_then_replaces_then_adds(how: Rename, name: str, target: str) -> None:
    assert rename(how, name) == target


def test_target_that_is_no_valid_name_says_what_was_renamed_by_whom() -> None:
    rule = replace(_rule("r", "app"), rename_repository=Rename(strip="app"), rename_tag=Rename(prefix="-"))
    with pytest.raises(ValueError, match=r"rule 'r' renames repository 'app': invalid repository name ''"):
        target_repository(rule, "app")
    with pytest.raises(ValueError, match=r"rule 'r' renames tag 'v1': invalid tag '-v1'"):
        target_tag(rule, "v1")
    assert target_repository(_rule("r", "app"), "app") == "app"
    assert target_tag(_rule("r", "app"), "v1") == "v1"


# --- what the rules alone make certain ----------------------------------------------------------------------


def test_same_tag_of_two_repositories_for_one_target_is_a_problem() -> None:
    problems = static_collisions(
        [_rule("one", "a", tags=("v1", "v2"), to="x"), _rule("two", "b", tags=("v2",), to="x")]
    )
    (problem,) = problems
    assert problem == (
        "rules 'one' and 'two' both write fra: x:v2, from hub: a:v2 and from hub: b:v2: "
        "give one of them another name with rename"
    )


def test_one_rule_can_collide_with_itself() -> None:
    (problem,) = static_collisions([_rule("one", "a", "b", tags=("v1",), to="x")])
    assert problem.startswith("rule 'one' writes fra: x:v1, from hub: a:v1 and from hub: b:v1")


def test_two_tags_renamed_to_one_are_a_problem() -> None:
    rule = replace(_rule("one", "a", tags=("v1", "1")), rename_tag=Rename(strip="v"))
    (problem,) = static_collisions([rule])
    assert "fra: a:1, from hub: a:v1 and from hub: a:1" in problem


def test_all_tags_of_two_repositories_under_the_same_names_are_a_problem() -> None:
    (problem,) = static_collisions([_rule("one", "a", to="x"), _rule("two", "a", source="near", to="x")])
    assert "fra: x, all tags, from hub: a and from near: a" in problem


def test_two_digests_pinned_under_one_tag_are_a_problem() -> None:
    def pinned(content: bytes) -> TagSelection:
        return TagSelection(pins=(Pin(digest_of(content), "v1"),))

    rule = _rule("one", "a", to="x")
    assert len(static_collisions([replace(rule, tags=(pinned(b"1"), pinned(b"2")))])) == 1
    other = replace(_rule("two", "b", to="x"), tags=(pinned(b"1"),))
    assert static_collisions([replace(rule, tags=(pinned(b"1"),)), other]) == []  # the same content


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (_rule("one", "a", tags=("v1",), to="x"), _rule("two", "b", tags=("v2",), to="x")),
        (_rule("one", "a", tags=("v1",)), _rule("two", "b", tags=("v1",))),
        (
            _rule("one", "a", tags=("v1",), to="x"),
            replace(_rule("two", "b", tags=("v1",), to="x"), destinations=("shelf",)),
        ),
        (_rule("one", "a", tags=("v1",)), _rule("two", "a", tags=("v1",))),
        (_rule("one", "a"), _rule("two", "a")),
        (_rule("one", "a*", to="x"), _rule("two", "b", to="x")),
        (_rule("one", "a", to="x"), _rule("two", "b", tags=("legacy",), to="x")),
        (_rule("one", "a", tags=("v*",), to="x"), _rule("two", "b", tags=("v1",), to="x")),
        (_rule("one", "a", to="x"), replace(_rule("two", "b", to="x"), rename_tag=Rename(prefix="b-"))),
        (
            _rule("one", "a", tags=("v1",), to="x"),
            replace(
                _rule("two", "b", to="x"), tags=(TagSelection((parse_tag_pattern("v1"),), newer_than=60),)
            ),
        ),
    ],
    ids=[
        "other tags",
        "other targets",
        "other destinations",
        "the same image twice",
        "the same repository twice",
        "a pattern may match nothing",
        "one tag beside all of another, which may lack it",
        "a tag pattern may match nothing",
        "tags renamed apart",
        "a tag that may be too old",
    ],
)
def test_what_may_turn_out_well_is_no_problem(one: Rule, other: Rule) -> None:
    assert static_collisions([one, other]) == []


def test_a_tag_that_keeps_its_name_is_not_held_twice_in_memory() -> None:
    tag = f"v{12}"
    assert target_tag(_rule("all", "app"), tag) is tag
