"""Versions and their ranges."""

from __future__ import annotations

import itertools
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.policy.semver import SemverRange, Version, parse_version

_numbers = st.integers(0, 3)
_identifiers = st.lists(st.sampled_from(["0", "1", "11", "alpha", "beta", "rc1", "-"]), max_size=3).map(
    ".".join
)
_versions = st.builds(
    lambda core, prerelease: Version.parse(core + (f"-{prerelease}" if prerelease else "")),
    st.tuples(_numbers, _numbers, _numbers).map(lambda core: ".".join(map(str, core))),
    _identifiers,
)
_releases = _versions.filter(lambda version: version.is_release)


def _in(text: str, tag: str) -> bool:
    return Version.parse(tag) in SemverRange.parse(text)


def test_order_is_that_of_the_specification() -> None:
    """Semantic Versioning 2.0.0, section 11, with its own examples."""
    tags = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11"]
    tags += ["1.0.0-rc.1", "1.0.0", "2.0.0", "2.1.0", "2.1.1"]
    versions = [Version.parse(tag) for tag in tags]
    assert all(low < high for low, high in itertools.pairwise(versions))
    assert Version.parse("1.0.0-1") < Version.parse("1.0.0-a")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("v1.2.3", "1.2.3"),
        ("1", "1.0.0"),
        ("1.2", "v1.2.0"),
        ("1.2.3+b1", "1.2.3_b2"),
        ("2024.01.05", "2024.1.5"),
    ],
)
def test_tags_are_read_leniently(one: str, other: str) -> None:
    assert Version.parse(one) == Version.parse(other)
    assert hash(Version.parse(one)) == hash(Version.parse(other))
    assert str(Version.parse(one)) == one


@pytest.mark.parametrize(
    "tag", ["latest", "", "v", "1.2.3.4", "1.2.", "1.2.3-", "x1.2", "1.2.3rc1", "sha256-abc", "\u0661.2"]
)
def test_what_is_no_version_is_refused(tag: str) -> None:
    assert parse_version(tag) is None
    with pytest.raises(ValueError, match="invalid version"):
        Version.parse(tag)


@given(_versions, _versions, _versions)
def test_order_is_total_and_transitive(a: Version, b: Version, c: Version) -> None:
    assert (a < b) + (a == b) + (a > b) == 1
    if a <= b <= c:
        assert a <= c


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        (">=1.2 <2", ["1.2", "1.99.9"], ["1.1.9", "2.0.0", "2.0.0-rc1"]),
        (">=1.2,<2", ["1.5"], ["2.0"]),
        (">= 1.2, < 2", ["1.5"], ["2.0"]),
        ("1.2.3", ["v1.2.3"], ["1.2.4"]),
        ("=1.2", ["1.2.0", "1.2.9"], ["1.3.0", "1.1.9"]),
        (">1.2", ["1.3.0"], ["1.2.9", "1.2.0"]),
        (">1.2.3", ["1.2.4"], ["1.2.3"]),
        ("<1.2", ["1.1.9"], ["1.2.0"]),
        ("<1.2 <1.2.0-rc2", ["1.1.0"], ["1.2.0-rc1"]),
        ("<=1.2", ["1.2.9"], ["1.3.0"]),
        ("<=1.2.3", ["1.2.3"], ["1.2.4"]),
        ("~1.2.3", ["1.2.3", "1.2.9"], ["1.2.2", "1.3.0"]),
        ("~1.2", ["1.2.0"], ["1.3.0"]),
        ("~1", ["1.9.9"], ["2.0.0", "0.9.0"]),
        ("~>1.2", ["1.2.5"], ["1.3.0"]),
        ("^1.2.3", ["1.2.3", "1.9.0"], ["1.2.2", "2.0.0"]),
        ("^0.2.3", ["0.2.3", "0.2.9"], ["0.3.0", "0.2.2"]),
        ("^0.0.3", ["0.0.3"], ["0.0.4", "0.0.2"]),
        ("^0.0.0", ["0.0.0"], ["0.0.1"]),
        ("^0.0", ["0.0.0", "0.0.9"], ["0.1.0"]),
        ("^0", ["0.9.9"], ["1.0.0"]),
        ("^4", ["4.0.0", "4.9.9"], ["5.0.0", "3.9.9"]),
        ("1.x", ["1.0.0", "1.9.9"], ["2.0.0"]),
        ("1.2.*", ["1.2.9"], ["1.3.0"]),
        ("1.x.x", ["1.9.9"], ["2.0.0"]),
        ("1.2 - 1.4", ["1.2.0", "1.4.9"], ["1.5.0", "1.1.9"]),
        ("1.2.3 - 2.3.4", ["2.3.4"], ["2.3.5"]),
        ("*", ["0.0.0", "99"], ["1.0.0-rc1"]),
        (">=1.2 <2 || ~3.1 || ^4", ["1.2", "3.1.5", "4.7"], ["2.0", "3.2.0", "5.0"]),
    ],
)
def test_ranges_mean_what_npm_says(text: str, yes: list[str], no: list[str]) -> None:
    assert [tag for tag in yes if not _in(text, tag)] == []
    assert [tag for tag in no if _in(text, tag)] == []


