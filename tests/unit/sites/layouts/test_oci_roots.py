"""The entries of an index: any changes give what a plain table gives, and cost one piece of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicator.demo.images import image
from replicator.sites.layouts.oci.index import empty_index, parse_index
from replicator.sites.layouts.oci.parsing import Root, root_of
from replicator.sites.layouts.oci.roots import Roots

PIECE = 256


def root(number: int) -> Root:
    return root_of(b'{"digest":"sha256:%064x"}' % number)


@given(
    count=st.sampled_from([0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE]),
    changes=st.lists(st.none() | st.integers(min_value=0, max_value=3 * PIECE + 20), max_size=40),
)
def test_changes_are_those_of_a_table_and_leave_earlier_versions_alone(
    count: int, changes: list[int | None]
) -> None:
    roots, table = Roots([root(number) for number in range(count)]), {n: root(n) for n in range(count)}
    number = count
    for change in changes:
        before, seen = roots, list(roots)
        roots = roots.copy()
        if change is None:
            assert roots.add(root(number)) == number
            table[number] = root(number)
            number += 1
        elif change in table:
            assert roots.pop(change) == table.pop(change)
        assert list(before) == seen
        assert len(roots) == len(table)
        assert list(roots) == list(table.values())
        assert all(roots[n] == known for n, known in table.items())
        assert b",\n".join(roots.lines()) == b",\n".join(known.raw for known in table.values())


def test_a_change_encodes_one_piece_of_the_index() -> None:
    roots = Roots([root(number) for number in range(10 * PIECE)])
    before = roots.lines()
    changed = roots.copy()
    changed.pop(3 * PIECE + 7)
    changed.add(root(0))
    after = changed.lines()
    assert [number for number, (a, b) in enumerate(zip(before, after, strict=False)) if a is not b] == [3]
    assert len(after) == len(before) + 1


def test_an_index_of_many_pieces_reads_as_it_was_written() -> None:
    index, manifest = empty_index(), image("a").manifest
    tags = [f"v{number}" for number in range(2 * PIECE + 3)]
    for tag in tags:
        index.tag(manifest, tag)
    for tag in tags[: PIECE + 10]:
        index.untag(tag)
    assert list(parse_index(index.encode()).tags()) == tags[PIECE + 10 :]
