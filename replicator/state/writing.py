"""How a batch and a run's row get into the database. Inside a transaction, which is the caller's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Executable

from replicator.model.digest import Digest, encoded
from replicator.model.shards import Shard
from replicator.policy.recheck import CLOCK_SLACK_SECONDS
from replicator.ports import CatalogSeen, RunRow, Standing, UnitSeen
from replicator.state import merge, queries, statements
from replicator.state.batch import Batch, RepositoryKey, Turn
from replicator.state.images import MOVES_KEPT, NOTE_MOVE, TRIM_MOVES, drop_unused, write_images
from replicator.state.merge import ShardLook
from replicator.state.reading import pieces, read_standing

SWEEP_SECONDS: Final = 86_400.0
KEEP_SECONDS: Final = 90 * 86_400.0
"""How long it is remembered where a blob was seen, and when an image was created, after the last use."""
_USED: Final = "used"


class Names:
    """Numbers of names. What a transaction adds is kept by `commit` and forgotten by `undo`."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._new: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        number = self._known.get(name)
        return self._new[name] if number is None else number

    def intern(self, connection: Connection, names: Iterable[str]) -> None:
        """Gives each name a number that has none yet."""
        wanted = sorted({name for name in names if name not in self._known and name not in self._new})
        self._find(connection, wanted)
        # Only these: PostgreSQL would count a number for each attempt, and a fleet makes many.
        missing = [name for name in wanted if name not in self._new]
        execute_many(connection, statements.INTERN, ({"name": name} for name in missing))
        self._find(connection, missing)

    def _find(self, connection: Connection, names: Sequence[str]) -> None:
        for part in pieces(names):
            for name, number in connection.execute(queries.NAME_IDS, {"keys": part}):
                self._new[name] = number

    def commit(self) -> None:
        """The transaction is durable."""
        self._known |= self._new
        self._new = {}

    def undo(self) -> None:
        """The transaction is undone, and its numbers with it."""
        self._new = {}


