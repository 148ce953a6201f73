"""Shards: each name is in exactly one, the same everywhere and always."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicator.model.shards import Shard, shard_of


def test_the_shard_of_a_name_never_changes() -> None:
    """Agents of two releases side by side must agree; these are from `b2sum -l 64`."""
    assert [shard_of(name, 64) for name in ("library/alpine", "a", "team/app")] == [40, 47, 19]


@given(st.text(), st.integers(1, 256))
def test_each_repository_is_in_exactly_one_shard(name: str, count: int) -> None:
    assert [shard.has(name) for shard in (Shard(index, count) for index in range(count))].count(True) == 1


def test_many_names_spread_evenly() -> None:
    sizes = [0] * 64
    for number in range(10_000):
        sizes[shard_of(f"team/app-{number}", 64)] += 1
    assert min(sizes) > 100
    assert max(sizes) < 220


def test_people_count_from_one() -> None:
    assert str(Shard(0, 64)) == "1/64"
