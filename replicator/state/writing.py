"""How a batch and a run's row get into the database. Inside a transaction, which is the caller's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import Connection, Executable

from replicator.ports import RunRow, Standing
from replicator.state import statements
from replicator.state.batch import Batch, clean

_T = TypeVar("_T")
_ROWS_AT_ONCE: Final = 1_000
"""Rows are made and handed over in pieces, so that a large batch is not in memory twice."""


class Names:
    """Numbers of names. What a transaction adds is kept by `commit` and forgotten by `undo`."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._new: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        number = self._known.get(name)
        return self._new[name] if number is None else number

    def intern(self, connection: Connection, names: set[str]) -> None:
        """Gives each name a number that has none yet."""
        missing = sorted(name for name in names if name not in self._known and name not in self._new)
        execute_many(connection, statements.INTERN, ({"name": name} for name in missing))
        for part in pieces(missing):
            for name, number in connection.execute(statements.NAME_IDS, {"names": part}):
                self._new[name] = number

    def commit(self) -> None:
        """The transaction is durable."""
        self._known |= self._new
        self._new = {}

    def undo(self) -> None:
        """The transaction is undone, and its numbers with it."""
        self._new = {}


def write_batch(connection: Connection, batch: Batch, names: Names) -> None:
    """Writes everything of the batch."""
    names.intern(connection, _names_of(batch))
    places = sorted((names[site], names[repository]) for site, repository in batch.repositories)
    execute_many(
        connection, statements.KNOW_REPOSITORY, ({"site": site, "repository": repo} for site, repo in places)
    )
    _write_pending(connection, batch, names)
    execute_many(connection, statements.BELIEVE, _belief_rows(batch, names))
    _write_whereabouts(connection, batch, names)
    execute_many(
        connection, statements.CREATE, ({"digest": digest, "at": at} for digest, at in batch.created.items())
    )
    execute_many(connection, statements.NOTE, _listed_rows(batch, names))
    execute_many(
        connection,
        statements.BEGIN,
        (
            _new_standing(names[rule], names[destination], at)
            for (rule, destination), at in batch.begun.items()
        ),
    )


def close_run(connection: Connection, row: RunRow, names: Names) -> Standing:
    """Writes the run's row and brings the standing up to date."""
    names.intern(connection, {row.rule, row.destination})
    rule, destination = names[row.rule], names[row.destination]
    where = {"the_rule": rule, "the_destination": destination}
    values = msgspec.structs.asdict(row) | {
        "rule": rule,
        "destination": destination,
        "error": clean(row.error),
    }
    connection.execute(statements.RUN, values)
    connection.execute(statements.TRIM_RUNS, where)
    connection.execute(statements.BEGIN, _new_standing(rule, destination, row.started_at))
    found = connection.execute(statements.STANDING, {"rule": row.rule, "destination": row.destination})
    standing = _after(Standing(*found.one()), row)
    kept = ("last_look", "last_success", "in_step", "held", "last_error")
    connection.execute(statements.CLOSE, where | {name: getattr(standing, name) for name in kept})
    return standing


def _after(standing: Standing, row: RunRow) -> Standing:
    """Where the rule stands after the run. What is pending is as found: the run's entries are written before."""
    if row.narrowed:
        # Its counts are not the rule's. That it went well says nothing of what failed elsewhere, and its own error
        # would stay until a whole look, however soon the same tag went well: what it could not copy is pending.
        return standing
    error = clean(row.error)
    if row.outcome == "interrupted":
        # It saw a part; that it met with no failure so far does not mean that there is none.
        return msgspec.structs.replace(
            standing, last_error=error or standing.last_error, in_step=max(row.in_step, standing.in_step)
        )
    look, success = standing.last_look, standing.last_success
    if row.complete_look:
        # The start, not the end: what changed during the run may have been overlooked.
        look = row.started_at if look is None else max(look, row.started_at)
        if row.outcome == "ok" and not row.failed and not standing.pending:
            success = row.ended_at
    return msgspec.structs.replace(
        standing,
        last_look=look,
        last_success=success,
        in_step=row.in_step,
        held=row.held,
        last_error=error,
    )


def _new_standing(rule: int, destination: int, first_seen: float) -> dict[str, object]:
    return {
        "rule": rule,
        "destination": destination,
        "first_seen": first_seen,
        "in_step": 0,
        "held": 0,
        "last_error": "",
    }


def _names_of(batch: Batch) -> set[str]:
    found = {belief.rule for tags in batch.beliefs.values() for belief in tags.values()}
    found.update(name for place in batch.repositories for name in place)
    found.update(name for key in batch.pending for name in key)
    found.update(name for key in batch.begun for name in key)
    for (site, _), places in batch.seen.items():
        found.add(site)
        found.update(places)
    return found


def _belief_rows(batch: Batch, names: Names) -> Iterator[dict[str, object]]:
    for (destination, repository), tags in batch.beliefs.items():
        place = {"destination": names[destination], "repository": names[repository]}
        for belief in tags.values():
            yield {
                **place,
                "tag": belief.tag,
                "digest": belief.digest,
                "source_digest": belief.source_digest,
                "rule": names[belief.rule],
                "checked_at": belief.checked_at,
                "asked_at": belief.asked_at,
            }


def _listed_rows(batch: Batch, names: Names) -> Iterator[dict[str, object]]:
    for (site, repository), tags in batch.listed.items():
        place = {"site": names[site], "repository": names[repository]}
        for listed in tags.values():
            yield {**place, "tag": listed.tag, "digest": listed.digest, "version": listed.version}


def _write_pending(connection: Connection, batch: Batch, names: Names) -> None:
    over = (
        {
            "the_rule": names[rule],
            "the_destination": names[destination],
            "the_repository": names[repository],
            "the_tag": tag,
        }
        for (rule, destination, repository), changes in batch.pending.items()
        for tag, change in changes.items()
        if change.fresh
    )
    execute_many(connection, statements.UNPEND, over)
    rows = (
        msgspec.structs.asdict(change.pending)
        | {"rule": names[rule], "destination": names[destination], "repository": names[repository]}
        for (rule, destination, repository), changes in batch.pending.items()
        for change in changes.values()
        if change.pending is not None
    )
    execute_many(connection, statements.PEND, rows)


def _write_whereabouts(connection: Connection, batch: Batch, names: Names) -> None:
    gone = (
        {"the_site": names[site], "the_digest": digest, "the_repository": names[repository]}
        for (site, digest), places in batch.seen.items()
        for repository, at in places.items()
        if at is None
    )
    execute_many(connection, statements.FORGET, gone)
    rows = (
        {"site": names[site], "digest": digest, "repository": names[repository], "seen_at": at}
        for (site, digest), places in batch.seen.items()
        for repository, at in places.items()
        if at is not None
    )
    execute_many(connection, statements.SEE, rows)
    execute_many(
        connection,
        statements.TRIM_WHEREABOUTS,
        ({"the_site": names[site], "the_digest": digest} for site, digest in batch.seen),
    )


def execute_many(connection: Connection, statement: Executable, rows: Iterable[Mapping[str, Any]]) -> None:
    """Executes the statement with each of the rows; with none, not at all."""
    for part in pieces(rows):
        connection.execute(statement, part)


def pieces(rows: Iterable[_T]) -> Iterator[list[_T]]:
    """The rows in lists of at most a thousand."""
    left = iter(rows)
    while part := list(islice(left, _ROWS_AT_ONCE)):
        yield part