class BatchWriter:
    """Writes one batch.

    Args:
        connection: inside a write transaction.
        batch: what to write.
        names: the numbers of names; gets what is new.
        now: epoch seconds; remembered times that lie ahead of it count as none.
    """

    def __init__(self, connection: Connection, batch: Batch, names: Names, now: float) -> None:
        self._connection = connection
        self._batch = batch
        self._names = names
        self._now = now
        self._ahead = now + CLOCK_SLACK_SECONDS

    def write(self) -> None:
        """Writes everything."""
        batch, names = self._batch, self._names
        names.intern(self._connection, _names_of(batch))
        places = sorted((names[site], names[repository]) for site, repository in batch.repositories)
        self._many(statements.KNOW_REPOSITORY, ({"site": site, "repository": repo} for site, repo in places))
        roots = {place: self._roots(place) for place in {*batch.beliefs, *batch.placements}}
        # A tag is pending or not by what was believed before the batch, as far as the batch itself does not tell.
        self._end_beliefs()
        self._write_pending()
        self._believe()
        self._write_placements(roots)
        self._many(statements.BEGIN, self._begun())
        for catalog in batch.catalogs.values():
            self._write_catalog(catalog)
        for counted, statement in ((True, statements.SCAN_AND_COUNT), (False, statements.SCAN)):
            seen = (each for each in batch.units.values() if each.counted is counted)
            self._many(statement, (self._unit(each) for each in seen), ahead=True)
        self._write_whereabouts()
        created = batch.created.items()
        self._many(
            statements.CREATE,
            ({"digest": digest, "at": at, "used_at": used_at} for digest, (at, used_at) in created),
        )
        self._write_listed()
        self._many(
            statements.REFUSE,
            (
                {"site": names[one.site], "repository": one.repository, "at": one.at, "cause": one.cause}
                for one in batch.refusals.values()
            ),
        )
        write_images(self._connection, batch.images.values())

    def _many(self, statement: Executable, rows: Iterable[Mapping[str, Any]], *, ahead: bool = False) -> None:
        if ahead:
            rows = ({**row, "ahead": self._ahead} for row in rows)
        execute_many(self._connection, statement, rows)

    def _place(self, place: RepositoryKey, prefix: str = "") -> dict[str, Any]:
        destination, repository = place
        return {
            f"{prefix}destination": self._names[destination],
            f"{prefix}repository": self._names[repository],
        }

    def _roots(self, place: RepositoryKey) -> set[Digest]:
        """The digests that may be named no more when the batch is written."""
        found = set(self._batch.placements.get(place, {}))
        for part in pieces(self._batch.beliefs.get(place, {})):
            rows = self._connection.execute(queries.ROOTS_OF, {**self._place(place), "keys": part})
            found.update(row[0] for row in rows)
        return found

    def _turns(self) -> Iterator[tuple[RepositoryKey, str, Turn]]:
        for place, tags in self._batch.beliefs.items():
            yield from ((place, tag, turn) for tag, turn in tags.items())

    def _end_beliefs(self) -> None:
        gone = (
            {**self._place(place, "the_"), "the_tag": tag, "seen_at": turn.gone_at}
            for place, tag, turn in self._turns()
            if turn.gone_at is not None
        )
        self._many(statements.END_BELIEF, gone, ahead=True)

    def _believe(self) -> None:
        rows = (
            msgspec.structs.asdict(turn.belief) | self._place(place) | {"rule": self._names[turn.belief.rule]}
            for place, _, turn in self._turns()
            if turn.belief is not None
        )
        self._write_moves()
        self._many(statements.BELIEVE, rows, ahead=True)

    def _write_moves(self) -> None:
        """Notes which tags begin to name another digest than the one that was believed."""
        rows = [
            self._place(place)
            | {"tag": tag, "at": turn.belief.checked_at, "digest": bytes.fromhex(encoded(turn.belief.digest))}
            for place, tag, turn in self._turns()
            if turn.belief is not None
        ]
        self._many(NOTE_MOVE, rows)
        self._many(TRIM_MOVES, ({**row, "kept": MOVES_KEPT - 1} for row in rows))

    def _write_placements(self, unnamed: Mapping[RepositoryKey, set[Digest]]) -> None:
        rows = (
            msgspec.structs.asdict(placement) | self._place(place)
            for place, roots in self._batch.placements.items()
            for placement in roots.values()
        )
        self._many(statements.PLACE, rows)
        self._many(
            statements.END_PLACEMENT,
            (
                {**self._place(place, "the_"), "the_digest": digest}
                for place, digests in unnamed.items()
                for digest in digests
            ),
        )

    def _write_pending(self) -> None:
        names = self._names
        changes = [
            (
                {"the_rule": names[rule], **self._place((destination, repository), "the_"), "the_tag": tag},
                change,
            )
            for (rule, destination, repository), tags in self._batch.pending.items()
            for tag, change in tags.items()
        ]
        over = (
            {**key, "the_asked_at": change.ends_at} for key, change in changes if change.ends_at is not None
        )
        self._many(statements.UNPEND, over, ahead=True)
        rows = (
            {f"the_{name}": getattr(change.pending, name) for name in queries.PENDING_FIELDS} | key
            for key, change in changes
            if change.pending is not None
        )
        self._many(statements.PEND, rows, ahead=True)

    def _begun(self) -> Iterator[dict[str, Any]]:
        for (rule, destination), at in self._batch.begun.items():
            yield new_standing(self._names, rule, destination, at) | {"ahead": self._ahead}
        for rule, destination in self._batch.catalogs:
            yield new_standing(self._names, rule, destination, self._now) | {"ahead": self._ahead}

    def _write_catalog(self, catalog: CatalogSeen) -> None:
        rule = {"rule": self._names[catalog.rule], "destination": self._names[catalog.destination]}
        moment = {"at": catalog.at, "ahead": self._ahead}
        key = {f"the_{name}": number for name, number in rule.items()}
        if catalog.is_looked_at:
            self._connection.execute(statements.CATALOG, key | moment)
        found = self._connection.execute(queries.UNITS_BEFORE, rule | moment).all()
        gone = [number for name, number in found if name not in catalog.repositories]
        self._many(statements.END_UNIT, ({**key, "the_repository": number} for number in gone))
        sources = [row[0] for row in self._connection.execute(queries.SOURCES_BEFORE, rule | moment)]
        self._many(
            statements.END_PENDING_OF,
            (
                {**key, **moment, "the_source": source}
                for source in sources
                if source not in catalog.repositories
            ),
        )

    def _unit(self, seen: UnitSeen) -> dict[str, Any]:
        unit = seen.unit
        counts = {} if seen.counted else {"in_step": 0, "held": 0, "unknown": 0}
        return (
            msgspec.structs.asdict(unit)
            | self._place((unit.destination, unit.repository))
            | {"rule": self._names[unit.rule]}
            | counts
        )

    def _write_whereabouts(self) -> None:
        names = self._names
        places = [
            (site, digest, repository, at)
            for (site, digest), repositories in self._batch.seen.items()
            for repository, at in repositories.items()
        ]
        gone = (
            {"the_site": names[site], "the_digest": digest, "the_repository": names[repository]}
            for site, digest, repository, at in places
            if at is None
        )
        self._many(statements.FORGET, gone)
        rows = (
            {"site": names[site], "digest": digest, "repository": names[repository], "seen_at": at}
            for site, digest, repository, at in places
            if at is not None
        )
        self._many(statements.SEE, rows)
        full = ({"the_site": names[site], "the_digest": digest} for site, digest in self._batch.seen)
        self._many(statements.TRIM_WHEREABOUTS, full, ahead=True)

    def _write_listed(self) -> None:
        names = self._names
        tags = [
            (names[site], names[repository], tag, listed)
            for (site, repository), known in self._batch.listed.items()
            for tag, listed in known.items()
        ]
        self._many(
            statements.UNLIST,
            (
                {"the_site": site, "the_repository": repository, "the_tag": tag}
                for site, repository, tag, listed in tags
                if listed is None
            ),
        )
        self._many(
            statements.NOTE,
            (
                {
                    "site": site,
                    "repository": repository,
                    "tag": tag,
                    "digest": listed.digest,
                    "version": listed.version,
                }
                for site, repository, tag, listed in tags
                if listed is not None
            ),
        )


