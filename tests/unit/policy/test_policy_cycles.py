"""Rules that copy in a circle are found, and no others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.policy.cycles import cycles
from replicator.policy.mapping import target_repository, target_tag
from replicator.policy.pattern import Glob, parse_tag_pattern
from replicator.policy.rule import Rename, RepositorySelection, Rule, TagSelection
from replicator.policy.selection import may_select, select_repository


def rule(
    way: str,
    *repositories: str,
    tags: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    prefix: str = "",
    strip: str = "",
) -> Rule:
    """`way` is source and destinations, a letter each."""
    return Rule(
        f"rule-{way}",
        way[0],
        tuple(way[1:]),
        RepositorySelection(
            tuple(Glob.parse(text) for text in repositories or ("**",)),
            tuple(Glob.parse(text) for text in exclude),
        ),
        (TagSelection(include=tuple(parse_tag_pattern(text) for text in tags)),),
        rename_repository=Rename(strip=strip, prefix=prefix),
    )


@pytest.mark.parametrize(
    "rules",
    [
        [rule("ab"), rule("ba")],
        [rule("ab", "app"), rule("ba", "app")],
        [rule("ab", "team/**"), rule("ba", "**")],
        [rule("ab", "team/**"), rule("ba", "team/app")],
        [rule("ab", "lib/**", prefix="mirror/"), rule("ba", "mirror/**", strip="mirror/")],
        [rule("ab", prefix="from-a/"), rule("ba", prefix="from-b/")],
        [rule("ab", tags=("v*",)), rule("ba", tags=("v1.*",))],
        [rule("ab", "team/{app,web}"), rule("ba", "team/*")],
        [rule("ac"), rule("cb"), rule("ba")],
        [rule("xab"), rule("ab"), rule("bxa")],
    ],
    ids=str,
)
def test_a_circle_is_found_and_named(rules: list[Rule]) -> None:
    found = cycles(rules)
    assert found
    for each in found[0].rules:
        assert repr(each.name) in str(found[0])
    assert "two-way sites will be a rule of their own" in str(found[0])


@pytest.mark.parametrize(
    "rules",
    [
        [rule("ab"), rule("bc"), rule("ac")],
        [rule("ab", "one/**"), rule("ba", "two/**")],
        [rule("ab", exclude=("from-b/**",)), rule("ba", "own/**", prefix="from-b/")],
        [rule("ab", tags=("v*",)), rule("ba", tags=("test-*",))],
        [rule("ab", "app", prefix="mirror/"), rule("ba", "app", prefix="mirror/")],
    ],
    ids=str,
)
def test_what_does_not_come_back_is_no_circle(rules: list[Rule]) -> None:
    assert cycles(rules) == []


names = st.sampled_from(["app", "web", "team/app", "mirror/app"])
patterns = st.one_of(names, st.sampled_from(["**", "team/**", "mirror/**", "*", "a*", "**/app"]))
ways = st.sampled_from(["ab", "ba", "bc", "ca", "cb", "abc"])
rules = st.builds(
    lambda way, include, exclude, prefix, strip: rule(
        way, include, exclude=(exclude,) if exclude else (), prefix=prefix, strip=strip
    ),
    ways,
    patterns,
    st.none() | patterns,
    st.sampled_from(["", "mirror/"]),
    st.sampled_from(["", "mirror/", "team/"]),
)
worlds = st.lists(rules, max_size=4, unique_by=lambda each: each.name)


@given(worlds)
def test_whatever_is_found_really_goes_round(world: list[Rule]) -> None:
    for cycle in cycles(world):
        name, tag = cycle.repository, cycle.tag
        after = [*cycle.rules[1:], cycle.rules[0]]
        for each, following in zip(cycle.rules, after, strict=True):
            assert select_repository(each.repositories, name)
            assert may_select(each.tags, tag)
            assert following.source in each.destinations
            name, tag = target_repository(each, name), target_tag(each, tag)
        assert select_repository(cycle.rules[0].repositories, name)


@given(worlds, names)
def test_a_name_that_goes_round_between_two_rules_is_a_circle(world: list[Rule], name: str) -> None:
    for one in world:
        for other in world:
            there = other.source in one.destinations and one.source in other.destinations
            if there and select_repository(one.repositories, name):
                middle = target_repository(one, name)
                exact = {one.repositories.include[0].exact, other.repositories.include[0].exact}
                if name in exact and select_repository(other.repositories, middle):
                    back = target_repository(other, middle)
                    if select_repository(one.repositories, back):
                        assert cycles(world)
