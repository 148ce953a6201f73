"""Selection: what a rule wants of a repository."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from replicator.model.digest import digest_of
from replicator.policy.pattern import Glob, parse_tag_pattern
from replicator.policy.rule import Pin, RepositorySelection, Sort, TagPattern, TagSelection
from replicator.policy.selection import (
    Selected,
    exact_repositories,
    exact_tags,
    is_immutable,
    may_select,
    needs_created,
    select,
    select_repository,
)
from replicator.policy.semver import SemverRange, parse_version

NOW = 1_000_000.0
PIN = digest_of(b"pinned")


def _patterns(*texts: str) -> tuple[TagPattern, ...]:
    return tuple(parse_tag_pattern(text) for text in texts)


def _select(
    tags: list[str], *selections: TagSelection, created: Mapping[str, float] | None = None
) -> Selected:
    return select(selections, tags, created, NOW)


def _repositories(include: list[str], exclude: list[str] | None = None) -> RepositorySelection:
    return RepositorySelection(tuple(map(Glob.parse, include)), tuple(map(Glob.parse, exclude or [])))


# --- repositories -------------------------------------------------------------------------------------------


def test_repository_is_selected_by_any_include_and_no_exclude() -> None:
    selection = _repositories(["platform/**", "base"], ["platform/scratch/**"])
    names = ["platform/a", "platform/scratch/a", "base", "other"]
    assert [name for name in names if select_repository(selection, name)] == ["platform/a", "base"]


def test_listing_is_needed_only_where_a_pattern_is_no_name() -> None:
    assert exact_repositories(_repositories(["a", "b", "a"])) == ("a", "b")
    assert exact_repositories(_repositories(["a", "b"], ["b*"])) == ("a",)
    assert exact_repositories(_repositories(["a", "b/*"])) is None


# --- tags that need no listing ------------------------------------------------------------------------------


def test_exact_names_need_no_listing() -> None:
    assert exact_tags((TagSelection(_patterns("v1", "v2")), TagSelection(_patterns("v2", "edge")))) == (
        "v1",
        "v2",
        "edge",
    )
    assert exact_tags((TagSelection(_patterns("v1", "v2"), exclude=_patterns("*2")),)) == ("v1",)
    assert exact_tags((TagSelection(_patterns("v1", "v2"), semver=SemverRange.parse(">=2")),)) == ("v2",)


def test_pins_need_no_listing_and_are_not_asked_for_by_tag() -> None:
    assert exact_tags((TagSelection(pins=(Pin(PIN),)),)) == ()
    assert exact_tags((TagSelection(_patterns("v1", "v2"), pins=(Pin(PIN, "v1"),)),)) == ("v2",)


@pytest.mark.parametrize(
    "selection",
    [
        TagSelection(),
        TagSelection(_patterns("v*")),
        TagSelection(_patterns("v1", "re:v2")),
        TagSelection(_patterns("v1"), latest=1),
        TagSelection(_patterns("v1"), newer_than=60),
        TagSelection(_patterns("v1"), min_tags=1),
    ],
)
def test_what_depends_on_other_tags_or_ages_needs_a_listing(selection: TagSelection) -> None:
    assert exact_tags((selection,)) is None
    assert exact_tags((TagSelection(_patterns("v9")), selection)) is None


# --- the filters --------------------------------------------------------------------------------------------


def test_no_keys_means_all_tags_also_those_that_are_no_versions() -> None:
    selected = _select(["v1", "latest", "sha256-abc.sig"], TagSelection())
    assert selected == Selected(tags=("latest", "sha256-abc.sig", "v1"))


def test_each_filter_tells_how_many_it_took() -> None:
    selection = TagSelection(
        _patterns("v*"),
        exclude=_patterns("*-rc*"),
        semver=SemverRange.parse(">=1.2"),
        newer_than=100,
        latest=2,
    )
    tags = ["v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6-rc1", "vnext", "latest"]
    created = dict.fromkeys(tags, NOW - 10) | {"v1.5": NOW - 101}
    selected = _select(tags, selection, created=created)
    assert selected.tags == ("v1.3", "v1.4")
    assert selected.filters == (
        ("include", 1, 7),
        ("exclude", 1, 6),
        ("not a version", 1, 5),
        ("semver", 1, 4),
        ("newer_than", 1, 3),
        ("latest", 1, 2),
    )
    assert selected.left_out_non_versions == 1


def test_tables_are_ored_and_told_apart() -> None:
    selected = _select(
        ["v1", "v2", "edge"], TagSelection(_patterns("v*"), latest=1), TagSelection(_patterns("edge"))
    )
    assert selected.tags == ("edge", "v2")
    assert selected.filters == (
        ("include of table 1", 1, 2),
        ("latest of table 1", 1, 1),
        ("include of table 2", 2, 1),
    )


@pytest.mark.parametrize(
    ("sort", "expected"),
    [("semver", ("v1.10", "v1.9")), ("alpha", ("v1.9", "zebra")), ("created", ("v1.2", "zebra"))],
)
def test_latest_keeps_the_newest_by_its_sort(sort: Sort, expected: tuple[str, ...]) -> None:
    created = {"v1.10": 1.0, "v1.9": 2.0, "v1.2": 3.0, "zebra": 4.0}
    selected = _select(list(created), TagSelection(latest=2, sort=sort), created=created)
    assert selected.tags == expected
    assert selected.left_out_non_versions == (1 if sort == "semver" else 0)


def test_non_version_that_another_table_takes_is_not_left_out() -> None:
    tables = TagSelection(latest=1), TagSelection(_patterns("edge"))
    assert _select(["v1", "edge", "nightly"], *tables).left_out_non_versions == 1


def test_age_that_is_not_known_is_told_and_not_guessed() -> None:
    created = {"v1": NOW - 10}
    assert _select(["v1", "v2"], TagSelection(newer_than=60), created=created) == Selected(
        tags=("v1",), filters=(("age unknown", 1, 1), ("newer_than", 0, 1)), undated=("v2",)
    )
    selected = _select(["v1", "v2", "v3"], TagSelection(latest=1, sort="created"), created=created)
    assert (selected.tags, selected.undated) == (("v1",), ("v2", "v3"))
    tables = TagSelection(newer_than=60), TagSelection(_patterns("v2"))
    assert _select(["v1", "v2", "v3"], *tables, created=created).undated == (
        "v3",
    )  # v2 is wanted all the same


def test_too_few_tags_are_told_and_pins_count() -> None:
    table = TagSelection(_patterns("v*"), min_tags=3)
    assert _select(["v1", "x"], table).short == ("min_tags is 3, but 1 selected",)
    assert _select(["v1", "x"], table, TagSelection()).short == ("min_tags of table 1 is 3, but 1 selected",)
    assert _select(["v1", "v2", "v3"], table).short == ()
    pinned = TagSelection(_patterns("v*"), pins=(Pin(PIN), Pin(PIN, "v9")), min_tags=3)
    assert _select(["v1"], pinned).short == ()


def test_pins_are_kept_whatever_the_filters_say_and_decide_what_their_tag_is() -> None:
    pins = (Pin(PIN, "v1"), Pin(PIN))
    selected = _select(["v1", "v2"], TagSelection(exclude=_patterns("*"), pins=pins), TagSelection())
    assert selected.pins == pins
    assert selected.tags == ("v2",)
    assert _select(["v1", "v2"], TagSelection(pins=pins)).tags == ()  # a table of pins takes nothing else


def test_creation_times_are_needed_only_for_what_the_cheap_filters_leave() -> None:
    tags = ["v1", "v2", "v3", "x"]
    assert needs_created((TagSelection(),), tags) == set()
    assert needs_created((TagSelection(latest=1),), tags) == set()
    assert needs_created((TagSelection(_patterns("v*"), newer_than=60),), tags) == {"v1", "v2", "v3"}
    by_age = TagSelection(semver=SemverRange.parse(">=2"), latest=1, sort="created")
    assert needs_created((by_age,), tags) == {"v2", "v3"}
    roomy = TagSelection(latest=4, sort="created")  # all of them are among the newest four
    assert needs_created((roomy,), tags) == set()
    assert _select(tags, roomy).tags == ("v1", "v2", "v3", "x")


def test_immutable_tags_are_those_that_a_pattern_of_any_table_names() -> None:
    tables = TagSelection(immutable=_patterns("v*.*.*")), TagSelection(immutable=_patterns("re:[0-9a-f]{7}"))
    assert [tag for tag in ("v1.2.3", "abcdef0", "v1", "latest") if is_immutable(tables, tag)] == [
        "v1.2.3",
        "abcdef0",
    ]


def test_tag_may_be_selected_where_the_name_filters_of_any_table_let_it_pass_and_no_pin_decides() -> None:
    tables = (
        TagSelection(_patterns("v*"), exclude=_patterns("*-rc"), latest=1),
        TagSelection(semver=SemverRange.parse(">=2"), newer_than=60),
        TagSelection(pins=(Pin(PIN, "v9"),)),
    )
    tags = ["v1", "v1-rc", "2.1.0", "1.0.0", "v9", "latest"]
    assert [tag for tag in tags if may_select(tables, tag)] == ["v1", "2.1.0"]


# --- laws ---------------------------------------------------------------------------------------------------

_TAGS = [
    "latest",
    "edge",
    "v1",
    "v1.0",
    "1.0.0",
    "v1.2.3",
    "v1.2.3-rc1",
    "v2",
    "v2.1",
    "v10",
    "x-1",
    "x-2",
    "x-10",
]
_tags = st.lists(st.sampled_from(_TAGS), max_size=20)
_some = st.lists(st.sampled_from(["*", "v*", "x-*", "v1", "edge", "re:v\\d", "*rc*"]), max_size=2).map(
    lambda texts: _patterns(*texts)
)
_tables = st.builds(
    TagSelection,
    include=_some,
    exclude=_some,
    pins=st.lists(st.builds(Pin, st.just(PIN), st.sampled_from([None, "v1", "new"])), max_size=1).map(tuple),
    semver=st.sampled_from([None, SemverRange.parse(">=1.2"), SemverRange.parse("1.x || >=1.2.3-rc1")]),
    sort=st.sampled_from(["semver", "alpha", "created"]),
    latest=st.sampled_from([None, 1, 2, 5]),
    newer_than=st.sampled_from([None, 5.0]),
)
_created = st.fixed_dictionaries({tag: st.floats(NOW - 10, NOW) for tag in _TAGS})


@given(st.data(), _tags, st.lists(_tables, min_size=1, max_size=3), _created)
def test_order_and_repetition_of_the_listing_do_not_matter(
    data: st.DataObject, tags: list[str], tables: list[TagSelection], created: dict[str, float]
) -> None:
    shuffled = data.draw(st.permutations(tags + tags[:3]))
    assert _select(tags, *tables, created=created) == _select(shuffled, *tables, created=created)


@given(_tags, _tables, _created)
def test_table_keeps_its_word(tags: list[str], table: TagSelection, created: dict[str, float]) -> None:
    selected = _select(tags, table, created=created)
    assert set(selected.tags) <= set(tags)
    assert selected.pins == table.pins
    for tag in selected.tags:
        assert not any(pattern.matches(tag) for pattern in table.exclude), "exclude wins"
        assert not table.include or any(pattern.matches(tag) for pattern in table.include)
        version = parse_version(tag)
        assert table.semver is None or (version is not None and version in table.semver)
        assert table.newer_than is None or created[tag] >= NOW - table.newer_than
    assert table.latest is None or len(selected.tags) <= table.latest


@given(_tags, _tables, _created)
def test_selecting_from_what_was_selected_changes_nothing(
    tags: list[str], table: TagSelection, created: dict[str, float]
) -> None:
    tags = [tag for tag in tags if all(tag != pin.tag for pin in table.pins)]
    once = _select(tags, table, created=created).tags
    assert _select(list(once), table, created=created).tags == once


@given(_tags, st.lists(_tables, min_size=1, max_size=3), _created)
def test_tables_together_select_what_each_selects(
    tags: list[str], tables: list[TagSelection], created: dict[str, float]
) -> None:
    pinned = {pin.tag for table in tables for pin in table.pins}
    each = {tag for table in tables for tag in _select(tags, table, created=created).tags}
    assert set(_select(tags, *tables, created=created).tags) == each - pinned


@given(_tags, st.lists(_tables, min_size=1, max_size=3), _created)
def test_times_that_were_not_asked_for_are_not_needed(
    tags: list[str], tables: list[TagSelection], created: dict[str, float]
) -> None:
    needed = needs_created(tuple(tables), tags)
    asked = {tag: at for tag, at in created.items() if tag in needed}
    selected = _select(tags, *tables, created=asked)
    assert selected.tags == _select(tags, *tables, created=created).tags
    assert selected.undated == ()


@given(_tags, _tables, _created)
def test_filters_account_for_every_tag(
    tags: list[str], table: TagSelection, created: dict[str, float]
) -> None:
    selected = _select(tags, replace(table, pins=()), created=created)
    left = len(set(tags))
    for _, removed, remaining in selected.filters:
        assert left - removed == remaining
        left = remaining
    assert left == len(selected.tags)


@given(st.lists(_tables, min_size=1, max_size=3), _tags)
def test_exact_tags_are_what_a_listing_would_have_given(tables: list[TagSelection], tags: list[str]) -> None:
    exact = exact_tags(tuple(tables))
    if exact is not None:
        listed = _select(tags, *tables).tags
        assert set(listed) == set(exact) & set(tags)
        assert _select(list(exact), *tables).tags == tuple(sorted(exact))
