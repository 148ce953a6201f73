"""A batch that could not be written goes back under what came later, and nothing of either is lost or said twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from replicator.model.digest import digest_of
from replicator.ports import (
    CatalogSeen,
    Created,
    Entry,
    GoneAtDestination,
    ImageSeen,
    Listed,
    ListingRefused,
    Missing,
    Noted,
    Pending,
    Placed,
    Placement,
    Seen,
    TagBelief,
    Unit,
    UnitSeen,
    Unlisted,
    Unpending,
)
from replicator.ports.search import ImageFacts
from replicator.state.batch import Batch, Change, Turn

NOW = 1_700_000_000.0
ONE, TWO = digest_of(b"one"), digest_of(b"two")

_tags = st.sampled_from(["v1", "v2"])
_digests = st.sampled_from([ONE, TWO])
_names = st.sampled_from(["rule", "other"])
_repositories = st.sampled_from(["app", "web"])
_times = st.sampled_from([NOW - 30, NOW - 20, NOW - 10])
_beliefs = st.builds(TagBelief, _tags, _digests, _digests, _names, _times, _times)
_placements = st.builds(Placement, _digests, st.sampled_from(["", "x"]), _times, _times)
_pending = st.builds(
    Pending,
    _repositories,
    _tags,
    st.none() | _digests,
    _times,
    st.integers(0, 3),
    st.sampled_from(["", "no\n", "refused"]),
    asked_at=_times,
    source=_repositories,
)
_units = st.builds(
    Unit,
    _names,
    st.just("fra"),
    _repositories,
    st.just("app"),
    st.none() | _times,
    st.none() | _times,
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from(["", "dark\t"]),
    _times,
)
_fra = st.just("fra")
ENTRIES: st.SearchStrategy[Entry] = st.one_of(
    st.builds(Placed, _names, _fra, _beliefs, _repositories, st.none() | _placements),
    st.builds(GoneAtDestination, _fra, _repositories, st.lists(_tags, max_size=2), _times),
    st.builds(Missing, _names, _fra, _pending),
    st.builds(Unpending, _names, _fra, _repositories, _tags, _times),
    st.builds(UnitSeen, _units, st.booleans()),
    # always the same: of two catalogs that differ, the later one is the last word on every unit
    st.builds(CatalogSeen, _names, _fra, st.just(frozenset({"web"})), _times),
    st.builds(Seen, _fra, _repositories, _digests),
    st.builds(Created, _digests, _times),
    st.builds(Noted, _fra, _repositories, st.builds(Listed, _tags, _digests, st.sampled_from(["1", "2"]))),
    st.builds(Unlisted, _fra, _repositories, st.lists(_tags, max_size=2)),
    st.builds(ImageSeen, st.builds(ImageFacts, _digests, st.none() | _times)),
    st.builds(ListingRefused, _fra, _repositories, _times, st.sampled_from(["", "no\r"])),
)


def _content(batch: Batch) -> dict[str, Any]:
    """What is in a batch, without tables of nothing."""
    found = {each.name: getattr(batch, each.name) for each in fields(batch)}
    return {
        name: {key: inner for key, inner in value.items() if inner != {}}
        if isinstance(value, dict)
        else value
        for name, value in found.items()
    }


def _batch(entries: Sequence[Entry]) -> Batch:
    batch = Batch()
    for entry in entries:
        batch.add(entry, NOW)
    return batch


@given(entries=st.lists(ENTRIES, max_size=12), at=st.integers(0, 12))
def test_a_batch_put_back_under_a_later_one_is_as_if_all_had_come_in_one(
    entries: list[Entry], at: int
) -> None:
    older, newer = _batch(entries[:at]), _batch(entries[at:])
    older.absorb(newer, NOW)
    assert _content(older) == _content(_batch(entries))


def test_a_rule_that_began_in_a_batch_put_back_is_dated_by_the_older_one() -> None:
    older, newer = Batch(), Batch()
    older.begin("rule", "fra", NOW - 9)
    newer.begin("rule", "fra", NOW - 5)
    newer.begin("other", "ams", NOW - 7)
    older.absorb(newer, NOW)
    assert older.begun == {("rule", "fra"): NOW - 9, ("other", "ams"): NOW - 7}
    assert older.size == 2


def _scan(at: float) -> UnitSeen:
    return UnitSeen(Unit("rule", "fra", "app", "app", at, at, 1, asked_at=at))


def test_what_a_clock_ahead_has_told_gives_way_to_a_later_batch() -> None:
    ahead, key = NOW + 3600, ("rule", "fra", "app")
    belief = TagBelief("v1", ONE, ONE, "rule", ahead, ahead)
    older = _batch(
        [
            Placed("rule", "fra", belief, "app"),
            Missing("rule", "fra", Pending("app", "v2", ONE, NOW, asked_at=ahead)),
            _scan(ahead),
            CatalogSeen("rule", "fra", frozenset({"app"}), ahead),
        ]
    )
    right = TagBelief("v1", TWO, TWO, "rule", NOW - 10, NOW - 10)
    late = Pending("app", "v2", TWO, NOW, asked_at=NOW - 10)
    catalog = CatalogSeen("rule", "fra", frozenset({"app"}), NOW - 10)
    entries: list[Entry] = [
        Placed("rule", "fra", right, "app"),
        Missing("rule", "fra", late),
        _scan(NOW - 10),
        catalog,
    ]
    older.absorb(_batch(entries), NOW)
    assert older.beliefs["fra", "app"]["v1"] == Turn(None, right)
    assert older.pending[key]["v2"] == Change(None, late)
    assert older.units[key].unit.asked_at == NOW - 10
    assert older.catalogs["rule", "fra"] == catalog


def test_a_batch_is_as_large_as_what_it_has_to_write_whatever_is_said_twice() -> None:
    # Its size decides when it is written: too small, and a run would fill the memory.
    belief = TagBelief("v1", ONE, ONE, "rule", NOW, NOW)
    entries: list[Entry] = [
        Placed(
            "rule", "left", belief, "app", Placement(ONE, "x", NOW, NOW)
        ),  # a tag, a root, and the end of what was pending
        Created(ONE, NOW - 60),
        Seen("left", "app", ONE),
        ListingRefused("hub", "app", NOW, "no"),
    ]
    batch = Batch()
    for _ in range(2):
        for entry in entries:
            batch.add(entry, NOW)
        assert batch.size == 6
    for count, rule in enumerate(["rule", "rule", "other"]):
        batch.begin(rule, "left", NOW)
        assert batch.size == (7 if count < 2 else 8)
