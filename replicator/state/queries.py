"""What is asked of the database, as SQLAlchemy statements built once. Parameters are names, not their numbers."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, Float, ScalarSelect, bindparam, case, func, null, select

from replicator.state.tables import (
    beliefs,
    created,
    events,
    listed,
    names,
    paused,
    pending,
    placements,
    refusals,
    repositories,
    runs,
    shards,
    standings,
    swept,
    told,
    units,
    whereabouts,
)


def _id(parameter: str) -> ScalarSelect[int]:
    return select(names.c.id).where(names.c.name == bindparam(parameter)).scalar_subquery()


# --- one repository ---

BELIEFS: Final = (
    select(
        beliefs.c.tag,
        beliefs.c.digest,
        beliefs.c.source_digest,
        names.c.name,
        beliefs.c.checked_at,
        beliefs.c.asked_at,
        beliefs.c.companions,
    )
    .join(names, names.c.id == beliefs.c.rule)
    .where(beliefs.c.destination == _id("destination"), beliefs.c.repository == _id("repository"))
)
"""In the order of `ports.TagBelief`'s fields."""
BELIEFS_OF: Final = BELIEFS.where(beliefs.c.tag.in_(bindparam("keys", expanding=True)))

PLACEMENT_FIELDS: Final = ("digest", "fingerprint", "written_at", "verified_at")
PLACEMENTS: Final = select(*(placements.c[name] for name in PLACEMENT_FIELDS)).where(
    placements.c.destination == _id("destination"), placements.c.repository == _id("repository")
)
PLACEMENTS_OF: Final = PLACEMENTS.where(placements.c.digest.in_(bindparam("keys", expanding=True)))
PENDING_FIELDS: Final = (
    "digest",
    "since",
    "attempts",
    "error",
    "reason",
    "not_before",
    "source",
    "asked_at",
    "hold",
)
PENDING: Final = select(pending.c.tag, *(pending.c[name] for name in PENDING_FIELDS)).where(
    pending.c.rule == _id("rule"),
    pending.c.destination == _id("destination"),
    pending.c.repository == _id("repository"),
)
PENDING_OF: Final = PENDING.where(pending.c.tag.in_(bindparam("keys", expanding=True)))
KNOWS_REPOSITORY: Final = select(repositories.c.site).where(
    repositories.c.site == _id("site"), repositories.c.repository == _id("repository")
)
LISTED: Final = select(listed.c.tag, listed.c.digest, listed.c.version).where(
    listed.c.site == _id("site"), listed.c.repository == _id("repository")
)

REFUSALS: Final = select(refusals.c.repository, refusals.c.at, refusals.c.cause).where(
    refusals.c.site == _id("site"), refusals.c.repository.in_([bindparam("repository"), ""])
)

# --- digests ---

WHEREABOUTS: Final = (
    select(whereabouts.c.digest, names.c.name, whereabouts.c.seen_at)
    .join(names, names.c.id == whereabouts.c.repository)
    .where(whereabouts.c.site == _id("site"), whereabouts.c.digest.in_(bindparam("keys", expanding=True)))
)
CREATED: Final = select(created.c.digest, created.c.at, created.c.used_at).where(
    created.c.digest.in_(bindparam("keys", expanding=True))
)

# --- rules ---

_rule = names.alias("rule_name")
_destination = names.alias("destination_name")
_repository = names.alias("repository_name")


def _past(column: ColumnElement[float]) -> ColumnElement[float]:
    """A time; NULL where it lies ahead."""
    return case((column <= bindparam("ahead"), column), else_=null())


UNITS: Final = (
    select(
        _rule.c.name,
        _destination.c.name,
        _repository.c.name,
        units.c.target,
        units.c.source_complete_at,
        units.c.destination_complete_at,
        units.c.in_step,
        units.c.held,
        units.c.unknown,
        units.c.error,
        units.c.asked_at,
    )
    .join(_rule, _rule.c.id == units.c.rule)
    .join(_destination, _destination.c.id == units.c.destination)
    .join(_repository, _repository.c.id == units.c.repository)
    .where(_rule.c.name == bindparam("rule"))
    .order_by(_destination.c.name, _repository.c.name)
)
"""In the order of `ports.Unit`'s fields."""
UNITS_OF: Final = UNITS.where(
    units.c.repository.in_(select(names.c.id).where(names.c.name.in_(bindparam("keys", expanding=True))))
)

BASE_FIELDS: Final = (
    "first_seen",
    "catalog_at",
    "last_look",
    "last_success",
    "in_step",
    "held",
    "last_error",
)
BASES: Final = (
    select(_rule.c.name, _destination.c.name, *(standings.c[name] for name in BASE_FIELDS))
    .join(_rule, _rule.c.id == standings.c.rule)
    .join(_destination, _destination.c.id == standings.c.destination)
    .order_by(_rule.c.name, _destination.c.name)
)
"""After the names, in the order of `merge.Base`'s fields."""

