"""What is read from the database, in the port's words."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Executable

from replicator.model.digest import Digest
from replicator.policy.recheck import CLOCK_SLACK_SECONDS
from replicator.ports import (
    AcceptedEvent,
    Listed,
    ListingRefused,
    Pending,
    Placement,
    RunRow,
    Standing,
    TagBelief,
    Unit,
)
from replicator.state import merge, queries
from replicator.state.merge import Base, PendingSum, UnitSum

_T = TypeVar("_T")
_KEYS_AT_ONCE: Final = 1_000


def read_beliefs(
    connection: Connection, destination: str, repository: str, tags: Collection[str] | None
) -> dict[str, TagBelief]:
    """Beliefs by tag; all, or those of `tags`."""
    place = {"destination": destination, "repository": repository}
    rows = _rows(connection, queries.BELIEFS, queries.BELIEFS_OF, tags, **place)
    rules: dict[str, str] = {}
    last_asked = 0.0
    found = {}
    for tag, digest, source_digest, rule, checked_at, asked_at, companions in rows:
        # One object for equal values, which many rows have: there may be 100,000 of them.
        if asked_at != last_asked:
            last_asked = asked_at
        found[tag] = TagBelief(
            tag,
            digest,
            digest if source_digest == digest else source_digest,
            rules.setdefault(rule, rule),
            checked_at,
            last_asked,
            companions,
        )
    return found


def read_placements(
    connection: Connection, destination: str, repository: str, digests: Collection[Digest] | None
) -> dict[Digest, Placement]:
    """Placements by digest; all, or those of `digests`."""
    place = {"destination": destination, "repository": repository}
    rows = _rows(connection, queries.PLACEMENTS, queries.PLACEMENTS_OF, digests, **place)
    return {row[0]: Placement(*row) for row in rows}


def read_pending(
    connection: Connection, rule: str, destination: str, repository: str, tags: Collection[str] | None
) -> dict[str, Pending]:
    """Pending tags by tag; all, or those of `tags`."""
    place = {"rule": rule, "destination": destination, "repository": repository}
    rows = _rows(connection, queries.PENDING, queries.PENDING_OF, tags, **place)
    return {row[0]: Pending(repository, *row) for row in rows}


def read_whereabouts(
    connection: Connection, site: str, digests: Sequence[Digest]
) -> dict[Digest, dict[str, float]]:
    """Repositories by digest, each with when the blob was seen there."""
    found: dict[Digest, dict[str, float]] = {}
    for digest, name, at in _rows(connection, queries.WHEREABOUTS, queries.WHEREABOUTS, digests, site=site):
        found.setdefault(digest, {})[name] = at
    return found


def read_created(connection: Connection, digests: Sequence[Digest]) -> dict[Digest, tuple[float, float]]:
    """Creation times by digest, each with when somebody last wanted to know."""
    rows = _rows(connection, queries.CREATED, queries.CREATED, digests)
    return {digest: (at, used_at) for digest, at, used_at in rows}


def read_listed(connection: Connection, site: str, repository: str) -> dict[str, Listed]:
    """What listings said, by tag."""
    found = connection.execute(queries.LISTED, {"site": site, "repository": repository})
    return {row[0]: Listed(*row) for row in found}


def read_refusals(connection: Connection, site: str, repository: str) -> dict[str, ListingRefused]:
    """Refusals to list in bulk, by repository; "" is all of the site."""
    found = connection.execute(queries.REFUSALS, {"site": site, "repository": repository})
    return {row[0]: ListingRefused(site, *row) for row in found}


def read_units(
    connection: Connection, rule: str, destination: str | None, repositories: Collection[str] | None
) -> list[Unit]:
    """Units of a rule, at one destination or at all; all, or those of `repositories`."""
    rows = _rows(connection, queries.UNITS, queries.UNITS_OF, repositories, rule=rule)
    found = (Unit(*row) for row in rows)
    return sorted(
        (unit for unit in found if destination in {None, unit.destination}),
        key=lambda unit: (unit.destination, unit.repository),
    )


def read_runs(connection: Connection, rule: str, destination: str) -> list[RunRow]:
    """Runs, latest first."""
    found = connection.execute(queries.RUNS, {"rule": rule, "destination": destination})
    return [RunRow(rule, destination, *row) for row in found]


def read_events(connection: Connection) -> list[AcceptedEvent]:
    """Events, first accepted first."""
    return [
        AcceptedEvent(id_, site, repository or None, tag or None, digest, at, accepted_at)
        for id_, site, repository, tag, digest, at, accepted_at in connection.execute(queries.EVENTS)
    ]


def read_standings(connection: Connection, now: float) -> list[Standing]:
    """Where all rules stand, by rule and destination. In a transaction that sees one moment, or sums and names may differ."""
    pending = {(row[0], row[1]): tuple(row[2:]) for row in connection.execute(queries.PENDING_SUMS)}
    moment = {"ahead": now + CLOCK_SLACK_SECONDS}
    units = {(row[0], row[1]): tuple(row[2:]) for row in connection.execute(queries.UNIT_SUMS, moment)}
    found = []
    for rule, destination, *values in connection.execute(queries.BASES).all():
        key = rule, destination
        found.append(
            merge.standing(
                rule,
                destination,
                Base(*values),
                _pending_sum(connection, key, pending.get(key)),
                _unit_sum(connection, key, units.get(key), now),
                now,
            )
        )
    return found


def read_standing(
    connection: Connection, rule: str, destination: str, now: float
) -> tuple[Base, PendingSum, UnitSum]:
    """What `merge.standing` makes the standing of one rule, that has been begun, from."""
    key, names = (rule, destination), {"rule": rule, "destination": destination}
    moment = {"ahead": now + CLOCK_SLACK_SECONDS}
    base = connection.execute(queries.BASE, names).one()
    pending = connection.execute(queries.PENDING_SUM, names).first()
    units = connection.execute(queries.UNIT_SUM, names | moment).first()
    return (
        Base(*base[2:]),
        _pending_sum(connection, key, None if pending is None else tuple(pending[2:])),
        _unit_sum(connection, key, None if units is None else tuple(units[2:]), now),
    )


def _pending_sum(connection: Connection, key: tuple[str, str], counts: Sequence[Any] | None) -> PendingSum:
    if counts is None:
        return PendingSum()
    count, failed, since = counts
    place = {"rule": key[0], "destination": key[1], "since": since}
    # A transaction that writes sees what other agents write meanwhile: the oldest may be gone.
    repository, tag = connection.execute(queries.OLDEST_PENDING, place).first() or ("", "")
    return PendingSum(count, failed, since, repository, tag)


def _unit_sum(
    connection: Connection, key: tuple[str, str], counts: Sequence[Any] | None, now: float
) -> UnitSum:
    if counts is None:
        return UnitSum()
    place = {"rule": key[0], "destination": key[1], "ahead": now + CLOCK_SLACK_SECONDS}
    repository = connection.execute(queries.OLDEST_UNIT, place).scalar() or ""
    count, in_step, held, unknown, complete_at = counts
    return UnitSum(count, in_step, held, unknown, complete_at or None, repository)


def _rows(
    connection: Connection,
    every: Executable,
    some: Executable,
    keys: Collection[Any] | None,
    **parameters: object,
) -> Iterator[Any]:
    if keys is None:
        yield from connection.execute(every, parameters)
        return
    for part in pieces(keys):
        yield from connection.execute(some, parameters | {"keys": part})


def pieces(rows: Iterable[_T]) -> Iterator[list[_T]]:
    """The rows in lists of at most a thousand."""
    left = iter(rows)
    while part := list(islice(left, _KEYS_AT_ONCE)):
        yield part
