"""What the database is told, as SQLAlchemy statements built once. Parameters are numbers of names.

They say what `merge` says. `ahead` is the latest time that a remembered one may have; one beyond counts as none.
They are SQLite's; `postgres.dialect` has what PostgreSQL says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Float,
    Table,
    bindparam,
    case,
    delete,
    exists,
    func,
    null,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert

from replicator.state.memory import REPOSITORIES_KEPT, RUNS_KEPT
from replicator.state.queries import BASE_FIELDS, PENDING_FIELDS
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

_ahead = bindparam("ahead", type_=Float())


def _where(table: Table, keys: Iterable[str]) -> list[ColumnElement[bool]]:
    """The row that parameters of its keys, each after `the_`, name."""
    return [table.c[key] == bindparam(f"the_{key}") for key in keys]


def _supersedes(new: ColumnElement[Any], known: ColumnElement[Any]) -> ColumnElement[bool]:
    return (new >= known) | (known > _ahead)


def _past(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((column <= _ahead, column), else_=null())


INTERN: Final = insert(names).on_conflict_do_nothing()
KNOW_REPOSITORY: Final = insert(repositories).on_conflict_do_nothing()

# --- beliefs and placements ---

_BELIEF: Final = ("destination", "repository", "tag")
_belief = insert(beliefs)
BELIEVE: Final = _belief.on_conflict_do_update(
    index_elements=_BELIEF,
    set_={
        name: _belief.excluded[name]
        for name in ("digest", "source_digest", "rule", "checked_at", "asked_at", "companions")
    },
    where=_supersedes(_belief.excluded.asked_at, beliefs.c.asked_at),
)
END_BELIEF: Final = delete(beliefs).where(
    *_where(beliefs, _BELIEF), _supersedes(bindparam("seen_at", type_=Float()), beliefs.c.checked_at)
)

_PLACEMENT: Final = ("destination", "repository", "digest")
_placement = insert(placements)
PLACE: Final = _placement.on_conflict_do_update(
    index_elements=_PLACEMENT,
    set_={name: _placement.excluded[name] for name in ("fingerprint", "written_at", "verified_at")},
)
END_PLACEMENT: Final = delete(placements).where(
    *_where(placements, _PLACEMENT),
    # One of the index's own columns: with `*`, SQLite would walk through all beliefs of the repository instead.
    ~select(beliefs.c.digest).where(*_where(beliefs, _PLACEMENT)).exists(),
)
"""Where no belief names it any more."""

# --- pending ---

_PENDING: Final = ("rule", "destination", "repository", "tag")
_pending_columns = (*_PENDING, *PENDING_FIELDS)
_pend = insert(pending)
PEND: Final = _pend.from_select(
    _pending_columns,
    select(*(bindparam(f"the_{name}", type_=pending.c[name].type) for name in _pending_columns)).where(
        ~exists().where(
            *_where(beliefs, _BELIEF),
            beliefs.c.asked_at > bindparam("the_asked_at"),
            beliefs.c.asked_at <= _ahead,
        )
    ),
).on_conflict_do_update(
    index_elements=_PENDING,
    set_={name: _pend.excluded[name] for name in PENDING_FIELDS if name != "since"}
    | {
        "since": case(
            (
                ((pending.c.hold == "") == (_pend.excluded.hold == ""))
                & (pending.c.since < _pend.excluded.since),
                pending.c.since,
            ),
            else_=_pend.excluded.since,
        )
    },
    where=_supersedes(_pend.excluded.asked_at, pending.c.asked_at),
)
UNPEND: Final = delete(pending).where(
    *_where(pending, _PENDING), _supersedes(bindparam("the_asked_at"), pending.c.asked_at)
)

# --- units ---

_UNIT: Final = ("rule", "destination", "repository")
_unit = insert(units)
_scanned = {name: _unit.excluded[name] for name in ("target", "error", "asked_at")} | {
    name: func.coalesce(_unit.excluded[name], _past(units.c[name]))
    for name in ("source_complete_at", "destination_complete_at")
}
_counted = {name: _unit.excluded[name] for name in ("in_step", "held", "unknown")}
_unit_is_newer = _supersedes(_unit.excluded.asked_at, units.c.asked_at)
SCAN: Final = _unit.on_conflict_do_update(index_elements=_UNIT, set_=_scanned, where=_unit_is_newer)
SCAN_AND_COUNT: Final = _unit.on_conflict_do_update(
    index_elements=_UNIT, set_=_scanned | _counted, where=_unit_is_newer
)
END_UNIT: Final = delete(units).where(*_where(units, _UNIT))
END_PENDING_OF: Final = delete(pending).where(
    *_where(pending, ("rule", "destination", "source")),
    _supersedes(bindparam("at", type_=Float()), pending.c.asked_at),
)

# --- blobs, images, listings ---

_see = insert(whereabouts)
SEE: Final = _see.on_conflict_do_update(
    index_elements=["site", "digest", "repository"], set_={"seen_at": _see.excluded.seen_at}
)
FORGET: Final = delete(whereabouts).where(*_where(whereabouts, ("site", "digest", "repository")))
_other = whereabouts.alias("other")
TRIM_WHEREABOUTS: Final = delete(whereabouts).where(
    *_where(whereabouts, ("site", "digest")),
    whereabouts.c.repository.not_in(
        select(_other.c.repository)
        .where(_other.c.site == bindparam("the_site"), _other.c.digest == bindparam("the_digest"))
        .order_by(case((_other.c.seen_at <= _ahead, _other.c.seen_at), else_=0.0).desc())
        .limit(REPOSITORIES_KEPT)
    ),
)
_create = insert(created)
CREATE: Final = _create.on_conflict_do_update(
    index_elements=["digest"], set_={"at": _create.excluded.at, "used_at": _create.excluded.used_at}
)
_LISTED: Final = ("site", "repository", "tag")
_note = insert(listed)
NOTE: Final = _note.on_conflict_do_update(
    index_elements=_LISTED, set_={name: _note.excluded[name] for name in ("digest", "version")}
)
UNLIST: Final = delete(listed).where(*_where(listed, _LISTED))
_REFUSED: Final = ("site", "repository")
_refuse = insert(refusals)
REFUSE: Final = _refuse.on_conflict_do_update(
    index_elements=_REFUSED, set_={name: _refuse.excluded[name] for name in ("at", "cause")}
)

# --- rules ---

_begin = insert(standings)
BEGIN: Final = _begin.on_conflict_do_update(
    index_elements=["rule", "destination"],
    set_={"first_seen": _begin.excluded.first_seen},
    where=standings.c.first_seen > _ahead,
)
_STANDING: Final = ("rule", "destination")
CATALOG: Final = (
    update(standings)
    .where(*_where(standings, _STANDING))
    .values(
        catalog_at=case(
            (
                _supersedes(bindparam("at", type_=Float()), func.coalesce(standings.c.catalog_at, 0.0)),
                bindparam("at", type_=Float()),
            ),
            else_=standings.c.catalog_at,
        )
    )
)
CLOSE: Final = (
    update(standings)
    .where(*_where(standings, _STANDING))
    .values({name: bindparam(name) for name in BASE_FIELDS if name not in {"first_seen", "catalog_at"}})
)

DATE_CATALOG: Final = (
    update(standings).where(*_where(standings, _STANDING)).values(catalog_at=bindparam("at", type_=Float()))
)
_look = insert(shards)
LOOK: Final = _look.on_conflict_do_update(
    index_elements=["rule", "destination", "of", "shard"],
    set_={name: _look.excluded[name] for name in ("catalog_at", "ended_at", "is_ok", "error")},
)

_run = insert(runs)
RUN: Final = _run.on_conflict_do_update(
    index_elements=["rule", "destination", "started_at"],
    set_={
        name: _run.excluded[name]
        for name in ("ended_at", "outcome", "complete_look", "in_step", "held", "failed", "error", "narrowed")
    },
)
_other_run = runs.alias("other_run")
TRIM_RUNS: Final = delete(runs).where(
    *_where(runs, _STANDING),
    runs.c.started_at
    <= select(_other_run.c.started_at)
    .where(
        _other_run.c.rule == bindparam("the_rule"), _other_run.c.destination == bindparam("the_destination")
    )
    .order_by(_other_run.c.started_at.desc())
    .limit(1)
    .offset(RUNS_KEPT)
    .scalar_subquery(),
)

# --- the agent; parameters are names ---

_event = insert(events)
ACCEPT: Final = _event.on_conflict_do_update(
    index_elements=["site", "repository", "tag"],
    set_={name: _event.excluded[name] for name in ("id", "digest", "accepted_at")}
    | {"at": case((events.c.at < _event.excluded.at, events.c.at), else_=_event.excluded.at)},
)
ANSWER: Final = delete(events).where(*_where(events, ["id"]))
PAUSE: Final = insert(paused).on_conflict_do_nothing()
RESUME: Final = delete(paused).where(*_where(paused, ["rule"]))
TELL: Final = insert(told).on_conflict_do_nothing()
UNTELL: Final = delete(told).where(*_where(told, ("receiver", "rule", "destination", "condition")))

# --- what nobody uses any more ---

SWEEP: Final = (
    delete(whereabouts).where(whereabouts.c.seen_at < bindparam("before")),
    delete(created).where(created.c.used_at < bindparam("before")),
    delete(refusals).where(refusals.c.at < bindparam("before")),
)
_sweep = insert(swept)
NOTE_SWEEP: Final = _sweep.on_conflict_do_update(index_elements=["what"], set_={"at": _sweep.excluded.at})