def test_prereleases_are_in_a_range_only_where_it_names_one_of_the_same_release() -> None:
    assert not _in(">=1.2", "1.3.0-rc1")
    assert not _in(">=1.2", "1.3.0-alpine")  # a variant to its author, a prerelease to semver
    assert not _in("1.x", "1.5.0-rc1")
    assert _in(">=1.3.0-rc1", "1.3.0-rc2")
    assert not _in(">=1.3.0-rc1", "1.4.0-rc1")
    assert _in("^1.3.0-rc1 || 9.x", "1.3.0-rc1")
    assert not _in(">=1.3.0-rc1 <1.3.0 || 1.x", "1.4.0-rc1")
    assert not _in(">=1.3.0-rc.2", "1.3.0-rc.1")


@pytest.mark.parametrize(
    ("text", "offending"),
    [
        ("", "an empty part"),
        (">=1 ||", "an empty part"),
        (">=", "'>=' is not a comparison"),
        (">=1.2 <two", "invalid version 'two'"),
        ("1.2.3.4", "invalid version '1.2.3.4'"),
        ("!=1.2", "invalid version '!'"),
        ("1.x.3", "'1.x.3' has a number after a wildcard"),
        ("1.2-rc1", "'1.2-rc1' has a prerelease but not all three numbers"),
        ("<*", "'<*' holds no version"),
        ("> x", "'> x' holds no version"),
        (">2 <1", "no version is in '>2 <1'"),
        (">=1.2.3 <1.2.3", "no version is in"),
        ("~1.2 ~1.3", "no version is in"),
        ("2 - 1", "no version is in '2 - 1'"),
    ],
)
def test_bad_range_names_the_offending_part(text: str, offending: str) -> None:
    with pytest.raises(ValueError, match="semver range") as caught:
        SemverRange.parse(text)
    assert offending in str(caught.value)
    assert repr(text) in str(caught.value)


@given(st.text(alphabet="0123 .-^~<>=|,xX*vrc", max_size=16))
def test_any_text_is_a_range_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert (Version.parse("1.2.3") in SemverRange.parse(text)) in {True, False}


@given(_releases, _releases)
def test_comparisons_agree_with_the_order(bound: Version, version: Version) -> None:
    assert (version in SemverRange.parse(f">={bound}")) == (version >= bound)
    assert (version in SemverRange.parse(f">{bound}")) == (version > bound)
    assert (version in SemverRange.parse(f"<={bound}")) == (version <= bound)
    assert (version in SemverRange.parse(f"<{bound}")) == (version < bound)
    assert (version in SemverRange.parse(f"{bound}")) == (version == bound)


@given(
    _versions,
    st.lists(st.sampled_from(["1.x", "~2.1", "^0.1", ">=1.0.0-rc1", "<2", "3"]), min_size=1, max_size=4),
)
def test_a_range_holds_what_any_of_its_parts_holds(version: Version, parts: list[str]) -> None:
    expected = any(version in SemverRange.parse(part) for part in parts)
    assert (version in SemverRange.parse(" || ".join(parts))) == expected


@given(_versions, _releases)
def test_caret_holds_what_tilde_holds(version: Version, base: Version) -> None:
    if base.core[0] > 0 and version in SemverRange.parse(f"~{base}"):
        assert version in SemverRange.parse(f"^{base}")
