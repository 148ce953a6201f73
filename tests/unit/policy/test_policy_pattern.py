"""Patterns for repositories and tags."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replicator.policy.pattern import Glob, parse_tag_pattern


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("app", ["app"], ["apps", "my/app", "app/x", ""]),
        ("*", ["app"], ["a/b", "a/"]),
        ("platform/*", ["platform/a", "platform/a.b-c_d"], ["platform", "platform/a/b", "x/platform/a"]),
        ("platform/**", ["platform/a", "platform/a/b/c"], ["platform", "platformer/a"]),
        ("**", ["a", "a/b/c"], []),
        ("**/base", ["base", "a/base", "a/b/base"], ["mybase", "base/a"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["a/bz", "az"]),
        ("a**z", ["az", "a/z", "ab/cz"], ["az/"]),
        ("team-?/app", ["team-a/app"], ["team-/app", "team-ab/app", "team-//app"]),
        ("v[0-9]", ["v1"], ["va", "v12"]),
        ("v[!0-9]", ["va"], ["v1", "v/"]),
        ("a[.-0]b", ["a.b", "a0b"], ["a/b"]),
        ("{a,b}/x", ["a/x", "b/x"], ["c/x", "a,b/x"]),
        ("app{,-slim}", ["app", "app-slim"], ["app-"]),
        ("{a/*,b/{c,d}}", ["a/z", "b/c", "b/d"], ["b/e", "a/y/z"]),
        ("{**/x,y}", ["x", "a/x", "y"], ["a/y"]),
        ("a.c", ["a.c"], ["abc"]),
    ],
)
def test_glob_matches_whole_names(pattern: str, yes: list[str], no: list[str]) -> None:
    glob = Glob.parse(pattern)
    assert [name for name in yes if not glob.matches(name)] == []
    assert [name for name in no if glob.matches(name)] == []


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("", "an empty pattern"),
        ("a[bc", "not closed by ]"),
        ("a[]", "not closed by ], or nothing in it"),
        ("a[!]", "is not a set of characters"),
        ("a[b--c]", "is not a set of characters"),
        ("a[z-a]", "bad character range"),
        ("a{b,c", "not closed by }"),
        ("a}b", "'}' is not allowed in names"),
        ("a b", "' ' is not allowed in names"),
        ("!a/*", "'!' is not allowed in names"),
        (r"a\*", "is not allowed in names"),
        ("{" * 9 + "a" + "}" * 9, "nested deeper than 8"),
        ("Platform/App", "invalid repository name"),
        ("a//b", "invalid repository name"),
    ],
)
def test_bad_glob_says_what_is_wrong(pattern: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        Glob.parse(pattern)


def test_only_a_name_without_wildcards_is_exact() -> None:
    assert Glob.parse("library/nginx").exact == "library/nginx"
    assert [Glob.parse(text).exact for text in ("a*", "a?", "[ab]", "{a,b}", "**")] == [None] * 5
    assert parse_tag_pattern("v1.2").exact == "v1.2"
    assert [parse_tag_pattern(text).exact for text in ("v*", "re:v1", "v[12]")] == [None] * 3


@given(st.text(alphabet="ab/*?[]{},!-.", max_size=20))
@example("[--a]")
@example("[a&&b]")
@example("[[a]")
def test_any_text_is_a_glob_or_a_value_error(text: str) -> None:
    """Also none warns: Python's `re` has a FutureWarning for some sets of characters."""
    with suppress(ValueError):
        Glob.parse(text).matches("a/b.a-b")


@given(st.lists(st.sampled_from(["a", "b", "a.b"]), min_size=1, max_size=4))
def test_star_stays_in_its_component(components: list[str]) -> None:
    name = "/".join(components)
    assert Glob.parse("/".join("*" * len(components))).matches(name)
    assert Glob.parse("*").matches(name) == (len(components) == 1)
    assert Glob.parse("**").matches(name)


def test_tag_patterns_are_globs_or_regular_expressions_of_the_whole_tag() -> None:
    assert parse_tag_pattern("*-rc*").matches("v1-rc2")
    assert not parse_tag_pattern("v1").matches("v1.2")
    regex = parse_tag_pattern(r"re:v\d+|edge")
    assert [tag for tag in ("v1", "edge", "v1.2", "edgeless", "xv1") if regex.matches(tag)] == ["v1", "edge"]


def test_what_is_longer_than_a_tag_can_be_matches_nothing() -> None:
    assert parse_tag_pattern("re:.*").matches("a" * 128)
    assert not parse_tag_pattern("re:.*").matches("a" * 129)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("re:", "an empty regular expression"),
        ("re:(", "missing ), unterminated subpattern"),
        ("re:a{99999999999}", "invalid regular expression"),
        ("", "an empty pattern"),
        ("-v1", "invalid tag"),
        ("a/b", "invalid tag"),
    ],
)
def test_bad_tag_pattern_says_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        parse_tag_pattern(text)