def write_run(connection: Connection, row: RunRow, names: Names, now: float) -> Standing:
    """Writes the run's row and brings the standing up to date."""
    names.intern(connection, (row.rule, row.destination))
    key = {"rule": names[row.rule], "destination": names[row.destination]}
    where = {f"the_{name}": number for name, number in key.items()}
    values = msgspec.structs.asdict(row) | key | {"error": merge.clean(row.error)}
    del values["shard"], values["catalog_at"]
    connection.execute(statements.RUN, values)
    connection.execute(statements.TRIM_RUNS, where)
    begun = new_standing(names, row.rule, row.destination, row.started_at)
    connection.execute(statements.BEGIN, begun | {"ahead": now + CLOCK_SLACK_SECONDS})
    base, pending, _ = read_standing(connection, row.rule, row.destination, now)
    if row.shard is None or row.narrowed:
        closed = merge.close(base, row, pending=pending.tags, now=now)
    else:  # whoever began the standing above holds its row, so no other shard's run is between these
        looks = _write_look(connection, row, row.shard, key, now)
        closed = merge.close_shard(base, looks, row.shard.count, pending=pending.tags, now=now)
        connection.execute(statements.DATE_CATALOG, where | {"at": closed.catalog_at})
    kept = closed._asdict()
    del kept["first_seen"], kept["catalog_at"]
    connection.execute(statements.CLOSE, where | kept)
    return merge.standing(
        row.rule, row.destination, *read_standing(connection, row.rule, row.destination, now), now
    )


def _write_look(
    connection: Connection, row: RunRow, shard: Shard, key: Mapping[str, int], now: float
) -> list[ShardLook]:
    """Keeps what a run says of its shard. The looks at all shards that there are."""
    place = {**key, "of": shard.count}
    known = {index: ShardLook(*values) for index, *values in connection.execute(queries.SHARD_LOOKS, place)}
    known[shard.index] = merge.look(known.get(shard.index), row, now)
    connection.execute(statements.LOOK, place | {"shard": shard.index} | known[shard.index]._asdict())
    return [*known.values()]


def sweep(connection: Connection, now: float) -> None:
    """Throws away, once a day, what nobody has used for `KEEP_SECONDS`. It would only cost requests."""
    last = connection.execute(queries.SWEPT, {"what": _USED}).scalar_one_or_none()
    if last is None or now - SWEEP_SECONDS >= last or last > now + CLOCK_SLACK_SECONDS:
        for statement in statements.SWEEP:
            connection.execute(statement, {"before": now - KEEP_SECONDS})
        drop_unused(connection)
        connection.execute(statements.NOTE_SWEEP, {"what": _USED, "at": now})


def new_standing(names: Names, rule: str, destination: str, first_seen: float) -> dict[str, Any]:
    """The row of a rule that is run with a destination for the first time."""
    return {
        "rule": names[rule],
        "destination": names[destination],
        "first_seen": first_seen,
        "in_step": 0,
        "held": 0,
        "last_error": "",
    }


def _names_of(batch: Batch) -> Iterator[str]:
    yield from (name for place in batch.repositories for name in place)
    for keyed in (batch.beliefs, batch.placements, batch.pending, batch.units, batch.catalogs, batch.begun):
        yield from (name for key in keyed for name in key)
    yield from (name for key in batch.listed for name in key)
    yield from (site for site, _ in batch.refusals)
    for turns in batch.beliefs.values():
        yield from (turn.belief.rule for turn in turns.values() if turn.belief is not None)
    for (site, _), places in batch.seen.items():
        yield site
        yield from places


def execute_many(connection: Connection, statement: Executable, rows: Iterable[Mapping[str, Any]]) -> None:
    """Executes the statement with each of the rows; with none, not at all.

    Rows are made and handed over in pieces, so that a large batch is not in memory twice.
    """
    for part in pieces(rows):
        connection.execute(statement, part)
