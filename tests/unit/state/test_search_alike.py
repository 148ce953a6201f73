"""SQLite and PostgreSQL find the same, whatever the words of images and queries are."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import psycopg
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from replicator.model.digest import digest_of
from replicator.ports import ImageSeen, Placed, TagBelief
from replicator.ports.search import Holding, ImageFacts, Query
from replicator.state.place import Place
from replicator.state.store import open_state
from replicator.state.tables import metadata
from tests.fakes.clock import FakeClock
from tests.postgres import Database
from tests.unit.state.conftest import place_of

NOW = 1_700_000_000.0
# Letters with accents, ligatures, other alphabets, marks, what separates words, and what either database's syntax means.
_LETTERS = st.sampled_from("abAé\u0301ﬁßİ\u0131中я1²_-./ :*'\"\\%|&!()\u00ad\u200d")
_TEXT = st.text(_LETTERS, max_size=12)
_WORD = st.text(_LETTERS, min_size=1, max_size=2).filter(str.strip)
_LABELS = st.dictionaries(st.sampled_from(["org.opencontainers.image.title", "team"]), _TEXT, max_size=2)
_IMAGES = st.lists(st.tuples(_LABELS, _LABELS), min_size=1, max_size=4)
_QUERIES = st.lists(
    st.builds(
        Query,
        words=st.lists(_WORD, max_size=2).map(tuple),
        repository=st.sampled_from(["", "team/*", "a[b]*", "a?b", "a%b", "a_b"]),
        labels=st.sampled_from(
            [(), (("team", "*"),), (("team", "a*"),), (("team", "*\\*"),), (("team", "%"),)]
        ),
    ),
    min_size=1,
    max_size=4,
)
_REPOSITORIES = ("team/app", "a[b]c", "a%b", "a_b")


async def _found(
    place: Place, images: list[tuple[dict[str, str], dict[str, str]]], queries: list[Query]
) -> list[object]:
    state = await open_state(place, clock=FakeClock(NOW))
    for number, (labels, notes) in enumerate(images):
        digest = digest_of(f"{number}".encode())
        belief = TagBelief(f"v{number}", digest, digest, "rule", NOW, NOW)
        state.record(Placed("rule", "fra", belief, _REPOSITORIES[number]))
        state.record(ImageSeen(ImageFacts(digest, labels=labels, annotations=notes)))
    found = [[_plain(each) for each in await state.search(query, 100)] for query in queries]
    await state.aclose()
    return [*found]


def _plain(holding: Holding) -> tuple[str, str, str]:
    return holding.destination, holding.repository, holding.tag


@settings(max_examples=10, deadline=None)
@given(_IMAGES, _QUERIES)
@example(
    [({"team": "Caf\u00e9 A'B"}, {})],
    [Query(words=("cafe",)), Query(words=("a'b",)), Query(words=("CAF\u00c9",))],
)
@example([({"team": "a\\b"}, {"team": "x"})], [Query(labels=(("team", "a\\*"),)), Query(words=("\\",))])
def test_both_databases_find_the_same(
    with_tables: Database, images: list[tuple[dict[str, str], dict[str, str]]], queries: list[Query]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        in_file = asyncio.run(_found(Path(folder, "state.db"), images, queries))
    try:
        assert asyncio.run(_found(place_of(with_tables), images, queries)) == in_file
    finally:
        with psycopg.connect(with_tables.dsn, autocommit=True) as connection:
            tables = sql.SQL(", ").join(map(sql.Identifier, (*metadata.tables, "image_text")))
            connection.execute(sql.SQL("TRUNCATE {}").format(tables))
