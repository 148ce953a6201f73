"""Many tags on PostgreSQL: sizes of tables, searches, and what a scan with nothing to do reads and writes of the state.

`python -m bench.million [--tags N]` prints what docs/scaling.md quotes. The rows are made in the database, shaped as those of
`bench.search`: two platforms, 8 layers of which 3 are shared, labels and annotations of the OCI spec; one destination.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from typing import Final

import psycopg

from replicator.discovery.query import parse_query
from replicator.flow.clock import SystemClock
from replicator.ports import RunRow, Unit, UnitSeen
from replicator.state.place import PostgresPlace
from replicator.state.store import StoredState, open_state
from tests.postgres import Database, running_postgres

TAGS_EACH: Final = 100
"""Of a repository."""
LIMIT: Final = 501
QUERIES: Final = ("app-0042", "invoices", "layer:{layer}", "label:team=team-7 tag:v2*", "nowhere")
TABLES: Final = ("beliefs", "placements", "images", "image_text", "image_layers", "units", "names")
FILL: Final = """
INSERT INTO names (id, name) VALUES (1, 'bench'), (2, 'fra');
INSERT INTO names (id, name)
  SELECT number + 10, 'team-' || number % 20 || '/app-' || lpad(number::text, 4, '0')
  FROM generate_series(0, current_setting('bench.tags')::int / 100 - 1) AS number;
CREATE TEMPORARY TABLE made AS
  SELECT number, number / 100 + 10 AS repository, sha256(('image ' || number)::bytea) AS digest,
    extract(epoch FROM now())::float8 AS at
  FROM generate_series(0, current_setting('bench.tags')::int - 1) AS number;
INSERT INTO beliefs SELECT 2, repository, 'v' || number % 100, digest, digest, 1, at, at, '' FROM made;
INSERT INTO placements SELECT 2, repository, digest, md5(number::text), at, at FROM made;
INSERT INTO units SELECT 1, 2, id, name, 0, 0, 100, 0, 0, '', 0 FROM names WHERE id >= 10;
INSERT INTO images (id, digest, created, artifact_type, platforms, labels, annotations, size)
  SELECT number + 1, digest, at, '', ' linux/amd64 linux/arm64 ',
    json_build_object('team', 'team-' || number % 20, 'org.opencontainers.image.description',
      CASE WHEN number % 97 = 0 THEN 'Serves invoices' ELSE 'Serves orders' END),
    json_build_object('org.opencontainers.image.version', '1.' || number), 8000000
  FROM made;
INSERT INTO image_text
  SELECT number + 1, array_to_tsvector(ARRAY['team', (number % 20)::text, 'serves',
    CASE WHEN number % 97 = 0 THEN 'invoices' ELSE 'orders' END, '1', number::text])
  FROM made;
INSERT INTO image_layers
  SELECT sha256(('layer ' || CASE WHEN layer < 3 THEN layer || '.' || number % 40 ELSE layer || '..' || number END)::bytea),
    number + 1, 1000000
  FROM made, generate_series(0, 7) AS layer;
SELECT setval('names_id_seq', (SELECT max(id) FROM names)), setval('images_id_seq', (SELECT max(id) FROM images));
"""


async def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tags", type=int, default=1_000_000)
    tags = parser.parse_args().tags
    print(f"cores: {os.cpu_count()}, load: {os.getloadavg()[0]:.1f}, {tags} tags")
    with running_postgres() as server:
        database = server.create()
        place = PostgresPlace(database.url, lambda: database.password)
        state = await open_state(place, clock=SystemClock())
        await asyncio.to_thread(fill, database, tags)
        sizes(database, tags)
        for text in QUERIES:
            await search(state, text)
        await scan(state, tags)
        await state.aclose()


def fill(database: Database, tags: int) -> None:
    """Makes the rows."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("SELECT set_config('bench.tags', %s, false)", (str(tags),))
        connection.execute(FILL)
        connection.execute("VACUUM ANALYZE")


def sizes(database: Database, tags: int) -> None:
    """Bytes a tag, indexes included."""
    with psycopg.connect(database.dsn) as connection:
        for table in TABLES:
            row = connection.execute("SELECT pg_total_relation_size(%s::regclass)", (table,)).fetchone()
            assert row is not None
            print(f"{table}: {row[0] / 1e6:.0f} MB, {row[0] / tags:.0f} bytes a tag")


async def search(state: StoredState, text: str) -> None:
    """A query with the facts of what it finds, as `replicator search` asks; the second time."""
    if "{layer}" in text:
        digests = [each.digest for each in await state.search(parse_query(["app-0007"]), 1) if each.digest]
        [facts] = (await state.facts(digests)).values()
        text = text.format(layer=facts.layers[-1][0].partition(":")[2][:12])
    await _ask(state, text)
    began = time.monotonic()
    count = await _ask(state, text)
    print(f"search {text}: {count} found, {(time.monotonic() - began) * 1000:.0f} ms")


async def _ask(state: StoredState, text: str) -> int:
    found = await state.search(parse_query([text]), LIMIT)
    await state.facts(list({each.digest for each in found if each.digest}))
    return len(found)


async def scan(state: StoredState, tags: int) -> None:
    """What a run with nothing to do asks of the state and tells it, repository by repository."""
    began, now = time.monotonic(), time.time()
    for number in range(tags // TAGS_EACH):
        name = f"team-{number % 20}/app-{number:04}"
        known = await state.beliefs("fra", name)
        assert len(known) == TAGS_EACH
        await state.placements("fra", name)
        await state.pending("bench", "fra", name)
        state.record(UnitSeen(Unit("bench", "fra", name, name, now, now, TAGS_EACH, asked_at=now)))
    await state.close_run(RunRow("bench", "fra", now, time.time(), "ok", True, tags, 0, 0))
    print(
        f"scan with nothing to do: {time.monotonic() - began:.1f} s in the state for {tags // TAGS_EACH} repositories"
    )
    began = time.monotonic()
    await state.standings()
    print(f"standings: {(time.monotonic() - began) * 1000:.0f} ms")


if __name__ == "__main__":
    asyncio.run(main())
