"""Which entries of an index have a key: as a plain list would say, and without objects for the garbage collector."""

from __future__ import annotations

import gc

from hypothesis import given
from hypothesis import strategies as st

from replicator.sites.layouts.oci.index import parse_index
from replicator.sites.layouts.oci.numbers import Numbers

KEYS = st.sampled_from(["a", "b", "c", "d"])


@given(
    keys=st.lists(st.none() | KEYS, max_size=12),
    changes=st.lists(
        st.tuples(KEYS, st.none() | st.sets(st.integers(min_value=0, max_value=20))), max_size=12
    ),
)
def test_the_numbers_of_a_key_are_those_a_list_of_the_entries_gives(
    keys: list[str | None], changes: list[tuple[str, set[int] | None]]
) -> None:
    numbers, entries = Numbers(keys), dict(enumerate(keys))
    for key, removed in changes:
        before, seen = numbers, {each: numbers.all(each) for each in numbers}
        numbers = numbers.copy()
        if removed is None:
            number = max(entries, default=-1) + 1
            numbers.add(key, number)
            entries[number] = key
        else:
            numbers.remove(key, removed)
            entries = {n: None if each == key and n in removed else each for n, each in entries.items()}
        assert {each: before.all(each) for each in before} == seen
        for each in "abcd":
            expected = tuple(number for number, known in entries.items() if known == each)
            assert numbers.all(each) == expected
            assert numbers.last(each) == (expected[-1] if expected else None)
            assert (each in numbers) == bool(expected)
        assert sorted(numbers) == sorted({each for each in entries.values() if each is not None})


def test_a_large_index_adds_hardly_any_object_that_the_garbage_collector_counts() -> None:
    # A full collection stops every thread, the event loop's included, for as long as it takes to count them.
    entries = b",".join(
        b'{"digest":"sha256:%064x","annotations":{"org.opencontainers.image.ref.name":"v%d"}}'
        % (number, number)
        for number in range(5_000)
    )
    data = b'{"schemaVersion":2,"manifests":[%b]}' % entries
    gc.collect()
    before = len(gc.get_objects())
    index = parse_index(data)
    added = len(gc.get_objects()) - before
    assert len(index) == 5_000
    assert added < 200
