"""What becomes of something known when something new is said about it. Pure.

An answer never replaces one that was asked for later. A time that lies ahead was written while a clock ran ahead, and
counts as if there were none. `statements` says the same to the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from replicator.policy.recheck import is_ahead
from replicator.ports import (
    AcceptedEvent,
    CatalogSeen,
    Pending,
    RunRow,
    Standing,
    TagBelief,
    Unit,
    UnitSeen,
)

MAX_TEXT = 1_000
"""Characters kept of an error."""


def supersedes(asked_at: float, known: float, now: float) -> bool:
    """Whether an answer replaces one that was asked for at `known`."""
    return asked_at >= known or is_ahead(now, known)


def believe(known: TagBelief | None, new: TagBelief, now: float) -> TagBelief:
    """What is believed of a tag."""
    return new if known is None or supersedes(new.asked_at, known.asked_at, now) else known


def ends_belief(known: TagBelief, seen_at: float, now: float) -> bool:
    """Whether a belief ends with a listing, begun at `seen_at`, that lacked its tag."""
    return supersedes(seen_at, known.checked_at, now)


def pend(known: Pending | None, new: Pending, belief: TagBelief | None, now: float) -> Pending | None:
    """What is pending for a tag, or holds it. `belief` is what is believed of it, whichever rule put it there.

    `since` stays from one time to the next, but not from a hold to a copy or back.
    """
    if belief is not None and not supersedes(new.asked_at, belief.asked_at, now):
        return known
    if known is None:
        return new
    if not supersedes(new.asked_at, known.asked_at, now):
        return known
    is_other = bool(new.hold) is not bool(known.hold)
    return new if is_other or new.since <= known.since else msgspec.structs.replace(new, since=known.since)


def clean_pending(pending: Pending) -> Pending:
    """With texts that may be kept."""
    error, hold = clean(pending.error), clean(pending.hold)
    if (error, hold) == (pending.error, pending.hold):
        return pending
    return msgspec.structs.replace(pending, error=error, hold=hold)


def ends_pending(known: Pending, asked_at: float, now: float) -> bool:
    """Whether a pending tag ends with what the source said when it was asked at `asked_at`."""
    return supersedes(asked_at, known.asked_at, now)


def scan(known: Unit | None, seen: UnitSeen, now: float) -> Unit:
    """A unit that was scanned."""
    unit = msgspec.structs.replace(seen.unit, error=clean(seen.unit.error))
    if known is None:
        return unit if seen.counted else msgspec.structs.replace(unit, in_step=0, held=0, unknown=0)
    if not supersedes(unit.asked_at, known.asked_at, now):
        return known
    counts = unit if seen.counted else known
    source, destination = unit.source_complete_at, unit.destination_complete_at
    return msgspec.structs.replace(
        unit,
        source_complete_at=past(known.source_complete_at, now) if source is None else source,
        destination_complete_at=past(known.destination_complete_at, now)
        if destination is None
        else destination,
        in_step=counts.in_step,
        held=counts.held,
        unknown=counts.unknown,
    )


def outlives(repository: str, asked_at: float, catalog: CatalogSeen, now: float) -> bool:
    """Whether what is known of a source repository stays after a catalog."""
    return repository in catalog.repositories or not supersedes(catalog.at, asked_at, now)


def accept(known: AcceptedEvent | None, new: AcceptedEvent) -> AcceptedEvent:
    """Two events about one tag as one."""
    return new if known is None or new.at <= known.at else msgspec.structs.replace(new, at=known.at)


def past(time: float | None, now: float) -> float | None:
    """A remembered time; None where it lies ahead."""
    return None if time is None or is_ahead(now, time) else time


def complete_at(unit: Unit, now: float) -> float | None:
    """Since when nothing of the unit has been overlooked; None: it has never been scanned completely."""
    source, destination = past(unit.source_complete_at, now), past(unit.destination_complete_at, now)
    return None if source is None or destination is None else min(source, destination)


class Base(NamedTuple):
    """What is remembered of a rule at a destination as a whole. `in_step` and `held` are its last run's."""

    first_seen: float
    catalog_at: float | None = None
    last_look: float | None = None
    last_success: float | None = None
    in_step: int = 0
    held: int = 0
    last_error: str = ""


class PendingSum(NamedTuple):
    """What is pending, in short: the oldest is of that repository and tag."""

    tags: int = 0
    failed: int = 0
    since: float | None = None
    repository: str = ""
    tag: str = ""