_source, _target = _past(units.c.source_complete_at), _past(units.c.destination_complete_at)
_complete_at = case((_source.is_(None) | _target.is_(None), 0.0), (_source < _target, _source), else_=_target)
UNIT_SUMS: Final = (
    select(
        _rule.c.name,
        _destination.c.name,
        func.count(),
        func.sum(units.c.in_step),
        func.sum(units.c.held),
        func.sum(units.c.unknown),
        func.min(_complete_at),
    )
    .join(_rule, _rule.c.id == units.c.rule)
    .join(_destination, _destination.c.id == units.c.destination)
    .group_by(_rule.c.name, _destination.c.name)
)
"""After the names, in the order of `merge.UnitSum`'s fields but for the last; 0 is never."""
OLDEST_UNIT: Final = (
    select(names.c.name)
    .join(units, units.c.repository == names.c.id)
    .where(units.c.rule == _id("rule"), units.c.destination == _id("destination"))
    .order_by(_complete_at, names.c.name)
    .limit(1)
)

_is_pending = pending.c.hold == ""
_failed = func.count(pending.c.tag).filter(pending.c.attempts > 0)
PENDING_SUMS: Final = (
    select(_rule.c.name, _destination.c.name, func.count(pending.c.tag), _failed, func.min(pending.c.since))
    .join(_rule, _rule.c.id == pending.c.rule)
    .join(_destination, _destination.c.id == pending.c.destination)
    .where(_is_pending)
    .group_by(_rule.c.name, _destination.c.name)
)
"""After the names, in the order of `merge.PendingSum`'s first fields."""
OLDEST_PENDING: Final = (
    select(names.c.name, pending.c.tag)
    .join(names, names.c.id == pending.c.repository)
    .where(
        pending.c.rule == _id("rule"),
        pending.c.destination == _id("destination"),
        pending.c.since == bindparam("since"),
        _is_pending,
    )
    .order_by(names.c.name, pending.c.tag)
    .limit(1)
)

_other = pending.alias("other")
BEHIND: Final = (
    select(
        _rule.c.name,
        _destination.c.name,
        _repository.c.name,
        func.count(pending.c.tag),
        _failed,
        func.min(pending.c.since),
        select(_other.c.tag)
        .where(
            _other.c.rule == pending.c.rule,
            _other.c.destination == pending.c.destination,
            _other.c.repository == pending.c.repository,
            _other.c.hold == "",
        )
        .order_by(_other.c.since, _other.c.tag)
        .limit(1)
        .scalar_subquery(),
    )
    .join(_rule, _rule.c.id == pending.c.rule)
    .join(_destination, _destination.c.id == pending.c.destination)
    .join(_repository, _repository.c.id == pending.c.repository)
    .where(_is_pending)
    .group_by(
        pending.c.rule,
        pending.c.destination,
        pending.c.repository,
        _rule.c.name,
        _destination.c.name,
        _repository.c.name,
    )
    .order_by(_rule.c.name, _destination.c.name, _repository.c.name)
)
"""In the order of `ports.BehindRepository`'s fields."""

RUNS: Final = (
    select(
        runs.c.started_at,
        runs.c.ended_at,
        runs.c.outcome,
        runs.c.complete_look,
        runs.c.in_step,
        runs.c.held,
        runs.c.failed,
        runs.c.error,
        runs.c.narrowed,
    )
    .where(runs.c.rule == _id("rule"), runs.c.destination == _id("destination"))
    .order_by(runs.c.started_at.desc())
)

# --- the agent ---

EVENTS: Final = select(
    events.c.id,
    events.c.site,
    events.c.repository,
    events.c.tag,
    events.c.digest,
    events.c.at,
    events.c.accepted_at,
).order_by(events.c.accepted_at, events.c.id)
"""In the order of `ports.AcceptedEvent`'s fields."""
PAUSED: Final = select(paused.c.rule)
TOLD: Final = select(told.c.receiver, told.c.rule, told.c.destination, told.c.condition)
SWEPT: Final = select(swept.c.at).where(swept.c.what == bindparam("what"))

# --- for what is written ---

NAME_IDS: Final = select(names.c.name, names.c.id).where(names.c.name.in_(bindparam("keys", expanding=True)))
ROOTS_OF: Final = (
    select(beliefs.c.digest)
    .where(
        beliefs.c.destination == bindparam("destination"),
        beliefs.c.repository == bindparam("repository"),
        beliefs.c.tag.in_(bindparam("keys", expanding=True)),
    )
    .distinct()
)
"""Parameters are numbers of names here, and in the next two."""
_before = bindparam("at", type_=Float())
UNITS_BEFORE: Final = (
    select(names.c.name, names.c.id)
    .join(units, units.c.repository == names.c.id)
    .where(
        units.c.rule == bindparam("rule"),
        units.c.destination == bindparam("destination"),
        (units.c.asked_at <= _before) | (units.c.asked_at > bindparam("ahead")),
    )
)
SOURCES_BEFORE: Final = (
    select(pending.c.source)
    .where(
        pending.c.rule == bindparam("rule"),
        pending.c.destination == bindparam("destination"),
        pending.c.source != "",
        (pending.c.asked_at <= _before) | (pending.c.asked_at > bindparam("ahead")),
    )
    .distinct()
)

SHARD_LOOKS: Final = select(
    shards.c.shard, shards.c.catalog_at, shards.c.ended_at, shards.c.is_ok, shards.c.error
).where(
    shards.c.rule == bindparam("rule"),
    shards.c.destination == bindparam("destination"),
    shards.c.of == bindparam("of"),
)
"""After the shard, in the order of `merge.ShardLook`'s fields."""

_one = (_rule.c.name == bindparam("rule"), _destination.c.name == bindparam("destination"))
BASE: Final = BASES.where(*_one)
UNIT_SUM: Final = UNIT_SUMS.where(*_one)
PENDING_SUM: Final = PENDING_SUMS.where(*_one)