class UnitSum(NamedTuple):
    """Units, in short. `complete_at` is the oldest, of that source repository; None: one has never been complete."""

    units: int = 0
    in_step: int = 0
    held: int = 0
    unknown: int = 0
    complete_at: float | None = None
    repository: str = ""


def standing(
    rule: str, destination: str, base: Base, pending: PendingSum, units: UnitSum, now: float
) -> Standing:
    """Where a rule stands."""
    found = Standing(
        rule,
        destination,
        min(base.first_seen, now),
        last_look=past(base.last_look, now),
        last_success=past(base.last_success, now),
        in_step=base.in_step,
        held=base.held,
        pending=pending.tags,
        failed=pending.failed,
        oldest_pending=pending.since,
        last_error=base.last_error,
        oldest_repository=pending.repository,
        oldest_tag=pending.tag,
    )
    catalog = past(base.catalog_at, now)
    if not units.units and catalog is None:
        return found
    look, blocker = catalog, ""
    if units.units and look is not None and (units.complete_at is None or units.complete_at < look):
        look, blocker = units.complete_at, units.repository
    return msgspec.structs.replace(
        found,
        last_look=look,
        look_repository=blocker,
        in_step=units.in_step,
        held=units.held,
        unknown=units.unknown,
    )


def close(base: Base, row: RunRow, *, pending: int, now: float) -> Base:
    """What is remembered after a run."""
    error = clean(row.error)
    if row.narrowed:
        # Its counts are not the rule's. That it went well says nothing of what failed elsewhere, and its own error
        # would stay until a whole scan, however soon the same tag went well: what it could not copy is pending.
        return base
    if row.outcome == "interrupted":
        # It saw a part; the rest may still fail.
        return base._replace(last_error=error or base.last_error, in_step=max(row.in_step, base.in_step))
    look, success = base.last_look, base.last_success
    if row.complete_look:
        # The start, not the end: what changed during the run may have been overlooked.
        before = past(base.last_look, now)
        look = row.started_at if before is None else max(before, row.started_at)
        if row.outcome == "ok" and not row.failed and not pending:
            success = row.ended_at
    return base._replace(
        last_look=look, last_success=success, in_step=row.in_step, held=row.held, last_error=error
    )


class ShardLook(NamedTuple):
    """The last run of one shard of a rule at a destination. `catalog_at`: of the last that the source's listing was complete for."""

    catalog_at: float | None
    ended_at: float
    is_ok: bool
    error: str = ""


def look(known: ShardLook | None, row: RunRow, now: float) -> ShardLook:
    """What is remembered of a shard after a run of it. A run that was interrupted says nothing but its error."""
    before = None if known is None else past(known.catalog_at, now)
    at = before if row.catalog_at is None else max(row.catalog_at, before or 0.0)
    is_ok = row.outcome == "ok" and row.complete_look and not row.failed
    return ShardLook(at, row.ended_at, is_ok, clean(row.error))


def close_shard(base: Base, looks: Sequence[ShardLook], count: int, *, pending: int, now: float) -> Base:
    """What is remembered of a rule after a run of one of its shards.

    Args:
        base: what was.
        looks: those of its shards that were ever looked at, this one's included.
        count: how many shards there are.
        pending: how many tags are, in all shards.
        now: the time.
    """
    failed = max((each for each in looks if each.error), key=lambda each: each.ended_at, default=None)
    base = base._replace(last_error="" if failed is None else failed.error)
    if len(looks) < count:
        return base
    times = [past(each.catalog_at, now) for each in looks]
    if None not in times:
        oldest = min(at for at in times if at is not None)
        base = base._replace(catalog_at=max(oldest, past(base.catalog_at, now) or 0.0))
        if not pending and all(each.is_ok for each in looks):
            base = base._replace(last_success=max(each.ended_at for each in looks))
    return base


def clean(text: str) -> str:
    """An error as it is kept: cut, and storable."""
    return storable(text[:MAX_TEXT])


def storable(text: str) -> str:
    """The text with a mark in place of what no database takes, as `is_text` says."""
    return text if is_text(text) else text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def is_text(name: str) -> bool:
    """Whether every database takes the name.

    JSON from a registry may carry lone surrogates and, for PostgreSQL, NULs, which would spoil a batch.
    """
    return "\0" not in name and (name.isascii() or name.encode("utf-8", "ignore").decode() == name)
